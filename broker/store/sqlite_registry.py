"""The part of the SQLite store that knows versions, grants, tenants' keys, brakes and the audit chain."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence

from broker.model import Brake
from broker.store import registry_tables, workflow_table
from broker.store.paging import clamp_page_size, version_position
from broker.store.records import AliasStep, AuditEvent, AuditRecord, GrantFiles, Page, VersionRow
from broker.store.rules import check_base, check_same_digest, check_step, check_version, review
from broker.store.sqlite_part import SqlitePart
from broker.workflow_records import Imprint

AUDIT_BATCH = 500


class SqliteRegistry(SqlitePart):
    """Versions, grants, tenants' keys, brakes and audit, as `Store` promises them."""

    async def put_version(self, row: VersionRow, audit: AuditEvent) -> VersionRow:
        """Add a version."""

        def change(connection: sqlite3.Connection) -> VersionRow:
            found = registry_tables.find_version(connection, row.tenant, row.bundle, row.version)
            if found is not None:
                check_same_digest(found, row)
                return found
            registry_tables.insert_version(connection, row)
            self._audit(connection, audit)
            return _find(connection, row.tenant, row.bundle, row.version)

        return await self._database.write(change)

    async def get_version(self, tenant: str, bundle: str, version: str) -> VersionRow | None:
        """Read one version."""
        return await self._database.read(
            lambda connection: registry_tables.find_version(connection, tenant, bundle, version)
        )

    async def list_versions(
        self, tenant: str, *, bundle: str = "", page_size: int = 50, page_token: str = ""
    ) -> Page[VersionRow]:
        """List versions of a tenant, newest first."""
        binding = ("versions", tenant, bundle)
        before = self._tokens.read(binding, page_token) if page_token else registry_tables.NEWEST
        size = clamp_page_size(page_size)
        found = await self._database.read(
            lambda connection: registry_tables.select_versions(connection, tenant, bundle, before, size + 1)
        )
        return self._tokens.cut(binding, found, size, version_position)

    async def review_version(self, row: VersionRow, audit: AuditEvent) -> VersionRow:
        """Replace what a review says of a version."""

        def change(connection: sqlite3.Connection) -> VersionRow:
            reviewed = review(_find(connection, row.tenant, row.bundle, row.version), row)
            registry_tables.write_review(connection, reviewed)
            self._audit(connection, audit)
            return reviewed

        return await self._database.write(change)

    async def move_alias(
        self, tenant: str, bundle: str, alias: str, version: str, audit: AuditEvent
    ) -> VersionRow:
        """Point an alias at a version."""

        def change(connection: sqlite3.Connection) -> VersionRow:
            registry_tables.put_alias(connection, _find(connection, tenant, bundle, version), alias)
            self._audit(connection, audit)
            return _find(connection, tenant, bundle, version)

        return await self._database.write(change)

    async def alias_steps(self, tenant: str, bundle: str, alias: str) -> Sequence[str]:
        """Name the versions that an alias came by, newest first."""
        return await self._database.read(
            lambda connection: registry_tables.select_steps(connection, tenant, bundle, alias)
        )

    async def step_back(self, step: AliasStep, audit: AuditEvent) -> VersionRow:
        """Point an alias at the version that it named before."""

        def change(connection: sqlite3.Connection) -> VersionRow:
            check_step(registry_tables.select_steps(connection, step.tenant, step.bundle, step.alias), step)
            registry_tables.take_step(connection, step)
            self._audit(connection, audit)
            return _find(connection, step.tenant, step.bundle, step.reached)

        return await self._database.write(change)

    async def grant_files(self, tenant: str) -> GrantFiles:
        """Read the grant files in force."""
        return await self._database.read(lambda connection: registry_tables.find_grants(connection, tenant))

    async def apply_grants(self, tenant: str, files: GrantFiles, base_digest: str, audit: AuditEvent) -> None:
        """Replace a tenant's grant files."""

        def change(connection: sqlite3.Connection) -> None:
            check_base(registry_tables.find_grants(connection, tenant).digest, base_digest)
            registry_tables.put_grants(connection, tenant, files)
            self._audit(connection, audit)

        await self._database.write(change)

    async def append_audit(self, event: AuditEvent, imprint: Imprint | None = None) -> None:
        """Record a decision that changes nothing but what a workflow holds."""

        def change(connection: sqlite3.Connection) -> None:
            self._audit(connection, event)
            if imprint is not None:
                workflow_table.add_imprint(connection, imprint)

        await self._database.write(change)

    async def audit_records(self, after_sequence: int = 0) -> AsyncIterator[AuditRecord]:
        """Iterate over the chain, a batch at a time."""
        last = after_sequence
        while batch := await self._read_audit(last):
            for record in batch:
                yield record
            last = batch[-1].sequence

    async def _read_audit(self, after_sequence: int) -> Sequence[AuditRecord]:
        return await self._database.read(
            lambda connection: registry_tables.select_audit(connection, after_sequence, AUDIT_BATCH)
        )

    async def tenant_key(self, tenant: str) -> bytes | None:
        """Read a tenant's wrapped data key."""
        return await self._database.read(lambda connection: registry_tables.find_key(connection, tenant))

    async def put_tenant_key(self, tenant: str, wrapped: bytes) -> bytes:
        """Keep a tenant's wrapped data key; the first one stays."""
        return await self._database.write(
            lambda connection: registry_tables.put_key(connection, tenant, wrapped)
        )

    async def erase_tenant(self, tenant: str, audit: AuditEvent) -> None:
        """Forget a tenant's data key, and what its calls hold."""

        def change(connection: sqlite3.Connection) -> None:
            registry_tables.erase(connection, tenant)
            workflow_table.erase(connection, tenant)
            self._audit(connection, audit)

        await self._database.write(change)
        self._sealing.forget(tenant)

    async def tenants(self) -> Sequence[str]:
        """Tenants that have a version or grants."""
        return await self._database.read(registry_tables.select_tenants)

    async def set_brake(self, brake: Brake, audit: AuditEvent, replaces: str = "") -> Brake:
        """Add a brake; one that is in force stays, unless it is to be replaced."""

        def change(connection: sqlite3.Connection) -> Brake:
            registry_tables.remove_brake(connection, replaces)
            in_force = registry_tables.add_brake(connection, brake)
            self._audit(connection, audit)
            return in_force

        return await self._database.write(change)

    async def lift_brake(self, brake_id: str, audit: AuditEvent) -> None:
        """Take a brake away."""

        def change(connection: sqlite3.Connection) -> None:
            if registry_tables.remove_brake(connection, brake_id):
                self._audit(connection, audit)

        await self._database.write(change)

    async def brakes(self) -> Sequence[Brake]:
        """List the brakes in force."""
        return await self._database.read(registry_tables.select_brakes)

    def _audit(self, connection: sqlite3.Connection, event: AuditEvent) -> None:
        registry_tables.append_audit(connection, event, self._options)


def _find(connection: sqlite3.Connection, tenant: str, bundle: str, version: str) -> VersionRow:
    return check_version(registry_tables.find_version(connection, tenant, bundle, version), bundle, version)
