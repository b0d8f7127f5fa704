"""The lever of the brakes: an operator's order is kept, put in force, and carried out on what runs.

    1  durable     the store has it; where it cannot be written, nothing is stopped, and the error says so
    2  in force    in memory, without an await before 3: whoever is let in after it is refused
    3  stop        every call that runs and is held back: its sandbox, its way out, its leases
    4  end         what earlier calls still owe, and what a hung engine keeps its call from ending
    5  say         which calls were stopped, how many leases are confirmed dead, how many are owed

A brake that is in force already is carried out again; one that the platform sets on a tenant replaces the
tenant's own, which its operators could lift. Lifting it is durable before anything is let in.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from broker.brakes import Brakes, caller_of, holds
from broker.catalogue import Catalogue
from broker.errors import Failed, Refused
from broker.ids import make_brake_id
from broker.lease_book import LeaseBook, ListedLease
from broker.model import Brake, BrakeKind, Caller
from broker.stages.authenticate import tenant_of
from broker.store.protocol import Store
from broker.store.records import AuditEvent, StaleEpoch, StoreError
from broker.trail import Trail
from toolcrib.v1.reasons_pb2 import Reason
from tools.errors import Violation

log = logging.getLogger(__name__)

MAX_REASON_CHARACTERS = 500
# The answer waits this long for the stopped calls to end.
STOP_SECONDS = 10.0

_AGENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator wants held back. `tenant` is empty for ALL, `value` for TENANT and ALL."""

    kind: BrakeKind
    tenant: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class Halt:
    """What became of what ran.

    Attributes:
        call_ids: The calls that were stopped.
        leases_ended: Credentials whose end is confirmed.
        leases_owed: Credentials that may be alive.
    """

    brake: Brake
    call_ids: tuple[str, ...]
    leases_ended: int
    leases_owed: int


class Lever:
    """Sets brakes and lifts them.

    Attributes:
        brakes: Those in force.
        book: What is alive.
    """

    def __init__(
        self,
        brakes: Brakes,
        store: Store,
        book: LeaseBook,
        catalogue: Catalogue,
        clock: Callable[[], datetime],
    ) -> None:
        self.brakes, self._store, self.book = brakes, store, book
        self._catalogue, self._clock = catalogue, clock
        # The store and the memory change in the same order.
        self._turn = asyncio.Lock()

    async def set(self, order: Order, by: Caller) -> Halt:
        """Hold back from now on, and stop what runs.

        Raises:
            Refused: REQUEST_INVALID, with every violation.
            Failed: RECORD_UNAVAILABLE; nothing was stopped.
            StaleEpoch: Another broker has taken over; nothing was stopped.
        """
        self._check(order)
        async with self._turn:
            brake = await self._keep(order, by)
            self.brakes.put(brake)
            stopping = self.book.path.stop(brake)
        log.warning("brake set", extra={"cause": f"{brake.kind} {brake.tenant} {brake.value}".strip()})
        if stopping:
            await asyncio.wait(stopping, timeout=STOP_SECONDS)
        return await self._take_stock(brake, list(stopping.values()))

    async def lift(self, brake: Brake, reason: str, by: Caller) -> None:
        """Let in again what a brake held back.

        Raises:
            Refused: REQUEST_INVALID.
            StoreError: It cannot be recorded; the brake stays.
        """
        violations = list(_check_reason(reason))
        if violations:
            raise _invalid("the brake stays", violations)
        event = self._event("brake.lifted", brake, by, reason)
        async with self._turn:
            await self._store.lift_brake(brake.brake_id, event)
            self.brakes.take(brake)

    async def _keep(self, order: Order, by: Caller) -> Brake:
        brake = Brake(
            make_brake_id(),
            order.kind,
            order.tenant,
            order.value,
            order.reason,
            by.identity,
            self._clock(),
        )
        event = self._event("brake.set", brake, by, order.reason)
        try:
            return await self._store.set_brake(brake, event, self._find_weaker(brake))
        except StaleEpoch:
            raise
        except StoreError as error:
            raise Failed(
                Reason.REASON_RECORD_UNAVAILABLE,
                f"the brake is not set and nothing was stopped: it cannot be recorded ({error}). Mend the "
                "state and try again; to stop everything at once, end the broker",
                retry_after_seconds=1.0,
            ) from error

    def _find_weaker(self, brake: Brake) -> str:
        """Find what a tenant's own operator set, and could lift, where the same is now set from outside."""
        own = self.brakes.find_same(brake)
        is_weaker = own is not None and tenant_of(own.set_by) == brake.tenant != tenant_of(brake.set_by)
        return own.brake_id if own is not None and is_weaker else ""

    def _event(self, kind: str, brake: Brake, by: Caller, reason: str) -> AuditEvent:
        facts = {"kind": brake.kind.value, "value": brake.value, "reason": reason, "brake": brake.brake_id}
        tenant = brake.tenant or by.tenant
        return AuditEvent(kind, tenant, "", self._clock(), actor=by.identity, details=facts)

    async def _take_stock(self, brake: Brake, stopped: list[Trail]) -> Halt:
        """End what is left of what the brake holds back, and count."""
        call_ids = tuple(trail.call_id for trail in stopped)
        leases = [lease for trail in stopped for lease in trail.leases]
        ended = sum(lease.confirmed_dead is not None for lease in leases)
        try:
            listed = await self.book.read(brake.tenant)
        except StoreError as error:  # the brake holds all the same
            log.warning("leases not listed", extra={"cause": str(error)})
            return Halt(brake, call_ids, ended, len(leases) - ended)
        left = [one for one in listed if _is_of(one, brake, call_ids)]
        late = sum(dead is not None for dead in await self.book.end(left))
        return Halt(brake, call_ids, ended + late, len(left) - late)

    def _check(self, order: Order) -> None:
        violations = [*_check_reason(order.reason), *self._check_tenant(order), *self._check_value(order)]
        if violations:
            raise _invalid("the brake is not set", violations)

    def _check_tenant(self, order: Order) -> Iterator[Violation]:
        if order.kind is BrakeKind.ALL:
            if order.tenant:
                yield Violation("tenant", "is for the other kinds: leave it out")
        elif order.tenant not in self.book.tenants:
            known = ", ".join(sorted(self.book.tenants))
            yield Violation("tenant", f"is none of this broker's, which are {known}")

    def _check_value(self, order: Order) -> Iterator[Violation]:
        if order.kind is BrakeKind.AGENT and not _AGENT.fullmatch(order.value):
            yield Violation("value", "is no name of an agent, as its certificate has it after /agent/")
        if order.kind is BrakeKind.CERTIFICATE and not _SHA256.fullmatch(order.value):
            yield Violation("value", "is no SHA-256 of a certificate's DER form in 64 lower-case hex digits")
        if order.kind is BrakeKind.TOOL and order.value not in self._tools(order.tenant):
            yield Violation(
                "value", f"is no tool and no service of tenant {order.tenant}, registered and loaded"
            )
        if order.kind in (BrakeKind.TENANT, BrakeKind.ALL) and order.value:
            yield Violation("value", "is for the other kinds: leave it out")

    def _tools(self, tenant: str) -> Collection[str]:
        """Name every tool and service of a tenant, usable or not: a withdrawn one may still run."""
        methods = {name for entry in self._catalogue.entries(tenant) for name in entry.version.contracts}
        return methods | {name.rpartition("/")[0] for name in methods}


def _is_of(one: ListedLease, brake: Brake, stopped: Collection[str]) -> bool:
    """Tell whether a brake holds back the call of a lease; a certificate's calls are known while they run."""
    call = one.call
    if call.call_id in stopped:
        return True
    return holds(brake, caller_of(call), call.method)


def _check_reason(reason: str) -> Iterator[Violation]:
    if not reason.strip():
        yield Violation("reason", "is required: say why, for the audit and for those who are refused")
    if len(reason) > MAX_REASON_CHARACTERS:
        yield Violation("reason", f"is longer than {MAX_REASON_CHARACTERS} characters")


def _invalid(what: str, violations: list[Violation]) -> Refused:
    fields = ", ".join(violation.field for violation in violations)
    return Refused(Reason.REASON_REQUEST_INVALID, f"{what}: {fields}", violations=violations)
