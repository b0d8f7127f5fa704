"""Calls, keys, charges and leases in the database: plain functions on a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from broker.model import CallRecord, CallState, Charge, GrantUse, LeaseRecord
from broker.store.cipher import KeptArtefact, KeptCall
from broker.store.moments import from_micros, to_micros
from broker.store.paging import Position
from broker.store.records import AuditEvent, ClaimScope
from broker.store.rows import (
    read_call,
    read_key,
    read_lease,
    read_use,
    write_call,
    write_lease,
    write_sandboxes,
)
from broker.store.rules import KeyRow, make_end_event

_INSERT = """
INSERT INTO calls (tenant, environment, call_id, agent, subject, method, tool_version, effect, key,
  fingerprint, attempt, epoch, state, started, ended, reason, message, failure, grant_id, request, result,
  labels, stages, sandboxes, tool_log, marks, removed, workflow, connections)
VALUES (:tenant, :environment, :call_id, :agent, :subject, :method, :tool_version, :effect, :key,
  :fingerprint, :attempt, :epoch, :state, :started, :ended, :reason, :message, :failure, :grant_id, :request,
  :result, :labels, :stages, :sandboxes, :tool_log, :marks, :removed, :workflow,
  :connections)
"""
_REPLACE = """
UPDATE calls SET subject = :subject, tool_version = :tool_version, effect = :effect, state = :state,
  attempt = :attempt, started = :started, ended = :ended, reason = :reason, message = :message,
  failure = :failure, grant_id = :grant_id, request = :request, result = :result, labels = :labels,
  stages = :stages, sandboxes = :sandboxes, tool_log = :tool_log, marks = :marks,
  removed = :removed, connections = :connections
WHERE tenant = :tenant AND environment = :environment AND call_id = :call_id
"""
_END_BARE = """
UPDATE calls SET state = :state, ended = :ended, reason = :reason, message = :message, failure = :failure,
  result = :result, labels = :labels, stages = :stages, sandboxes = :sandboxes, tool_log = :tool_log,
  marks = :marks, removed = :removed, connections = :connections
WHERE tenant = :tenant AND environment = :environment AND call_id = :call_id AND epoch = :own_epoch
  AND key = '' AND state = 'DISPATCHED' AND sandboxes = '[]' AND marks = '[]'
"""
_LIST = """
SELECT * FROM calls
WHERE tenant = :tenant AND (started, call_id) < (:started, :call_id)
  AND (:agent = '' OR agent = :agent) AND (:method = '' OR method = :method)
  AND (:state = '' OR state = :state)
ORDER BY started DESC, call_id DESC LIMIT :size
"""
_KEY = """
SELECT * FROM claims WHERE tenant = ? AND environment = ? AND agent = ? AND method = ? AND key = ?
"""
_TAKE_KEY = """
INSERT INTO claims VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?)
ON CONFLICT DO UPDATE SET call_id = excluded.call_id, attempt = excluded.attempt,
  claimed = excluded.claimed, free = 0, epoch = excluded.epoch
"""
_FREE_KEY = """
UPDATE claims SET free = 1, attempt = ?, epoch = ?
WHERE tenant = ? AND environment = ? AND agent = ? AND method = ? AND key = ?
"""
_ADD_LEASE = """
INSERT INTO leases (tenant, environment, call_id, position, lease_id, accessor, credential, username, minted,
  confirmed_dead, engine, role, expires)
VALUES (:tenant, :environment, :call_id, :position, :lease_id, :accessor, :credential, :username, :minted,
  :confirmed_dead, :engine, :role, :expires)
ON CONFLICT DO NOTHING
"""
_END_LEASE = """
UPDATE leases SET confirmed_dead = ? WHERE lease_id = ? AND confirmed_dead IS NULL RETURNING *
"""
# Those that owe a lease are few; `leases_owed` names them.
_OWING = """
SELECT * FROM calls WHERE call_id IN (
  SELECT call_id FROM leases WHERE confirmed_dead IS NULL AND (?1 = '' OR tenant = ?1))
"""
_COUNT_USE = """
INSERT INTO grant_uses VALUES (?, ?, ?, ?, ?, 1, ?)
ON CONFLICT DO UPDATE SET calls = calls + 1, last = max(last, excluded.last)
"""
_USES = "SELECT * FROM grant_uses WHERE tenant = ?"

_ADD_ARTEFACT = "INSERT INTO artefacts VALUES (?, ?, ?, ?, ?)"
_ADD_PART = "INSERT INTO artefact_parts VALUES (?, ?, ?, ?, ?, ?)"
_HEADS = "SELECT head FROM artefacts WHERE tenant = ? AND environment = ? AND call_id = ? ORDER BY position"
_PART = """
SELECT content FROM artefact_parts
WHERE tenant = ? AND environment = ? AND call_id = ? AND position = ? AND part = ?
"""

# Later than every call: where a list begins.
NEWEST: Position = ((1 << 63) - 1, "")


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls of a tenant a list shows; what is empty is not looked at."""

    tenant: str
    agent: str
    method: str
    state: str

    @property
    def binding(self) -> Sequence[str]:
        """What a page token of this list is bound to."""
        return "calls", self.tenant, self.agent, self.method, self.state


def find_call(connection: sqlite3.Connection, call_id: str) -> KeptCall | None:
    """Read one call, of whatever tenant."""
    row = connection.execute("SELECT * FROM calls WHERE call_id = ?", (call_id,)).fetchone()
    return _with_leases(connection, [row])[0] if row else None


def find_whole_call(connection: sqlite3.Connection, tenant: str, call_id: str) -> KeptCall | None:
    """Read one call of a tenant, with the heads of its artefacts."""
    found = find_call(connection, call_id)
    if found is None or found.call.tenant != tenant:
        return None
    heads = connection.execute(_HEADS, _call_values(found.call))
    artefacts = tuple(KeptArtefact(row["head"]) for row in heads)
    return replace(found, contents=replace(found.contents, artefacts=artefacts))


def find_part(
    connection: sqlite3.Connection, tenant: str, call_id: str, position: int, part: int
) -> tuple[CallRecord, bytes] | None:
    """Read a part of an artefact, with the call of the tenant that gave it."""
    found = find_call(connection, call_id)
    if found is None or found.call.tenant != tenant:
        return None
    row = connection.execute(_PART, (*_call_values(found.call), position, part)).fetchone()
    return (found.call, row["content"]) if row else None


def add_artefacts(connection: sqlite3.Connection, kept: KeptCall) -> None:
    """Add the files that a call gave back; it ends only once."""
    values = _call_values(kept.call)
    for position, artefact in enumerate(kept.contents.artefacts):
        connection.execute(_ADD_ARTEFACT, (*values, position, artefact.head))
        parts = [(*values, position, number, part) for number, part in enumerate(artefact.parts)]
        connection.executemany(_ADD_PART, parts)


def _call_values(call: CallRecord) -> tuple[str, str, str]:
    return call.tenant, call.environment, call.call_id


def find_call_state(connection: sqlite3.Connection, call_id: str) -> CallState | None:
    """Read a call's state."""
    row = connection.execute("SELECT state FROM calls WHERE call_id = ?", (call_id,)).fetchone()
    return CallState(row["state"]) if row else None


def select_calls(
    connection: sqlite3.Connection, wanted: CallFilter, before: Position, size: int
) -> Sequence[KeptCall]:
    """Read the calls before a position, newest first."""
    values = {
        "tenant": wanted.tenant,
        "agent": wanted.agent,
        "method": wanted.method,
        "state": wanted.state,
        "started": before[0],
        "call_id": before[1],
        "size": size,
    }
    return _with_leases(connection, connection.execute(_LIST, values).fetchall())


def select_running(connection: sqlite3.Connection, before_epoch: int) -> Sequence[KeptCall]:
    """Read the running calls of earlier epochs."""
    rows = connection.execute(
        "SELECT * FROM calls WHERE state IN ('RESERVED', 'DISPATCHED') AND epoch < ? ORDER BY started",
        (before_epoch,),
    )
    return _with_leases(connection, rows.fetchall())


def select_in_doubt(connection: sqlite3.Connection, size: int) -> Sequence[KeptCall]:
    """Read the oldest calls in doubt."""
    rows = connection.execute(
        "SELECT * FROM calls WHERE state = 'IN_DOUBT' ORDER BY started, call_id LIMIT ?", (size,)
    )
    return _with_leases(connection, rows.fetchall())


def insert_call(connection: sqlite3.Connection, kept: KeptCall, epoch: int) -> None:
    """Add a call of an epoch, without leases."""
    connection.execute(_INSERT, write_call(kept) | {"epoch": epoch})


def replace_call(connection: sqlite3.Connection, kept: KeptCall) -> None:
    """Replace a call that is there, and add the leases that are not."""
    connection.execute(_REPLACE, write_call(kept))
    add_leases(connection, kept.call)


def end_bare_call(connection: sqlite3.Connection, kept: KeptCall, epoch: int) -> bool:
    """End a dispatched call of an epoch of which nothing but the reservation is on record: no key, no lease.

    Returns:
        False where there is no such call, or more on record; then nothing was changed.
    """
    is_done = connection.execute(_END_BARE, write_call(kept) | {"own_epoch": epoch}).rowcount == 1
    if is_done:
        add_artefacts(connection, kept)
    return is_done


def dispatch_call(connection: sqlite3.Connection, call: CallRecord) -> None:
    """Write that a call is about to run, with the leases and containers that it has."""
    connection.execute(
        "UPDATE calls SET state = ?, sandboxes = ? WHERE tenant = ? AND environment = ? AND call_id = ?",
        (call.state.value, write_sandboxes(call.sandboxes), call.tenant, call.environment, call.call_id),
    )
    add_leases(connection, call)


def add_leases(connection: sqlite3.Connection, call: CallRecord) -> None:
    """Add the leases of a call that are not there."""
    connection.executemany(
        _ADD_LEASE, [write_lease(call, position, lease) for position, lease in enumerate(call.leases)]
    )


def find_key(connection: sqlite3.Connection, scope: ClaimScope) -> tuple[KeyRow, str] | None:
    """Read a key and the id of the call that holds it or held it last."""
    row = connection.execute(_KEY, _scope_values(scope)).fetchone()
    return (read_key(row), row["call_id"]) if row else None


def take_key(
    connection: sqlite3.Connection, scope: ClaimScope, call: CallRecord, now: datetime, epoch: int
) -> None:
    """Write that a call holds a key now."""
    connection.execute(_TAKE_KEY, (*_scope_values(scope), call.call_id, call.attempt, to_micros(now), epoch))


def free_key(connection: sqlite3.Connection, scope: ClaimScope, attempt: int, epoch: int) -> None:
    """Write that a key is free for the attempt after `attempt`."""
    connection.execute(_FREE_KEY, (attempt, epoch, *_scope_values(scope)))


def _scope_values(scope: ClaimScope) -> tuple[str, ...]:
    return scope.tenant, scope.environment, scope.agent, scope.method, scope.key


@dataclass(frozen=True, slots=True)
class ChargeLedger:
    """The charges of one tenant and environment, as a `Ledger`."""

    connection: sqlite3.Connection
    tenant: str
    environment: str

    def used(self, charge: Charge, since: datetime) -> int:
        """Sum what is in the window."""
        row = self.connection.execute(
            "SELECT coalesce(sum(amount), 0) FROM charges "
            "WHERE tenant = ? AND environment = ? AND grant_id = ? AND unit = ? AND at > ?",
            self._values(charge, since),
        ).fetchone()
        return int(row[0])

    def entries(self, charge: Charge, since: datetime) -> Iterable[tuple[datetime, int]]:
        """Iterate over (time, amount), oldest first."""
        rows = self.connection.execute(
            "SELECT at, amount FROM charges "
            "WHERE tenant = ? AND environment = ? AND grant_id = ? AND unit = ? AND at > ? ORDER BY at",
            self._values(charge, since),
        )
        return ((from_micros(row["at"]), row["amount"]) for row in rows)

    def _values(self, charge: Charge, since: datetime) -> tuple[str | int, ...]:
        return self.tenant, self.environment, charge.grant_id, charge.limit.unit, to_micros(since)


def book(
    connection: sqlite3.Connection, call: CallRecord, budget: tuple[str, str], amount: int, now: datetime
) -> None:
    """Write what a call took from one budget (grant, unit)."""
    connection.execute(
        "INSERT INTO charges VALUES (?, ?, ?, ?, ?, ?, ?)",
        (call.tenant, call.environment, *budget, to_micros(now), call.call_id, amount),
    )


def unbook(connection: sqlite3.Connection, call: CallRecord) -> None:
    """Give back what a call took from its budgets."""
    connection.execute(
        "DELETE FROM charges WHERE tenant = ? AND environment = ? AND call_id = ?",
        (call.tenant, call.environment, call.call_id),
    )


def count_use(connection: sqlite3.Connection, call: CallRecord) -> None:
    """Count that a call's grant allowed it."""
    values = call.tenant, call.environment, call.grant_id, call.agent, call.method, to_micros(call.started)
    connection.execute(_COUNT_USE, values)


def select_uses(connection: sqlite3.Connection, tenant: str) -> Sequence[GrantUse]:
    """Read what the grants of a tenant allowed."""
    return [read_use(row) for row in connection.execute(_USES, (tenant,))]


def end_lease(connection: sqlite3.Connection, lease_id: str, at: datetime) -> Sequence[AuditEvent]:
    """Note a lease's end; the first time stays, and only of that there is something to record."""
    rows = connection.execute(_END_LEASE, (to_micros(at), lease_id)).fetchall()
    return [
        make_end_event(row["tenant"], row["environment"], row["call_id"], read_lease(row)) for row in rows
    ]


def select_owing(connection: sqlite3.Connection, tenant: str) -> Sequence[KeptCall]:
    """Read the calls with leases whose end is not confirmed; of every tenant where none is named."""
    return _with_leases(connection, connection.execute(_OWING, (tenant,)).fetchall())


def select_owed(connection: sqlite3.Connection) -> Sequence[tuple[str, LeaseRecord]]:
    """Read the leases whose end is not confirmed."""
    rows = connection.execute("SELECT * FROM leases WHERE confirmed_dead IS NULL ORDER BY call_id, position")
    return [(row["call_id"], read_lease(row)) for row in rows]


def _with_leases(connection: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> Sequence[KeptCall]:
    return [
        read_call(
            row,
            [
                read_lease(lease)
                for lease in connection.execute(
                    "SELECT * FROM leases WHERE tenant = ? AND environment = ? AND call_id = ? "
                    "ORDER BY position",
                    (row["tenant"], row["environment"], row["call_id"]),
                )
            ],
        )
        for row in rows
    ]
