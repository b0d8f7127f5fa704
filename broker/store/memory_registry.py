"""The part of the memory store that knows versions, grants, tenants' keys, brakes and the audit chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from broker.model import Brake
from broker.store.cipher import Contents
from broker.store.connection_text import without_digests
from broker.store.memory_part import MemoryPart
from broker.store.paging import clamp_page_size, version_position
from broker.store.records import AliasStep, AuditEvent, AuditRecord, GrantFiles, Page, StoreError, VersionRow
from broker.store.rules import (
    MAX_STEPS,
    check_base,
    check_same_digest,
    check_step,
    check_version,
    review,
)
from broker.workflow_records import Imprint


class MemoryRegistry(MemoryPart):
    """Versions, grants, tenants' keys, brakes and audit, as `Store` promises them."""

    # --- versions ----------------------------------------------------------------------------------------
    async def put_version(self, row: VersionRow, audit: AuditEvent) -> VersionRow:
        """Add a version."""
        await self._begin_write()
        name = row.tenant, row.bundle, row.version
        found = self.state.versions.get(name)
        if found is not None:
            check_same_digest(found, row)
            return self._with_aliases(found)
        self._append(audit)
        self.state.versions[name] = replace(row, aliases=())
        return self._with_aliases(row)

    async def get_version(self, tenant: str, bundle: str, version: str) -> VersionRow | None:
        """Read one version."""
        await self._begin_read()
        found = self.state.versions.get((tenant, bundle, version))
        return self._with_aliases(found) if found else None

    async def list_versions(
        self, tenant: str, *, bundle: str = "", page_size: int = 50, page_token: str = ""
    ) -> Page[VersionRow]:
        """List versions of a tenant, newest first."""
        binding = ("versions", tenant, bundle)
        before = self._tokens.read(binding, page_token) if page_token else None
        await self._begin_read()
        found = [
            self._with_aliases(row)
            for row in self.state.versions.values()
            if row.tenant == tenant
            and bundle in ("", row.bundle)
            and (before is None or version_position(row) < before)
        ]
        found.sort(key=version_position, reverse=True)
        return self._tokens.cut(binding, found, clamp_page_size(page_size), version_position)

    async def review_version(self, row: VersionRow, audit: AuditEvent) -> VersionRow:
        """Replace what a review says of a version."""
        await self._begin_write()
        found = self._version(row.tenant, row.bundle, row.version)
        reviewed = review(found, row)
        self._append(audit)
        self.state.versions[row.tenant, row.bundle, row.version] = reviewed
        return self._with_aliases(reviewed)

    async def move_alias(
        self, tenant: str, bundle: str, alias: str, version: str, audit: AuditEvent
    ) -> VersionRow:
        """Point an alias at a version."""
        await self._begin_write()
        found = self._version(tenant, bundle, version)
        self._append(audit)
        self.state.aliases[tenant, bundle, alias] = version
        steps = self.state.alias_steps.get((tenant, bundle, alias), ())
        if steps[:1] != (version,):
            self.state.alias_steps[tenant, bundle, alias] = (version, *steps)
        return self._with_aliases(found)

    async def alias_steps(self, tenant: str, bundle: str, alias: str) -> Sequence[str]:
        """Name the versions that an alias came by, newest first."""
        await self._begin_read()
        return self.state.alias_steps.get((tenant, bundle, alias), ())[:MAX_STEPS]

    async def step_back(self, step: AliasStep, audit: AuditEvent) -> VersionRow:
        """Point an alias at the version that it named before."""
        await self._begin_write()
        place = step.tenant, step.bundle, step.alias
        steps = self.state.alias_steps.get(place, ())
        check_step(steps, step)
        found = self._version(step.tenant, step.bundle, step.reached)
        self._append(audit)
        self.state.aliases[place], self.state.alias_steps[place] = step.reached, steps[1:]
        return self._with_aliases(found)

    def _version(self, tenant: str, bundle: str, version: str) -> VersionRow:
        return check_version(self.state.versions.get((tenant, bundle, version)), bundle, version)

    def _with_aliases(self, row: VersionRow) -> VersionRow:
        aliases = sorted(
            alias
            for (tenant, bundle, alias), version in self.state.aliases.items()
            if (tenant, bundle, version) == (row.tenant, row.bundle, row.version)
        )
        return replace(row, aliases=tuple(aliases))

    # --- grants ------------------------------------------------------------------------------------------
    async def grant_files(self, tenant: str) -> GrantFiles:
        """Read the grant files in force."""
        await self._begin_read()
        return self.state.grants.get(tenant, GrantFiles({}, ""))

    async def apply_grants(self, tenant: str, files: GrantFiles, base_digest: str, audit: AuditEvent) -> None:
        """Replace a tenant's grant files."""
        await self._begin_write()
        check_base(self.state.grants.get(tenant, GrantFiles({}, "")).digest, base_digest)
        self._append(audit)
        self.state.grants[tenant] = replace(files, files=dict(files.files))

    # --- audit -------------------------------------------------------------------------------------------
    async def append_audit(self, event: AuditEvent, imprint: Imprint | None = None) -> None:
        """Record a decision that changes nothing but what a workflow holds."""
        await self._begin_write()
        self._append(event)
        self._leave(imprint)

    async def audit_records(self, after_sequence: int = 0) -> AsyncIterator[AuditRecord]:
        """Iterate over the chain."""
        await self._begin_read()
        for record in self.state.audit[after_sequence:]:
            yield record

    async def tenants(self) -> Sequence[str]:
        """Tenants that have a version or grants."""
        await self._begin_read()
        return sorted({tenant for tenant, _, _ in self.state.versions} | set(self.state.grants))

    # --- tenants' keys -----------------------------------------------------------------------------------
    async def tenant_key(self, tenant: str) -> bytes | None:
        """Read a tenant's wrapped data key."""
        await self._begin_read()
        return self.state.tenant_keys.get(tenant)

    async def put_tenant_key(self, tenant: str, wrapped: bytes) -> bytes:
        """Keep a tenant's wrapped data key; the first one stays."""
        await self._begin_write()
        return self.state.tenant_keys.setdefault(tenant, wrapped)

    async def erase_tenant(self, tenant: str, audit: AuditEvent) -> None:
        """Forget a tenant's data key, and what its calls hold."""
        await self._begin_write()
        self._append(audit)
        self.state.tenant_keys.pop(tenant, None)
        for kept in list(self.state.calls.values()):
            if kept.call.tenant == tenant:
                call = replace(kept.call, message="", failure={})
                contents = Contents(
                    tool_log=None if kept.contents.tool_log else b"",
                    connections=without_digests(kept.contents.connections),
                )
                self.state.calls[call.call_id] = replace(kept, call=call, contents=contents)
        for workflow in [one for one in self.state.workflows.values() if one.tenant == tenant]:
            self.state.workflows[workflow.workflow_id] = replace(workflow, description="")
        for key in [one for one in self.state.trusted if one[0].tenant == tenant]:
            del self.state.trusted[key]
        self._sealing.forget(tenant)

    # --- brakes ------------------------------------------------------------------------------------------
    async def set_brake(self, brake: Brake, audit: AuditEvent, replaces: str = "") -> Brake:
        """Add a brake; one that is in force stays, unless it is to be replaced."""
        await self._begin_write()
        brakes = {name: one for name, one in self.state.brakes.items() if one.brake_id != replaces}
        name = brake.tenant, brake.kind, brake.value
        if name not in brakes and brake.brake_id in (one.brake_id for one in brakes.values()):
            raise StoreError(f"brake {brake.brake_id}: another one has this id")
        self._append(audit)
        self.state.brakes = brakes
        return brakes.setdefault(name, brake)

    async def lift_brake(self, brake_id: str, audit: AuditEvent) -> None:
        """Take a brake away."""
        await self._begin_write()
        kept = {name: brake for name, brake in self.state.brakes.items() if brake.brake_id != brake_id}
        if len(kept) < len(self.state.brakes):
            self._append(audit)
            self.state.brakes = kept

    async def brakes(self) -> Sequence[Brake]:
        """List the brakes in force."""
        await self._begin_read()
        return sorted(self.state.brakes.values(), key=lambda brake: (brake.set_at, brake.brake_id))
