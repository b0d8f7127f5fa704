"""Stage 7, reserve: one transaction over call, key, budgets and audit → `Reservation`.

From here the record is durable. What goes wrong before the tool can have run gives key and budgets back;
what goes wrong after it is recorded as FAILED where the outcome is known, and as IN_DOUBT where a write's is
not. A write is never run again on a guess.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.errors import CallError, Failed, Refused
from broker.model import BudgetLimit, Call, CallState, Charge, Grant, Reservation
from broker.stages.claim import Claimed
from broker.store.protocol import BudgetExhausted, Store
from broker.trail import Trail
from toolcrib.v1.reasons_pb2 import Reason

UNKNOWN_OUTCOME = (
    "it is not known whether the write happened; do not use another key. "
    "`toolcrib calls show` has the record, a person has to look at the target"
)


class Reserver:
    """Commits what a call will use, and what became of it when it goes wrong."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @asynccontextmanager
    async def __call__(
        self, call: Call, grant: Grant, claim: Claimed, trail: Trail
    ) -> AsyncIterator[Reservation]:
        """Hold a reservation until the call is settled.

        Raises:
            Refused: BUDGET_EXHAUSTED, with the time to wait where waiting helps.
        """
        charges = tuple(Charge(grant.grant_id, limit, charge(call, limit)) for limit in grant.limits)
        try:
            await self._store.reserve(
                trail.record(CallState.RESERVED), claim.scope, charges, trail.event("call.reserved")
            )
        except BudgetExhausted as error:
            raise Refused(
                Reason.REASON_BUDGET_EXHAUSTED,
                f'grant "{grant.grant_id}": {error.used} of {error.charge.limit.limit} '
                f"{error.charge.limit.unit} in {error.charge.limit.window_seconds} s are used, "
                f"this call needs {error.charge.amount}",
                retry_after_seconds=error.retry_after_seconds or None,
            ) from error
        trail.recorded = True
        try:
            yield Reservation(call.call_id, grant, claim.attempt, trail.epoch, charges)
        except BaseException as error:
            if trail.settled:
                raise  # the answer is durable; what went wrong after it changes nothing of that
            failure = _as_failure(error, call, trail)
            await asyncio.shield(self._record(failure, trail))
            if isinstance(error, Exception):
                raise failure from error
            raise

    async def _record(self, failure: CallError, trail: Trail) -> None:
        event = trail.event("call.failed", failure)
        if trail.dispatched and not isinstance(failure, NothingRan):
            in_doubt = failure.reason == Reason.REASON_IN_DOUBT
            state = CallState.IN_DOUBT if in_doubt else CallState.FAILED
            await self._store.complete(trail.record(state, failure), event)
        else:
            await self._store.give_back(trail.record(CallState.FAILED, failure), event)


class NothingRan(Failed):
    """A failure of which it is known that the tool did not start: key and budgets are given back."""


def charge(call: Call, limit: BudgetLimit) -> int:
    """Say what a call takes from a budget: one call, or its amounts in the budget's currency.

    A grant whose budget is in another currency did not authorize the call.
    """
    if limit.unit == "calls":
        return 1
    currency = limit.unit.removeprefix("minor:")
    amounts = call.contract.amounts(call.message)
    return sum(amount.minor_units for amount in amounts if amount.currency == currency)


def _as_failure(error: BaseException, call: Call, trail: Trail) -> CallError:
    """Name the failure; a write that may have run and did not say how it ended is in doubt."""
    if isinstance(error, CallError):
        return error
    if trail.dispatched and call.is_write:
        return Failed(Reason.REASON_IN_DOUBT, UNKNOWN_OUTCOME)
    if isinstance(error, Exception):
        return Failed(Reason.REASON_UNSPECIFIED, f"the broker failed; see its log for {call.call_id}")
    return Failed(Reason.REASON_UNSPECIFIED, "the caller went away", details={"cancelled": "true"})
