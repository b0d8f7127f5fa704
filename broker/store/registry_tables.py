"""Versions, aliases, grants, brakes and the audit chain in the database: plain functions on a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from broker.audit import START, Anchor, seal
from broker.model import Brake
from broker.store.connection_text import without_digests
from broker.store.moments import to_micros_or_none
from broker.store.options import StoreOptions
from broker.store.paging import Position
from broker.store.records import AliasStep, AuditEvent, AuditRecord, GrantFiles, VersionRow
from broker.store.rows import (
    read_audit_record,
    read_brake,
    read_grants,
    read_version,
    write_brake,
    write_version,
)
from broker.store.rules import MAX_STEPS

_INSERT_VERSION = """
INSERT INTO versions VALUES (:tenant, :bundle, :version, :digest, :state, :descriptor_set, :manifest_yaml,
  :image_id, :registered_by, :registered, :reviewed_by, :reviewed, :comment)
"""
_REVIEW = """
UPDATE versions SET state = :state, reviewed_by = :reviewed_by, reviewed = :reviewed, comment = :comment
WHERE tenant = :tenant AND bundle = :bundle AND version = :version
"""
_LIST_VERSIONS = """
SELECT * FROM versions
WHERE tenant = ?1 AND (?2 = '' OR bundle = ?2) AND (registered, bundle, version) < (?3, ?4, ?5)
ORDER BY registered DESC, bundle DESC, version DESC LIMIT ?6
"""
_MOVE_ALIAS = """
INSERT INTO aliases VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET version = excluded.version
"""
_SELECT_STEPS = """
SELECT version FROM alias_steps WHERE tenant = ? AND bundle = ? AND alias = ? ORDER BY step DESC LIMIT ?
"""
_ADD_STEP = """
INSERT INTO alias_steps
SELECT ?1, ?2, ?3, coalesce(max(step), 0) + 1, ?4 FROM alias_steps
WHERE tenant = ?1 AND bundle = ?2 AND alias = ?3
"""
_TAKE_STEP = """
DELETE FROM alias_steps WHERE tenant = ?1 AND bundle = ?2 AND alias = ?3 AND step =
  (SELECT max(step) FROM alias_steps WHERE tenant = ?1 AND bundle = ?2 AND alias = ?3)
"""
_PUT_GRANTS = """
INSERT INTO grants VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE
SET digest = excluded.digest, applied = excluded.applied, applied_by = excluded.applied_by
"""
_ADD_BRAKE = """
INSERT INTO brakes (tenant, kind, value, brake_id, reason, set_by, set_at)
VALUES (:tenant, :kind, :value, :brake_id, :reason, :set_by, :set_at)
ON CONFLICT (tenant, kind, value) DO NOTHING
"""
_ERASE = """
UPDATE calls SET request = NULL, result = NULL, message = '', failure = '{}',
  tool_log = CASE tool_log WHEN x'' THEN x'' END
WHERE tenant = ?
"""

_WITH_DIGESTS = """
SELECT environment, call_id, connections FROM calls
WHERE tenant = ? AND instr(connections, '_sha256"') > 0
"""
_SET_CONNECTIONS = """
UPDATE calls SET connections = ? WHERE tenant = ? AND environment = ? AND call_id = ?
"""

# Later than every version: where a list begins.
NEWEST: Position = ((1 << 63) - 1, "", "")


def find_version(connection: sqlite3.Connection, tenant: str, bundle: str, version: str) -> VersionRow | None:
    """Read one version."""
    row = connection.execute(
        "SELECT * FROM versions WHERE tenant = ? AND bundle = ? AND version = ?", (tenant, bundle, version)
    ).fetchone()
    return _with_aliases(connection, row) if row else None


def select_versions(
    connection: sqlite3.Connection, tenant: str, bundle: str, before: Position, size: int
) -> Sequence[VersionRow]:
    """Read the versions before a position, newest first."""
    rows = connection.execute(_LIST_VERSIONS, (tenant, bundle, *before, size)).fetchall()
    return [_with_aliases(connection, row) for row in rows]


def insert_version(connection: sqlite3.Connection, row: VersionRow) -> None:
    """Add a version."""
    connection.execute(_INSERT_VERSION, write_version(row))


def write_review(connection: sqlite3.Connection, row: VersionRow) -> None:
    """Replace what a review says of a version."""
    connection.execute(_REVIEW, write_version(row))


def put_alias(connection: sqlite3.Connection, row: VersionRow, alias: str) -> None:
    """Point an alias at a version, as its next step."""
    connection.execute(_MOVE_ALIAS, (row.tenant, row.bundle, alias, row.version))
    if select_steps(connection, row.tenant, row.bundle, alias)[:1] != [row.version]:
        connection.execute(_ADD_STEP, (row.tenant, row.bundle, alias, row.version))


def select_steps(connection: sqlite3.Connection, tenant: str, bundle: str, alias: str) -> list[str]:
    """Read the versions that an alias came by, newest first."""
    rows = connection.execute(_SELECT_STEPS, (tenant, bundle, alias, MAX_STEPS))
    return [row["version"] for row in rows]


def take_step(connection: sqlite3.Connection, step: AliasStep) -> None:
    """Point an alias at the version of its step before; the newest one is forgotten."""
    place = (step.tenant, step.bundle, step.alias)
    connection.execute(_TAKE_STEP, place)
    connection.execute(_MOVE_ALIAS, (*place, step.reached))


def find_grants(connection: sqlite3.Connection, tenant: str) -> GrantFiles:
    """Read the grant files in force; none for an unknown tenant."""
    row = connection.execute("SELECT * FROM grants WHERE tenant = ?", (tenant,)).fetchone()
    if row is None:
        return GrantFiles({}, "")
    files = connection.execute("SELECT name, text FROM grant_files WHERE tenant = ? ORDER BY name", (tenant,))
    return read_grants(row, {file["name"]: file["text"] for file in files})


def put_grants(connection: sqlite3.Connection, tenant: str, grants: GrantFiles) -> None:
    """Replace a tenant's grant files."""
    connection.execute(
        _PUT_GRANTS, (tenant, grants.digest, to_micros_or_none(grants.applied), grants.applied_by)
    )
    connection.execute("DELETE FROM grant_files WHERE tenant = ?", (tenant,))
    connection.executemany(
        "INSERT INTO grant_files VALUES (?, ?, ?)",
        [(tenant, name, text) for name, text in grants.files.items()],
    )


def select_tenants(connection: sqlite3.Connection) -> Sequence[str]:
    """Name the tenants that have a version or grants."""
    rows = connection.execute("SELECT tenant FROM versions UNION SELECT tenant FROM grants ORDER BY tenant")
    return [row["tenant"] for row in rows]


def find_key(connection: sqlite3.Connection, tenant: str) -> bytes | None:
    """Read a tenant's wrapped data key."""
    row = connection.execute("SELECT wrapped FROM tenant_keys WHERE tenant = ?", (tenant,)).fetchone()
    return row["wrapped"] if row else None


def put_key(connection: sqlite3.Connection, tenant: str, wrapped: bytes) -> bytes:
    """Keep a wrapped data key where there is none, and return the one that is kept."""
    connection.execute("INSERT INTO tenant_keys VALUES (?, ?) ON CONFLICT DO NOTHING", (tenant, wrapped))
    kept = find_key(connection, tenant)
    assert kept is not None, "a key was just put there"
    return kept


def erase(connection: sqlite3.Connection, tenant: str) -> None:
    """Remove a tenant's data key, and what its calls hold, sealed or clear."""
    connection.execute("DELETE FROM tenant_keys WHERE tenant = ?", (tenant,))
    connection.execute(_ERASE, (tenant,))
    for row in connection.execute(_WITH_DIGESTS, (tenant,)).fetchall():
        text = without_digests(row["connections"])
        connection.execute(_SET_CONNECTIONS, (text, tenant, row["environment"], row["call_id"]))
    connection.execute("DELETE FROM artefact_parts WHERE tenant = ?", (tenant,))
    connection.execute("DELETE FROM artefacts WHERE tenant = ?", (tenant,))


def add_brake(connection: sqlite3.Connection, brake: Brake) -> Brake:
    """Add a brake where none of its kind, tenant and value is in force, and return the one that is."""
    connection.execute(_ADD_BRAKE, write_brake(brake))
    row = connection.execute(
        "SELECT * FROM brakes WHERE tenant = ? AND kind = ? AND value = ?",
        (brake.tenant, brake.kind.value, brake.value),
    ).fetchone()
    return read_brake(row)


def remove_brake(connection: sqlite3.Connection, brake_id: str) -> bool:
    """Take a brake away, and tell whether it was there."""
    return connection.execute("DELETE FROM brakes WHERE brake_id = ?", (brake_id,)).rowcount > 0


def select_brakes(connection: sqlite3.Connection) -> Sequence[Brake]:
    """Read the brakes in force, oldest first."""
    return [read_brake(row) for row in connection.execute("SELECT * FROM brakes ORDER BY set_at, brake_id")]


def append_audit(connection: sqlite3.Connection, event: AuditEvent, options: StoreOptions) -> None:
    """Chain one record to the newest one."""
    row = connection.execute("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1").fetchone()
    head = Anchor(row["sequence"], row["hash"]) if row else START
    sealed = seal(event, head, options.audit_key, options.key_id)
    connection.execute(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)",
        (sealed.sequence, sealed.schema_version, sealed.key_id, sealed.payload, sealed.previous, sealed.hash),
    )


def select_audit(connection: sqlite3.Connection, after_sequence: int, size: int) -> Sequence[AuditRecord]:
    """Read a part of the chain."""
    rows = connection.execute(
        "SELECT * FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?", (after_sequence, size)
    )
    return [read_audit_record(row) for row in rows]


def _with_aliases(connection: sqlite3.Connection, row: sqlite3.Row) -> VersionRow:
    aliases = connection.execute(
        "SELECT alias FROM aliases WHERE tenant = ? AND bundle = ? AND version = ? ORDER BY alias",
        (row["tenant"], row["bundle"], row["version"]),
    )
    return read_version(row, [alias["alias"] for alias in aliases])
