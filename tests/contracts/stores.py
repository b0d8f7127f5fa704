"""What the store's contract suite runs on: a place where a store lives, and sample records."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from broker.model import BudgetLimit, CallRecord, CallState, Charge, LeaseRecord
from broker.store.memory import MemoryStore
from broker.store.memory_state import MemoryState
from broker.store.options import StoreOptions
from broker.store.protocol import AuditEvent, AuditRecord, ClaimScope, Store, VersionRow
from broker.store.sqlite import open_unlocked
from tools.contract import Effect

START = datetime(2026, 11, 21, 9, 0, 0, 123456, tzinfo=UTC)
RETENTION_SECONDS = 7 * 86_400
AUDIT_KEY = b"a key of the tests, 32 bytes long"


class SetClock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


class StorePlace(Protocol):
    """Where one installation's state is. Each opening is a new run of the broker, and takes over."""

    clock: SetClock

    def open(self) -> Store:
        """Open the store."""


class MemoryPlace:
    """Keeps the state in memory."""

    def __init__(self) -> None:
        self.clock = SetClock()
        self._options = StoreOptions(AUDIT_KEY, "k1", self.clock, RETENTION_SECONDS)
        self._state = MemoryState()

    def open(self) -> Store:
        return MemoryStore(self._options, self._state)


class SqlitePlace:
    """Keeps the state in a file."""

    def __init__(self, folder: Path) -> None:
        self.clock = SetClock()
        self._options = StoreOptions(AUDIT_KEY, "k1", self.clock, RETENTION_SECONDS)
        self._path = folder / "state.db"

    def open(self) -> Store:
        return open_unlocked(self._path, self._options)


def make_call(call_id: str = "", **changes: Any) -> CallRecord:
    """Make a call that is about to be reserved."""
    call = CallRecord(
        call_id=call_id or f"c{secrets.token_hex(8)}",
        tenant="acme",
        environment="prod",
        agent="desk",
        subject="ann",
        method="shop.v1.Orders/IssueRefund",
        tool_version="1.0.0",
        effect=Effect.WRITE,
        key="",
        fingerprint="f1",
        attempt=1,
        epoch=1,
        state=CallState.RESERVED,
        started=START,
        grant_id="refunds",
    )
    return replace(call, **changes)


def scope_of(call: CallRecord) -> ClaimScope:
    """Name the key of a call."""
    return ClaimScope(call.tenant, call.environment, call.agent, call.method, call.key)


def event_of(call: CallRecord, kind: str = "call.reserved") -> AuditEvent:
    """Make the audit event of a call."""
    return AuditEvent(
        kind, call.tenant, call.environment, START, call.call_id, "spiffe://x/a", {"method": call.method}
    )


def make_event(tenant: str = "acme", kind: str = "test.noted") -> AuditEvent:
    """Make an audit event about no call."""
    return AuditEvent(kind, tenant, "", START)


def make_lease(lease_id: str, **changes: Any) -> LeaseRecord:
    """Make a lease whose end is owed."""
    lease = LeaseRecord(lease_id, f"accessor-{lease_id}", "orders_refund", f"v-{lease_id}", START)
    return replace(lease, **changes)


def make_charge(amount: int = 1, limit: int = 2, window_seconds: int = 60, unit: str = "calls") -> Charge:
    """Make a charge on the grant of `make_call`."""
    return Charge("refunds", BudgetLimit(unit, limit, window_seconds), amount)


def make_version(version: str = "1.0.0", **changes: Any) -> VersionRow:
    """Make a version that was just registered."""
    row = VersionRow(
        "acme", "shop", version, "d1", "REGISTERED", b"\x0a\x00", "bundle: shop\n", "sha256:1", "ann", START
    )
    return replace(row, **changes)


async def reserve(store: Store, call: CallRecord, *charges: Charge) -> CallRecord:
    """Claim the call's key, if it has one, and reserve."""
    scope = None
    if call.key:
        scope = scope_of(call)
        claim = await store.claim(scope, call.fingerprint, call.call_id)
        assert claim.won
        call = replace(call, attempt=claim.attempt)
    await store.reserve(call, scope, charges, event_of(call))
    return replace(call, epoch=store.epoch.number)


async def run(store: Store, call: CallRecord, *leases: LeaseRecord) -> CallRecord:
    """Reserve and dispatch."""
    call = await reserve(store, call)
    await store.dispatch(call.call_id, leases)
    return replace(call, state=CallState.DISPATCHED, leases=tuple(leases))


async def succeed(store: Store, call: CallRecord) -> CallRecord:
    """Reserve, dispatch and complete."""
    ended = replace(await run(store, call), state=CallState.SUCCEEDED, result=b"\x01", ended=START)
    await store.complete(ended, event_of(ended, "call.succeeded"))
    return ended


async def read_audit(store: Store, after_sequence: int = 0) -> list[AuditRecord]:
    """Read the whole chain."""
    return [record async for record in store.audit_records(after_sequence)]
