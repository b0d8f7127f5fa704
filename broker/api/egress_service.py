"""`toolcrib.v1.Egress`: says what the HTTP proxy would do. Nothing is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime

from broker.api.door import Door
from broker.catalogue import Catalogue
from broker.egress_explanation import EgressExplainer, Explanation, Request
from broker.errors import Refused
from broker.grant_book import GrantBook
from broker.model import Caller
from broker.policy.permits import Permit, find_permits
from broker.settings import Tenant
from broker.stages.authorize import explain_held_back
from sandboxes.proxy.access import HttpTarget
from toolcrib.v1 import egress_pb2
from toolcrib.v1.reasons_pb2 import Reason
from tools.catalogue import ToolVersion
from tools.errors import Violation
from tools.http_rules import Check

SERVICE = egress_pb2.DESCRIPTOR.services_by_name["Egress"]
_METHOD = re.compile(r"[A-Z][A-Z-]{0,19}", re.ASCII)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e]*", re.ASCII)


class EgressService:
    """The door for those who ask what a tool may reach."""

    def __init__(
        self,
        door: Door,
        catalogue: Catalogue,
        grants: GrantBook,
        targets: Mapping[str, HttpTarget],
        tenants: Mapping[str, Tenant],
        clock: Callable[[], datetime],
    ) -> None:
        self._catalogue, self._grants, self._clock = catalogue, grants, clock
        self._targets, self._tenants = targets, tenants
        self.ExplainEgress = door.guard(f"/{SERVICE.full_name}/ExplainEgress", self._explain)

    async def _explain(
        self, request: egress_pb2.ExplainEgressRequest, caller: Caller
    ) -> egress_pb2.ExplainEgressResponse:
        asked = _read(request)
        version = self._catalogue.resolve(caller.tenant, request.tool, request.version)
        permits = self._find_permits(request, caller, version) if request.agent else None
        explainer = EgressExplainer(version.manifest, request.tool, self._targets)
        found = explainer.explain(asked, permits)
        held_back = explain_held_back(version.manifest, request.tool, caller.tenant, self._tenants)
        if found.is_allowed and held_back:
            found = Explanation(Check.TARGET, f"every call of the tool is refused: {held_back}", found.target)
        return egress_pb2.ExplainEgressResponse(
            allowed=found.is_allowed,
            why=found.why,
            check=found.check.value,
            target=found.target,
            rule=found.rule,
            grant_rule=found.grant_rule,
            grant_id=found.grant_id,
            opened=found.opened,
            injected=found.injected,
            injected_form=found.injected_form,
            dropped_headers=found.dropped,
        )

    def _find_permits(
        self, request: egress_pb2.ExplainEgressRequest, caller: Caller, version: ToolVersion
    ) -> list[Permit]:
        environment = request.environment or self._grants.default_environment
        if environment not in self._grants.environments:
            known = ", ".join(self._grants.environments)
            raise _invalid("environment", f"is none of the broker's: {known}")
        return list(
            find_permits(
                self._grants.of(caller.tenant).policies,
                self._clock(),
                agent=request.agent,
                method=request.tool,
                environment=environment,
                targets=version.manifest.method(request.tool).targets,
            )
        )


def _read(request: egress_pb2.ExplainEgressRequest) -> Request:
    """Read what is asked about.

    Raises:
        Refused: REQUEST_INVALID; no client could send it.
    """
    method = request.method or "GET"
    if not _METHOD.fullmatch(method):
        raise _invalid("method", "must be a method in capital letters, such as GET")
    headers = sorted(request.headers.items())
    for name, value in headers:
        if not _HEADER.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _invalid(f"headers.{name[:100]}", "is no header that can be sent")
    return Request(method, request.url, tuple((name.lower(), value) for name, value in headers))


def _invalid(field: str, problem: str) -> Refused:
    text = f"nothing was looked at: {field} {problem}"
    return Refused(Reason.REASON_REQUEST_INVALID, text, violations=[Violation(field, problem)])
