"""`toolcrib.v1.Grants`: grants live in files under version control and are applied as a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from broker.api.door import Door
from broker.api.grant_review import GrantReview
from broker.api.messages import page_size, slice_page, timestamp
from broker.catalogue import STABLE, Catalogue
from broker.errors import Refused
from broker.grant_book import GrantBook
from broker.model import Caller
from broker.outlast import outlast
from broker.policy.files import Change, diff_grants, digest_files
from broker.policy.grants import Question, list_trusted
from broker.store.protocol import Store
from broker.store.records import AuditEvent, BaseChanged, GrantFiles
from toolcrib.v1 import grants_pb2
from toolcrib.v1.reasons_pb2 import Reason
from tools.errors import ContractError, Violation

SERVICE = grants_pb2.DESCRIPTOR.services_by_name["Grants"]


class GrantsService:
    """The door for security teams."""

    def __init__(
        self,
        door: Door,
        catalogue: Catalogue,
        grants: GrantBook,
        store: Store,
        clock: Callable[[], datetime],
    ) -> None:
        self._catalogue = catalogue
        self._grants = grants
        self._store = store
        self._clock = clock
        base = f"/{SERVICE.full_name}/"
        self.PlanGrants = door.guard(base + "PlanGrants", self._plan)
        self.ApplyGrants = door.guard(base + "ApplyGrants", self._apply)
        self.ListGrants = door.guard(base + "ListGrants", self._list)
        self.ExplainGrants = door.guard(base + "ExplainGrants", self._explain)
        self.ListDestinations = door.guard(base + "ListDestinations", self._list_destinations)
        review = GrantReview(catalogue, grants, store, clock)
        self.ListAccess = door.guard(base + "ListAccess", review.list_access)
        self.ListUnusedGrants = door.guard(base + "ListUnusedGrants", review.list_unused)

    async def _plan(
        self, request: grants_pb2.PlanGrantsRequest, caller: Caller
    ) -> grants_pb2.PlanGrantsResponse:
        files = _read_files(request.files)
        await self._grants.compile(caller.tenant, files)
        base = await self._store.grant_files(caller.tenant)
        changes = diff_grants(dict(base.files), files)
        return grants_pb2.PlanGrantsResponse(changes=map(_change, changes), base_digest=base.digest)

    async def _apply(
        self, request: grants_pb2.ApplyGrantsRequest, caller: Caller
    ) -> grants_pb2.ApplyGrantsResponse:
        files = _read_files(request.files)
        await self._grants.compile(caller.tenant, files)
        base = await self._store.grant_files(caller.tenant)
        changes = diff_grants(dict(base.files), files)
        applied = GrantFiles(files, digest_files(files), self._clock(), caller.identity)
        event = AuditEvent(
            "grants.applied",
            caller.tenant,
            "",
            self._clock(),
            actor=caller.identity,
            details={
                "base": request.base_digest,
                "digest": applied.digest,
                "changes": [f"{change.kind} {change.id}" for change in changes],
            },
        )
        try:
            await self._store.apply_grants(caller.tenant, applied, request.base_digest, event)
        except BaseChanged as error:
            raise Refused(
                Reason.REASON_PLAN_STALE,
                "the grants changed since the plan was made; look at a new plan, then apply that",
            ) from error
        await outlast(self._grants.refresh(caller.tenant))
        return grants_pb2.ApplyGrantsResponse(changes=map(_change, changes), digest=applied.digest)

    async def _list(
        self, request: grants_pb2.ListGrantsRequest, caller: Caller
    ) -> grants_pb2.ListGrantsResponse:
        files = await self._store.grant_files(caller.tenant)
        grants = [
            grants_pb2.Grant(
                id=policy.id,
                policy=policy.text,
                effect=policy.effect,
                ask=bool(policy.terms.ask),
                file=policy.file,
                applied=timestamp(files.applied),
                applied_by=files.applied_by,
            )
            for policy in self._grants.of(caller.tenant).policies
        ]
        page, token = slice_page(grants, page_size(request.page_size, 100), request.page_token)
        return grants_pb2.ListGrantsResponse(grants=page, next_page_token=token, digest=files.digest)

    async def _explain(
        self, request: grants_pb2.ExplainGrantsRequest, caller: Caller
    ) -> grants_pb2.ExplainGrantsResponse:
        question = self._imagine(request, caller)
        found = self._grants.of(caller.tenant).explain(question, self._clock())
        return grants_pb2.ExplainGrantsResponse(
            decision=found.decision, grant_ids=found.grant_ids, errors=found.errors
        )

    async def _list_destinations(
        self, request: grants_pb2.ListDestinationsRequest, caller: Caller
    ) -> grants_pb2.ListDestinationsResponse:
        found = list_trusted(self._grants.of(caller.tenant), request.environment, request.value)
        listed = [
            grants_pb2.TrustedDestination(
                value=entry.value,
                match=entry.match,
                environments=sorted(entry.environments),
                note=entry.note,
                source=source,
            )
            for source, entry in found
        ]
        page, token = slice_page(listed, page_size(request.page_size, 100), request.page_token)
        return grants_pb2.ListDestinationsResponse(destinations=page, next_page_token=token)

    def _imagine(self, request: grants_pb2.ExplainGrantsRequest, caller: Caller) -> Question:
        """Build the question that a call of somebody else would put to the grants."""
        version = self._catalogue.resolve(caller.tenant, request.tool, STABLE)
        try:
            message = version.contracts[request.tool].parse_request_json(request.arguments_json or "{}")
        except ContractError as error:
            raise Refused(
                Reason.REASON_REQUEST_INVALID, "the arguments break the contract", violations=error.violations
            ) from error
        environment = request.environment or self._grants.default_environment
        question = Question.about(
            version, request.tool, message, agent=request.agent, environment=environment
        )
        return replace(question, subject=request.subject)


def _read_files(messages: Iterable[grants_pb2.GrantFile]) -> dict[str, str]:
    """Take the files by name.

    Raises:
        Refused: GRANTS_INVALID, a name comes twice.
    """
    files: dict[str, str] = {}
    for message in messages:
        if message.name in files:
            raise Refused(
                Reason.REASON_GRANTS_INVALID,
                f"{message.name} is there twice; nothing was applied",
                violations=[Violation(message.name, "is there twice; give each file its own name")],
            )
        files[message.name] = message.text
    return files


def _change(change: Change) -> grants_pb2.GrantChange:
    return grants_pb2.GrantChange(
        kind=change.kind,
        id=change.id,
        before=change.before,
        after=change.after,
    )
