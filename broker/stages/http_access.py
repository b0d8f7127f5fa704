"""What a call may ask of its HTTP targets, and what is added to that: of manifest, grant and leases.

Rules:
1. A request needs a rule of the manifest, which reviewers read. Where the grant names requests it needs one
   of the grant's for that target as well; a target that such a grant does not name gets nothing.
2. A credential goes toward its own target only, and is in no start frame (start_frame.py).
3. What cannot be added as it is wanted is found before the tool starts: nothing ran.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from broker.model import Call, Grant
from broker.stages.reserve import NothingRan
from credentials.injection import Injection, NotInjectable, make_injection
from credentials.lease import Lease
from sandboxes.proxy.access import HttpAccess, HttpCaps
from toolcrib.v1.reasons_pb2 import Reason
from tools.http_rules import HttpRule
from tools.manifest import HttpLimits, Manifest


def make_accesses(call: Call, grant: Grant, leases: Sequence[Lease]) -> tuple[HttpAccess, ...]:
    """Say what a call may do at each of its targets of kind "http".

    Raises:
        NothingRan: CREDENTIALS_UNAVAILABLE; a credential cannot be added as the manifest wants it.
    """
    manifest = call.version.manifest
    try:
        injections = make_injections(manifest, leases)
    except NotInjectable as error:
        raise NothingRan(
            Reason.REASON_CREDENTIALS_UNAVAILABLE,
            f"a credential cannot be used as the tool's manifest wants it, nothing ran: {error}",
        ) from error
    return tuple(
        make_access(manifest, name, injections.get(name), narrow(grant, name))
        for name in manifest.http_targets(call.contract.method)
    )


def make_access(
    manifest: Manifest, name: str, injection: Injection | None, narrowed: tuple[HttpRule, ...] | None
) -> HttpAccess:
    """Say what a call may do at one target."""
    wanted = manifest.targets[name]
    return HttpAccess(
        target=name,
        allow=wanted.rules,
        narrowed=narrowed,
        opaque=wanted.opaque,
        caps=_caps(wanted.limits),
        injection=injection,
    )


def make_injections(manifest: Manifest, leases: Sequence[Lease]) -> Mapping[str, Injection]:
    """Take of the minted credentials those that are added on the way, by their target.

    Raises:
        NotInjectable: One cannot be added as it is wanted, or two go to one target.
    """
    found: dict[str, Injection] = {}
    for lease in leases:
        wanted = manifest.credentials[lease.credential]
        if wanted.inject is None:
            continue
        if wanted.target is None or wanted.target in found:
            raise NotInjectable(f"credentials.{lease.credential}: name one target, and for it one credential")
        found[wanted.target] = make_injection(lease.credential, wanted.inject, lease.payload)
    return found


def _caps(limits: HttpLimits) -> HttpCaps:
    return HttpCaps(limits.request_kib * 1024, limits.response_kib * 1024, limits.seconds, limits.requests)


def narrow(grant: Grant, target: str) -> tuple[HttpRule, ...] | None:
    """Take of a grant the rules for one target; None where it names no requests at all."""
    if grant.egress is None:
        return None
    return tuple(rule for name, rule in grant.egress if name == target)
