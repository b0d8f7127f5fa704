"""`toolcrib.v1.Registry`: a bundle is registered, then reviewed by another person, then usable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from broker.api.door import Door
from broker.api.messages import bad_page, page_size, version_message
from broker.catalogue import STABLE, Catalogue
from broker.errors import Refused
from broker.grant_book import GrantBook
from broker.model import Caller
from broker.outlast import outlast
from broker.stages.authenticate import name_of
from broker.store.protocol import AuditEvent, Store, VersionExists, VersionRow
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
            registered_by=caller.spiffe_id,
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
            reviewed_by=caller.spiffe_id,
            reviewed=self._clock(),
            comment=request.comment[:1000],
        )
        stored = await self._store.review_version(reviewed, self._event("version.reviewed", reviewed, caller))
        await self._refresh(caller.tenant)
        return registry_pb2.ReviewVersionResponse(version=self._message(stored))

    async def _move_alias(
        self, request: registry_pb2.MoveAliasRequest, caller: Caller
    ) -> registry_pb2.MoveAliasResponse:
        row = await self._find(caller.tenant, request.bundle, request.version)
        if request.alias not in ALIASES:
            raise _invalid((Violation("alias", f"must be one of {', '.join(ALIASES)}"),))
        if row.state != "USABLE":
            raise Refused(
                Reason.REASON_TOOL_NOT_USABLE,
                f"version {row.version} of {row.bundle} is {row.state}; only a reviewed one gets an alias",
            )
        event = self._event("alias.moved", row, caller, alias=request.alias)
        moved = await self._store.move_alias(caller.tenant, row.bundle, request.alias, row.version, event)
        await self._refresh(caller.tenant)
        return registry_pb2.MoveAliasResponse(version=self._message(moved))

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

    async def _find(self, tenant: str, bundle: str, version: str) -> VersionRow:
        row = await self._store.get_version(tenant, bundle, version)
        if row is None:
            raise Refused(
                Reason.REASON_TOOL_UNKNOWN,
                f'bundle "{bundle}" has no version "{version}"; ListVersions names them',
            )
        return row

    def _check_names(self, tenant: str, version: ToolVersion) -> None:
        taken = [
            Violation(method, f'belongs to bundle "{entry.row.bundle}"; give the service another package')
            for entry in self._catalogue.entries(tenant)
            if entry.row.bundle != version.bundle
            for method in version.contracts
            if method in entry.version.contracts
        ]
        if taken:
            raise _invalid(tuple(taken))

    def _check_breaking(self, tenant: str, version: ToolVersion) -> None:
        """Compare with the version that callers use now; a breaking change is a new package."""
        for entry in self._catalogue.stable(tenant):
            if entry.row.bundle != version.bundle:
                continue
            broken = find_breaking_changes(entry.row.descriptor_set, version.descriptor_set)
            if broken:
                raise Refused(
                    Reason.REASON_BREAKING_CHANGE,
                    f"callers of version {entry.row.version} would break; put the change into a new "
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
            kind, caller.tenant, "", self._clock(), actor=caller.spiffe_id, details=facts | details
        )


def _invalid(violations: tuple[Violation, ...]) -> Refused:
    places = ", ".join(dict.fromkeys(violation.field for violation in violations))
    return Refused(
        Reason.REASON_BUNDLE_INVALID, f"nothing was registered or changed: {places}", violations=violations
    )
