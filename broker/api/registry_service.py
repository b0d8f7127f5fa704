"""`toolcrib.v1.Registry`: a bundle is registered, then reviewed by another person, then usable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from broker.api.door import Door
from broker.api.messages import bad_page, page_size, version_message
from broker.catalogue import STABLE, USABLE, Catalogue
from broker.errors import Refused
from broker.grant_book import GrantBook
from broker.model import Caller
from broker.outlast import outlast
from broker.stages.authenticate import name_of
from broker.store.protocol import Store
from broker.store.records import AliasElsewhere, AliasStep, AuditEvent, VersionExists, VersionRow
from broker.vetting import Vetting
from toolcrib.v1 import registry_pb2
from toolcrib.v1.reasons_pb2 import Reason
from tools.catalogue import ToolVersion, find_breaking_changes, load_version
from tools.errors import BundleInvalid, Violation

SERVICE = registry_pb2.DESCRIPTOR.services_by_name["Registry"]
ALIASES = (STABLE, "canary")


class RegistryService:
    """The door for tool authors and reviewers."""

    def __init__(
        self,
        door: Door,
        catalogue: Catalogue,
        grants: GrantBook,
        store: Store,
        vetting: Vetting,
        clock: Callable[[], datetime],
    ) -> None:
        self._catalogue = catalogue
        self._vetting = vetting
        self._grants = grants
        self._store = store
        self._clock = clock
        self._registering = asyncio.Lock()
        base = f"/{SERVICE.full_name}/"
        self.RegisterTool = door.guard(base + "RegisterTool", self._register)
        self.ReviewVersion = door.guard(base + "ReviewVersion", self._review)
        self.ListVersions = door.guard(base + "ListVersions", self._list)
        self.GetVersion = door.guard(base + "GetVersion", self._get)
        self.MoveAlias = door.guard(base + "MoveAlias", self._move_alias)

    async def _register(
        self, request: registry_pb2.RegisterToolRequest, caller: Caller
    ) -> registry_pb2.RegisterToolResponse:
        try:
            version = await asyncio.to_thread(
                load_version, request.descriptor_set, request.manifest_yaml, request.image_id
            )
        except BundleInvalid as error:
            raise _invalid(error.violations) from error
        unfit = await self._vetting.find_violations(caller.tenant, version)
        if unfit:
            raise _invalid(tuple(unfit))
        async with self._registering:  # two that take the same names do not both find them free
            stored = await self._add(request, caller, version)
        return registry_pb2.RegisterToolResponse(version=self._message(stored))

    async def _add(
        self, request: registry_pb2.RegisterToolRequest, caller: Caller, version: ToolVersion
    ) -> VersionRow:
        self._check_names(caller.tenant, version)
        await asyncio.to_thread(self._check_breaking, caller.tenant, version)
        row = VersionRow(
            tenant=caller.tenant,
            bundle=version.bundle,
            version=version.version,
            digest=version.digest,
            state="REGISTERED",
            descriptor_set=request.descriptor_set,
            manifest_yaml=request.manifest_yaml,
            image_id=request.image_id,
            registered_by=caller.identity,
            registered=self._clock(),
        )
        try:
            stored = await self._store.put_version(row, self._event("version.registered", row, caller))
        except VersionExists as error:
            raise Refused(
                Reason.REASON_VERSION_EXISTS,
                f"version {row.version} of {row.bundle} is registered with other content; versions never "
                "change: raise `version` in tool.yaml",
            ) from error
        await outlast(self._catalogue.refresh(caller.tenant))
        return stored

    async def _review(
        self, request: registry_pb2.ReviewVersionRequest, caller: Caller
    ) -> registry_pb2.ReviewVersionResponse:
        row = await self._find(caller.tenant, request.bundle, request.version)
        if name_of(row.registered_by) == caller.name:
            raise Refused(
                Reason.REASON_SELF_REVIEW, "who registered a version cannot review it; ask another person"
            )
        if row.digest != request.digest:
            raise _invalid(
                (Violation("digest", f"is not the version's, which is {row.digest}; read it again"),)
            )
        reviewed = replace(
            row,
            state="USABLE" if request.accept else "REJECTED",
            reviewed_by=caller.identity,
            reviewed=self._clock(),
            comment=request.comment[:1000],
        )
        stored = await self._store.review_version(reviewed, self._event("version.reviewed", reviewed, caller))
        await self._refresh(caller.tenant)
        return registry_pb2.ReviewVersionResponse(version=self._message(stored))

    async def _move_alias(
        self, request: registry_pb2.MoveAliasRequest, caller: Caller
    ) -> registry_pb2.MoveAliasResponse:
        if request.alias not in ALIASES:
            raise _invalid((Violation("alias", f"must be one of {', '.join(ALIASES)}"),))
        steps = await self._store.alias_steps(caller.tenant, request.bundle, request.alias)
        named = _step_back(request, steps) if request.back else request.version
        row = await self._find(caller.tenant, request.bundle, named)
        if row.state != "USABLE":
            raise Refused(
                Reason.REASON_TOOL_NOT_USABLE,
                f"version {row.version} of {row.bundle} is {row.state}; only a reviewed one gets an alias",
            )
        left = steps[0] if steps else ""
        event = self._event("alias.moved", row, caller, alias=request.alias, left=left, back=request.back)
        if request.back:
            step = AliasStep(caller.tenant, row.bundle, request.alias, left, named)
            moved = await self._go_back(step, event)
        else:
            moved = await self._store.move_alias(caller.tenant, row.bundle, request.alias, named, event)
        await self._refresh(caller.tenant)
        return registry_pb2.MoveAliasResponse(version=self._message(moved), left=left)

    async def _go_back(self, step: AliasStep, event: AuditEvent) -> VersionRow:
        try:
            return await self._store.step_back(step, event)
        except AliasElsewhere as error:
            raise _elsewhere(step.alias, step.left) from error

    async def _list(
        self, request: registry_pb2.ListVersionsRequest, caller: Caller
    ) -> registry_pb2.ListVersionsResponse:
        try:
            page = await self._store.list_versions(
                caller.tenant,
                bundle=request.bundle,
                page_size=page_size(request.page_size, 50),
                page_token=request.page_token,
            )
        except ValueError as error:
            raise bad_page(str(error)) from error
        versions = [self._message(row) for row in page.items]
        return registry_pb2.ListVersionsResponse(versions=versions, next_page_token=page.next_token)

    async def _get(
        self, request: registry_pb2.GetVersionRequest, caller: Caller
    ) -> registry_pb2.GetVersionResponse:
        """Give what was registered; a version, or the one that an alias names."""
        named = request.version
        for row, _ in self._catalogue.registered(caller.tenant):
            if row.bundle == request.bundle and request.version in row.aliases:
                named = row.version
        row = await self._find(caller.tenant, request.bundle, named)
        return registry_pb2.GetVersionResponse(
            version=self._message(row), descriptor_set=row.descriptor_set, manifest_yaml=row.manifest_yaml
        )

    async def _find(self, tenant: str, bundle: str, version: str) -> VersionRow:
        row = await self._store.get_version(tenant, bundle, version)
        if row is None:
            raise Refused(
                Reason.REASON_TOOL_UNKNOWN,
                f'bundle "{bundle}" has no version or alias "{version}"; ListVersions names them',
            )
        return row

    def _check_names(self, tenant: str, version: ToolVersion) -> None:
        taken = [
            Violation(method, f'belongs to bundle "{row.bundle}"; give the service another package')
            for row, methods in self._catalogue.registered(tenant)
            if row.bundle != version.bundle
            for method in version.contracts
            if method in methods
        ]
        if taken:
            raise _invalid(tuple(taken))

    def _check_breaking(self, tenant: str, version: ToolVersion) -> None:
        """Compare with the version that callers use now; a breaking change is a new package."""
        for row, methods in self._catalogue.registered(tenant):
            is_in_use = STABLE in row.aliases and row.state == USABLE
            if row.bundle != version.bundle or not is_in_use or not methods:
                continue
            broken = find_breaking_changes(row.descriptor_set, version.descriptor_set)
            if broken:
                raise Refused(
                    Reason.REASON_BREAKING_CHANGE,
                    f"callers of version {row.version} would break; put the change into a new "
                    "package (shop.v2)",
                    violations=broken,
                )

    async def _refresh(self, tenant: str) -> None:
        """Make what was just decided true here, also when who decided it hung up."""
        await outlast(self._refresh_both(tenant))

    async def _refresh_both(self, tenant: str) -> None:
        await self._catalogue.refresh(tenant)
        await self._grants.refresh(tenant)

    def _message(self, row: VersionRow) -> registry_pb2.Version:
        entry = self._catalogue.find(row.tenant, row.bundle, row.version)
        return version_message(row, list(entry.version.contracts) if entry else [])

    def _event(self, kind: str, row: VersionRow, caller: Caller, **details: object) -> AuditEvent:
        facts = {"bundle": row.bundle, "version": row.version, "digest": row.digest, "state": row.state}
        return AuditEvent(
            kind, caller.tenant, "", self._clock(), actor=caller.identity, details=facts | details
        )


def _step_back(request: registry_pb2.MoveAliasRequest, steps: Sequence[str]) -> str:
    """Name the version that an alias goes back to.

    Raises:
        Refused: It named no other before, or names another one than it should leave.
    """
    if request.version:
        raise _invalid((Violation("version", "goes not with `back`: leave one of them out"),))
    if steps[:1] != [request.leaves] and request.leaves:
        raise _elsewhere(request.alias, request.leaves)
    if len(steps) < 2:
        raise Refused(
            Reason.REASON_TOOL_UNKNOWN,
            f'alias "{request.alias}" of bundle "{request.bundle}" named no other version before: '
            "ListVersions names what it can be pointed at",
        )
    return steps[1]


def _elsewhere(alias: str, left: str) -> Refused:
    return Refused(
        Reason.REASON_PLAN_STALE,
        f"alias {alias} does not name {left} any more, nothing was changed; look at ListVersions again",
    )


def _invalid(violations: tuple[Violation, ...]) -> Refused:
    places = ", ".join(dict.fromkeys(violation.field for violation in violations))
    return Refused(
        Reason.REASON_BUNDLE_INVALID, f"nothing was registered or changed: {places}", violations=violations
    )
