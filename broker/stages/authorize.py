"""Stage 4, authorize: the tenant's grants → the `Grant` that allows this call.

Before them comes what an operator holds back (broker/brakes.py), and what the operator lets the tenant's
tools use: no grant of its own widens that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from broker.brakes import Brakes
from broker.catalogue import Catalogue, not_usable
from broker.errors import Refused
from broker.grant_book import GrantBook
from broker.model import Call, EgressRules, Grant
from broker.settings import Tenant
from broker.trail import Trail
from broker.workflows import WorkflowBook, name_of
from toolcrib.v1.reasons_pb2 import Reason
from tools.manifest import Manifest

# What stands for a grant in the record of a call that the broker itself makes; no policy can have this id.
OWN_GRANT = "toolcrib:resolution"


class Authorizer:
    """Asks the grants in force; default deny.

    Attributes:
        brakes: What is held back, whatever the grants say.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        grants: GrantBook,
        tenants: Mapping[str, Tenant],
        workflows: WorkflowBook,
        brakes: Brakes,
    ) -> None:
        self.brakes = brakes
        self._catalogue = catalogue
        self._tenants = tenants
        self._grants = grants
        self._workflows = workflows

    def __call__(self, call: Call, trail: Trail) -> Grant:
        """Find the grant that allows a call.

        Raises:
            Refused: BRAKE_SET, NOT_GRANTED, POLICY_FAILED where a policy could not be evaluated, or
                TOOL_NOT_USABLE where the version was withdrawn.
        """
        self._check(call)
        untrusted = self._workflows.holds_untrusted(name_of(call))
        grants = self._grants.of(call.caller.tenant)
        grant = grants.authorize(call, self._workflows.clock(), untrusted=untrusted)
        trail.grant = grant
        return grant

    def allow_own(self, call: Call, trail: Trail, egress: EgressRules = None) -> Grant:
        """Allow a call that the broker itself makes about a call in doubt: no grant is asked.

        Args:
            call: What the broker makes.
            trail: Its.
            egress: To what the grant of a call that is sent again narrowed the requests; see `Grant`.

        Raises:
            Refused: BRAKE_SET, NOT_GRANTED or TOOL_NOT_USABLE.
        """
        self._check(call)
        trail.grant = Grant(OWN_GRANT, egress=egress)
        return trail.grant

    def _check(self, call: Call) -> None:
        self.brakes.check_call(call)
        if not self._catalogue.is_usable(call.caller.tenant, call.version):
            raise not_usable(call.contract.method, call.version.version)
        held_back = explain_held_back(
            call.version.manifest, call.contract.method, call.caller.tenant, self._tenants
        )
        if held_back:
            raise Refused(Reason.REASON_NOT_GRANTED, held_back)


def explain_held_back(manifest: Manifest, method: str, name: str, tenants: Mapping[str, Tenant]) -> str:
    """Say what of a method's needs the operator does not let a tenant use; "" when it has all of them."""
    if name not in tenants:
        return f'there is no tenant "{name}" any more'
    tenant, needs = tenants[name], manifest.method(method)
    roles = [manifest.credentials[credential].role for credential in needs.credentials]
    for kind, key, names, patterns in (
        ("target", "targets", needs.targets, tenant.targets),
        ("Vault role", "vault_roles", roles, tenant.vault_roles),
    ):
        outside = _find_outside(names, patterns)
        if outside:
            return (
                f'the operator does not let tenant "{name}" use {kind} "{outside}"; '
                f"see tenants.{name}.{key} in the broker's configuration"
            )
    return ""


def _find_outside(names: Iterable[str], patterns: tuple[str, ...]) -> str:
    """Return the first name that no pattern covers; "" when all are covered."""
    return next((name for name in names if not any(fnmatchcase(name, one) for one in patterns)), "")
