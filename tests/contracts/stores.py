"""What the store's contract suite runs on: a place where a store lives, and sample records."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from broker.model import Artefact, Brake, BrakeKind, BudgetLimit, CallRecord, CallState, Charge, LeaseRecord
from broker.store.cipher import Cipher, KeyErased
from broker.store.epochs import Restoration, Watch
from broker.store.memory import MemoryStore
from broker.store.memory_state import MemoryState
from broker.store.moments import to_micros
from broker.store.options import StoreOptions
from broker.store.protocol import Store
from broker.store.records import AuditEvent, AuditRecord, ClaimScope, StoreError, VersionRow
from broker.store.sqlite import open_now, take_over
from tools.contract import Effect

START = datetime(2026, 11, 21, 9, 0, 0, 123456, tzinfo=UTC)
RETENTION_SECONDS = 7 * 86_400
AUDIT_KEY = b"a key of the tests, 32 bytes long"


class SetClock:
    """A clock that stands still until it is set, and beside it one that only time moves."""

    def __init__(self) -> None:
        self.now = START
        self.lived = 0.0

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.jump(seconds)
        self.lived += seconds

    def jump(self, seconds: float) -> None:
        """Set the clock; no time passes."""
        self.now += timedelta(seconds=seconds)

    def monotonic(self) -> float:
        """Tell how much time passed."""
        return self.lived


def make_options(clock: SetClock) -> StoreOptions:
    """Make the options of the tests' stores."""
    return StoreOptions(AUDIT_KEY, "k1", clock, RETENTION_SECONDS, monotonic=clock.monotonic)


class StorePlace(Protocol):
    """Where one installation's state is."""

    clock: SetClock

    def open(self, cipher: Cipher | None = None) -> Store:
        """Open the store: a new run of the broker, which takes over."""

    def open_free(self, watch: Watch | None = None) -> Store:
        """Open the store if nobody has it."""

    def mark_restored(self, grace_seconds: float) -> None:
        """Say that everything so far is from a backup, which was restored just now."""


class MemoryPlace:
    """Keeps the state in memory."""

    def __init__(self) -> None:
        self.clock = SetClock()
        self._options = make_options(self.clock)
        self._state = MemoryState()

    def open(self, cipher: Cipher | None = None) -> Store:
        return MemoryStore(replace(self._options, cipher=cipher), self._state)

    def open_free(self, watch: Watch | None = None) -> Store:
        return MemoryStore(self._options, self._state, watch or Watch(self.clock.monotonic))

    def mark_restored(self, grace_seconds: float) -> None:
        epoch = self._state.run.number if self._state.run else 0
        self._state.restoration = Restoration(self.clock(), epoch, grace_seconds)


class SqlitePlace:
    """Keeps the state in a file."""

    def __init__(self, folder: Path) -> None:
        self.clock = SetClock()
        self._options = make_options(self.clock)
        self._path = folder / "state.db"

    def open(self, cipher: Cipher | None = None) -> Store:
        return take_over(self._path, replace(self._options, cipher=cipher))

    def open_free(self, watch: Watch | None = None) -> Store:
        return open_now(self._path, self._options, watch or Watch(self.clock.monotonic))

    def mark_restored(self, grace_seconds: float) -> None:
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute(
                "UPDATE installation SET restored_at = ?, grace_left = ?, "
                "restored_epoch = (SELECT max(number) FROM epochs)",
                (to_micros(self.clock()), int(grace_seconds * 1_000_000)),
            )


class XorCipher:
    """Seals by a key that a store keeps for each tenant, so weakly that only a test may use it."""

    def __init__(self) -> None:
        self.store: Store | None = None
        self.keys: dict[str, bytes] = {}
        self.refuses = False

    async def seal(self, tenant: str, context: bytes, plain: bytes) -> bytes:
        """Seal: key, context and what the key turns the value into."""
        assert self.store is not None
        if self.refuses:
            raise StoreError("no key can be had")
        if tenant not in self.keys:
            self.keys[tenant] = await self.store.put_tenant_key(tenant, secrets.token_bytes(8))
        key = self.keys[tenant]
        return key + _xor(key, len(context).to_bytes(2, "big") + context + plain)

    async def open(self, tenant: str, context: bytes, sealed: bytes) -> bytes:
        """Open: the key must be the one that the store has."""
        assert self.store is not None
        if self.refuses:
            raise StoreError("no key can be had")
        if await self.store.tenant_key(tenant) != sealed[:8]:
            raise KeyErased("the key was erased")
        opened = _xor(sealed[:8], sealed[8:])
        bound = len(context).to_bytes(2, "big") + context
        if not opened.startswith(bound):
            raise StoreError("is another value's")
        return opened[len(bound) :]

    def forget(self, tenant: str) -> None:
        """Drop a key."""
        self.keys.pop(tenant, None)


def _xor(key: bytes, value: bytes) -> bytes:
    return bytes(one ^ key[place % len(key)] for place, one in enumerate(value))


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


def make_artefact(name: str = "report.csv", content: bytes = b"1,2") -> Artefact:
    """Make a file that a call gives back."""
    return Artefact(name, "text/csv", len(content), hashlib.sha256(content).hexdigest(), content)


def make_brake(brake_id: str = "b1", **changes: Any) -> Brake:
    """Make a brake on an agent."""
    brake = Brake(brake_id, BrakeKind.AGENT, "acme", "desk", "its laptop was stolen", "spiffe://x/ops", START)
    return replace(brake, **changes)


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


async def succeed(store: Store, call: CallRecord, *artefacts: Artefact) -> CallRecord:
    """Reserve, dispatch and complete."""
    ended = await run(store, call)
    ended = replace(ended, state=CallState.SUCCEEDED, result=b"\x01", ended=START, artefacts=artefacts)
    await store.complete(ended, event_of(ended, "call.succeeded"))
    return ended


async def read_audit(store: Store, after_sequence: int = 0) -> list[AuditRecord]:
    """Read the whole chain."""
    return [record async for record in store.audit_records(after_sequence)]


async def read_events(store: Store, kind: str) -> list[dict[str, Any]]:
    """Read what the chain says of one kind."""
    said = [json.loads(record.payload) for record in await read_audit(store)]
    return [one for one in said if one["kind"] == kind]
