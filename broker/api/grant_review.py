"""What a security team asks about grants: who may do what, and what nobody uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from broker.api.messages import timestamp
from broker.catalogue import Catalogue
from broker.errors import Refused
from broker.grant_book import GrantBook
from broker.model import Caller
from broker.policy.access import (
    EVERY,
    Access,
    Unused,
    describe_limit,
    list_access,
    list_unused,
    select_agent,
    select_tool,
)
from broker.policy.history import GrantHistory
from broker.store.protocol import Store
from toolcrib.v1 import grants_pb2
from toolcrib.v1.reasons_pb2 import Reason
from tools.catalogue import ToolVersion
from tools.errors import Violation
from tools.http_rules import HttpRule

MAX_DAYS = 3650
Egress = tuple[tuple[str, HttpRule], ...]


class GrantReview:
    """Answers ListAccess and ListUnusedGrants."""

    def __init__(
        self, catalogue: Catalogue, grants: GrantBook, store: Store, clock: Callable[[], datetime]
    ) -> None:
        self._catalogue, self._grants, self._store, self._clock = catalogue, grants, store, clock
        self._history = GrantHistory(store)

    async def list_access(
        self, request: grants_pb2.ListAccessRequest, caller: Caller
    ) -> grants_pb2.ListAccessResponse:
        """Say what an agent may do, or who may call a tool.

        Raises:
            Refused: REQUEST_INVALID, not exactly one of both; TOOL_UNKNOWN; POLICY_FAILED.
        """
        if bool(request.agent) == bool(request.tool):
            raise _invalid("name an agent or a tool, and not both", "agent", "tool")
        tenant = caller.tenant
        if request.tool and request.tool not in self._methods(tenant):
            raise Refused(
                Reason.REASON_TOOL_UNKNOWN,
                f'the tenant has no usable tool "{request.tool}"; ListTools names them',
            )
        uses = await self._store.grant_uses(tenant)
        policies = self._grants.of(tenant).policies
        rows = await asyncio.to_thread(list_access, policies, uses, self._clock())
        rows = select_agent(rows, request.agent) if request.agent else select_tool(rows, request.tool)
        return grants_pb2.ListAccessResponse(access=[self._access_message(tenant, row) for row in rows])

    async def list_unused(
        self, request: grants_pb2.ListUnusedGrantsRequest, caller: Caller
    ) -> grants_pb2.ListUnusedGrantsResponse:
        """List grants that are at least some days old and allowed no call in that time.

        Raises:
            Refused: REQUEST_INVALID, the number of days; POLICY_FAILED.
        """
        if not 1 <= request.days <= MAX_DAYS:
            raise _invalid(f"days must be 1 to {MAX_DAYS}", "days")
        policies = self._grants.of(caller.tenant).policies
        uses = await self._store.grant_uses(caller.tenant)
        whole = (await self._store.grant_files(caller.tenant)).applied
        changed = await self._history.applied(caller.tenant)
        applied = {policy.id: changed.get(policy.id, whole) for policy in policies}
        since = self._clock() - timedelta(days=request.days)
        rows = await asyncio.to_thread(list_unused, policies, uses, applied, since)
        return grants_pb2.ListUnusedGrantsResponse(grants=map(_unused_message, rows))

    def _methods(self, tenant: str) -> set[str]:
        return {contract.method for contract in self._catalogue.contracts(tenant)}

    def _access_message(self, tenant: str, row: Access) -> grants_pb2.GrantedAccess:
        terms = row.policy.terms
        message = grants_pb2.GrantedAccess(
            decision=row.decision,
            agent=row.agent,
            tool=row.tool,
            grant_id=row.policy.id,
            file=row.policy.file,
            environments=sorted(row.policy.environments or ()),
            condition=row.policy.conditions,
            limits=map(describe_limit, terms.limits),
            expires=timestamp(terms.expires),
            last_used=timestamp(row.use.last),
            uses=row.use.calls,
        )
        version = None if row.tool == EVERY else self._stable(tenant, row.tool)
        if version is not None:
            _add_runtime(message, version, terms.egress)
        return message

    def _stable(self, tenant: str, method: str) -> ToolVersion | None:
        for entry in self._catalogue.stable(tenant):
            if method in entry.version.contracts:
                return entry.version
        return None


def _add_runtime(message: grants_pb2.GrantedAccess, version: ToolVersion, egress: Egress | None) -> None:
    """Say what a call gets; a forbid gives nothing."""
    message.effect = version.contracts[message.tool].effect.value
    if message.decision == "forbid":
        return
    runtime = version.manifest.method(message.tool)
    message.targets.extend(runtime.targets)
    message.egress.extend(f"{target} {rule.text}" for target, rule in egress or ())
    for name in runtime.credentials:
        wanted = version.manifest.credentials[name]
        message.credentials.add(credential=name, engine=wanted.engine, role=wanted.role)


def _unused_message(row: Unused) -> grants_pb2.UnusedGrant:
    return grants_pb2.UnusedGrant(
        grant_id=row.policy.id,
        file=row.policy.file,
        applied=timestamp(row.applied),
        last_used=timestamp(row.use.last),
        uses=row.use.calls,
    )


def _invalid(problem: str, *fields: str) -> Refused:
    violations = [Violation(field, problem) for field in fields]
    return Refused(Reason.REASON_REQUEST_INVALID, f"nothing was listed: {problem}", violations=violations)
