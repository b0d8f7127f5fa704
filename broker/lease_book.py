"""What is alive right now: every credential whose end is not confirmed, and the call that it was minted for.

Three places know of them, and all are asked: the store (from DISPATCHED on, and what earlier runs left), the
trails of calls that run (from mint on), and the debts (also what a cancelled mint could not end).

    LIVE            its call runs
    ENDING          its call has ended, its end is on the way
    NOT_CONFIRMED   its end was tried and is not confirmed: it may be alive
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from broker.cipher import KeyUnavailable
from broker.debts import Debt, Debts
from broker.model import CallRecord, CallState, LeaseRecord
from broker.path import Path
from broker.store.protocol import Store
from broker.trail import Trail
from credentials.lease import OwedLease

AnyLease = LeaseRecord | OwedLease


class LeaseState(enum.StrEnum):
    """How a lease stands; the names are those of toolcrib.v1.Lease.State."""

    LIVE = "LIVE"
    ENDING = "ENDING"
    NOT_CONFIRMED = "NOT_CONFIRMED"


@dataclass(frozen=True, slots=True)
class ListedLease:
    """One credential that is or may be alive.

    Attributes:
        call: Whose it is; without request, result and log.
        tries: How often its end was tried in vain.
        last_error: What was wrong the last time.
    """

    call: CallRecord
    lease: AnyLease
    state: LeaseState
    tries: int = 0
    last_error: str = ""


class LeaseBook:
    """Lists leases, and has those ended that nobody should wait for.

    Attributes:
        path: Where the calls run.
        tenants: Every tenant of this broker.
    """

    def __init__(self, store: Store, path: Path, debts: Debts, tenants: Collection[str]) -> None:
        self.path, self.tenants = path, frozenset(tenants)
        self._store, self._debts = store, debts

    async def read(self, tenant: str = "") -> list[ListedLease]:
        """List every lease of a tenant whose end is not confirmed, oldest first; of all where none is named.

        Raises:
            StoreError: The state cannot be read.
        """
        before = {trail.call_id for trail in self.path.running}
        written = await self._store.live_leases()  # of all: only few debts are not among them
        kept: dict[str, tuple[CallRecord, AnyLease]] = {
            live.lease.lease_id: (live.call, live.lease)
            for live in written
            if tenant in ("", live.call.tenant)
        }
        kept |= await self._find_unwritten(tenant, {live.lease.lease_id for live in written})
        # From here on nothing is awaited: what is said of one lease is said of the same moment.
        debts = {debt.lease.lease_id: debt for debt in self._debts.owed}
        running = {trail.call_id: trail for trail in self.path.running}
        kept |= {lease.lease_id: (call, lease) for call, lease in _held(running.values(), tenant)}
        listed = [
            _list(call, lease, debts.get(lease_id), call.call_id in running)
            for lease_id, (call, lease) in kept.items()
            # A call that ended while we read has ended this one too, or it would be owed.
            if lease_id in debts or call.call_id in running or call.call_id not in before
        ]
        return sorted(listed, key=lambda one: (one.lease.minted, one.lease.lease_id))

    async def end(self, leases: Sequence[ListedLease]) -> list[datetime | None]:
        """End leases now; None for each whose end is not confirmed soon."""
        return await asyncio.gather(*(self._debts.end(one.call.call_id, one.lease) for one in leases))

    async def _find_unwritten(
        self, tenant: str, written: Collection[str]
    ) -> dict[str, tuple[CallRecord, AnyLease]]:
        """Find the calls of leases that only the debts know: what a cancelled mint could not end."""
        found = {}
        for debt in self._debts.owed:
            if debt.lease.lease_id not in written:
                for name in [tenant] if tenant else sorted(self.tenants):
                    if (call := await self._find_call(name, debt)) is not None:
                        found[debt.lease.lease_id] = call, debt.lease
        return found

    async def _find_call(self, tenant: str, debt: Debt) -> CallRecord | None:
        try:
            return await self._store.get_call(tenant, debt.call_id)
        except KeyUnavailable:  # it is there, and sealed by a Vault that does not answer: so one looks
            return _name_call(tenant, debt)


def _held(trails: Collection[Trail], tenant: str) -> Iterator[tuple[CallRecord, LeaseRecord]]:
    for trail in trails:
        if trail.caller is not None and tenant in ("", trail.caller.tenant):
            for lease in trail.leases:
                if lease.confirmed_dead is None:
                    yield trail.record(CallState.RESERVED), lease


def _name_call(tenant: str, debt: Debt) -> CallRecord:
    """Say what is known of a call whose record cannot be opened now."""
    return CallRecord(
        call_id=debt.call_id,
        tenant=tenant,
        environment="",
        agent="",
        subject="",
        method="",
        tool_version="",
        effect=None,
        key="",
        fingerprint="",
        attempt=1,
        epoch=0,
        state=CallState.FAILED,
        started=debt.lease.minted,
    )


def _list(call: CallRecord, lease: AnyLease, debt: Debt | None, is_running: bool) -> ListedLease:
    if debt is not None and debt.tries:
        return ListedLease(call, lease, LeaseState.NOT_CONFIRMED, debt.tries, debt.last_error)
    is_live = is_running and debt is None
    return ListedLease(call, lease, LeaseState.LIVE if is_live else LeaseState.ENDING)
