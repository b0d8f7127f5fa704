"""Stage 7, reserve: one transaction over call, key, budgets and audit → `Reservation`.

From here the record is durable. What goes wrong before the tool can have run gives key and budgets back;
what goes wrong after it is recorded as FAILED where the outcome is known, and as IN_DOUBT where a write's is
not. A write is never run again on a guess. What an operator's brake stopped is told what its record says. An
end that the store does not take is owed to it: it is tried
again until it is there, so that whoever waits under the key hears of it.

A read that needs no lease has its intent to run committed with its reservation. The end of one without a key
is written behind its answer: nobody can ask for that answer again. A crash in between leaves it DISPATCHED,
and the next start says that it may have been answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from broker.brakes import refused_by, stopped_by
from broker.doubts import Doubts
from broker.errors import CallError, Failed, Refused
from broker.model import BudgetLimit, Call, CallRecord, CallState, Charge, Grant, Reservation, SandboxRecord
from broker.outlast import outlast
from broker.stages.claim import Claimed
from broker.store.protocol import Store
from broker.store.records import AuditEvent, BudgetExhausted, StaleEpoch, StoreError
from broker.trail import Trail
from broker.workflow_records import Imprint
from broker.workflows import WorkflowBook
from toolcrib.v1.reasons_pb2 import Reason

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 30.0

End = Callable[[], Awaitable[None]]
Prepare = Callable[[str], Awaitable[None]]

log = logging.getLogger(__name__)

UNKNOWN_OUTCOME = (
    "it is not known yet whether the write happened. Do not use another key: ask again with the same one, "
    "and get what was found out"
)


class Reserver:
    """Commits what a call will use, and what became of it when it goes wrong."""

    def __init__(
        self,
        store: Store,
        workflows: WorkflowBook,
        doubts: Doubts | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        """Prepare.

        Args:
            store: Where calls are recorded.
            workflows: What calls leave on their workflows.
            doubts: Told when a call has ended in doubt.
            prepare: Sees that what a tenant's call comes to can be recorded; raises StoreError.
        """
        self._store = store
        self._workflows = workflows
        self._prepare = prepare
        self._doubts = doubts or Doubts()
        self._owed: set[asyncio.Task[None]] = set()
        self._behind: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Write what is written behind answers, and stop trying; the next start adopts what is left then."""
        if self._behind:
            await asyncio.wait(self._behind)
        for task in self._owed:
            task.cancel()
        if self._owed:
            await asyncio.wait(self._owed)

    @asynccontextmanager
    async def __call__(
        self, call: Call, grant: Grant, claim: Claimed, trail: Trail
    ) -> AsyncIterator[Reservation]:
        """Hold a reservation until the call is settled.

        Raises:
            Refused: BUDGET_EXHAUSTED, with the time to wait where waiting helps.
        """
        charges = tuple(Charge(grant.grant_id, limit, charge(call, limit)) for limit in grant.limits)
        if self._prepare is not None:
            await self._prepare(call.caller.tenant)
        state = CallState.DISPATCHED if runs_at_once(call) else CallState.RESERVED
        # What an own call of the broker finds out comes to the agent as a replay, and is noted then.
        imprint = None if trail.resolves else self._workflows.arrival(call)
        try:
            event = trail.event("call.reserved")
            await self._store.reserve(trail.record(state), claim.scope, charges, event, imprint)
        except BudgetExhausted as error:
            raise Refused(
                Reason.REASON_BUDGET_EXHAUSTED,
                f'grant "{grant.grant_id}": {error.used} of {error.charge.limit.limit} '
                f"{error.charge.limit.unit} in {error.charge.limit.window_seconds} s are used, "
                f"this call needs {error.charge.amount}",
                retry_after_seconds=error.retry_after_seconds or None,
            ) from error
        trail.recorded = True
        self._workflows.note(imprint)
        try:
            yield Reservation(call.call_id, grant, claim.attempt, trail.epoch, charges)
        except BaseException as error:
            if trail.settled:
                raise  # the answer is durable; what went wrong after it changes nothing of that
            failure = _as_failure(error, call, trail)
            await outlast(self._record_failure(failure, call, trail))
            if isinstance(error, Exception) and trail.completion is None:
                raise failure from error
            raise
        finally:
            if trail.settled and trail.behind:
                self._complete_behind(trail)

    async def _record_failure(self, failure: CallError, call: Call, trail: Trail) -> None:
        await trail.see_sandboxes_end()
        await self._record(self._make_end(failure, call, trail), trail)
        if trail.completion is None:
            trail.failure = failure  # told from now on: a tool's words leave only when they are on record

    def _complete_behind(self, trail: Trail) -> None:
        """Write the end of a call whose answer may leave before it is durable."""
        assert trail.completion is not None, "what is settled has a completion"
        work = self._record_behind(trail.completion, trail.event("call.succeeded"), trail)
        task = asyncio.create_task(work, name=f"end of {trail.call_id}")
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def _record_behind(self, completion: CallRecord, event: AuditEvent, trail: Trail) -> None:
        told: list[SandboxRecord] = []

        def tell() -> Sequence[SandboxRecord]:
            told[:] = trail.sandboxes_now()
            return told

        try:
            end = partial(self._store.complete, completion, event, behind=tell, imprint=trail.imprint)
            await self._record(end, trail)
            await trail.see_sandboxes_end()
            if told != (known := list(trail.sandboxes_now())):  # the end of a sandbox came later still
                await self._store.amend(replace(completion, sandboxes=tuple(known)))
        except StoreError as error:
            log.warning("end not recorded", extra={"call_id": trail.call_id, "cause": str(error)})

    def _make_end(self, failure: CallError, call: Call, trail: Trail) -> End:
        """Say how the call ends in the store."""
        store = self._store
        if trail.completion is not None:
            event = trail.event("call.succeeded")
            return self._noting(partial(store.complete, trail.completion, event), trail.imprint)
        event = trail.event("call.failed", failure)
        if not trail.ran or isinstance(failure, NothingRan):
            return partial(store.give_back, trail.record(CallState.FAILED, failure), event)
        # What the broker itself did about a call in doubt is no doubt of its own: that call stays in doubt.
        doubtful = failure.reason == Reason.REASON_IN_DOUBT and not trail.resolves
        record = trail.record(CallState.IN_DOUBT if doubtful else CallState.FAILED, failure)
        passing = not call.is_write and failure.reason != Reason.REASON_TOOL_FAILED
        imprint = None if trail.resolves else self._workflows.failure(call, failure)
        return self._noting(partial(store.complete, record, event, frees_key=passing), imprint)

    def _noting(self, complete: Callable[..., Awaitable[None]], imprint: Imprint | None) -> End:
        """Let what a call leaves on its workflow be recorded with its end, and then count."""

        async def end() -> None:
            await complete(imprint=imprint)
            self._workflows.note(imprint)

        return end

    async def _record(self, end: End, trail: Trail) -> None:
        try:
            await end()
            self._doubts.report()
        except StaleEpoch:
            raise
        except StoreError:
            task = asyncio.create_task(self._try_again(end, trail), name=f"end of {trail.call_id}")
            self._owed.add(task)
            task.add_done_callback(self._owed.discard)
            raise

    async def _try_again(self, end: End, trail: Trail) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            try:
                if not await self._is_running(trail):
                    return
                await end()
                self._doubts.report()
            except StaleEpoch:
                return
            except StoreError as error:
                log.warning("end not recorded", extra={"call_id": trail.call_id, "cause": str(error)})

    async def _is_running(self, trail: Trail) -> bool:
        assert trail.caller is not None, "what was reserved has a caller"
        found = await self._store.get_call(trail.caller.tenant, trail.call_id)
        return found is not None and found.state in (CallState.RESERVED, CallState.DISPATCHED)


def runs_at_once(call: Call) -> bool:
    """Tell whether a call is a read without credentials: what it has is found by its container's labels."""
    return not call.is_write and not call.version.manifest.method(call.contract.method).credentials


def in_doubt(what: str, **details: str) -> Failed:
    """Say that it is not known whether a write happened; asking again tells what was found out."""
    return Failed(
        Reason.REASON_IN_DOUBT, f"{what}: {UNKNOWN_OUTCOME}", retry_after_seconds=2.0, details=details
    )


class NothingRan(Failed):
    """A failure of which it is known that the tool did not start: key and budgets are given back."""


@asynccontextmanager
async def stoppable(trail: Trail) -> AsyncIterator[None]:
    """Turn the cancellation by which a brake stops a call into what the call is told."""
    try:
        yield
    except asyncio.CancelledError:
        if trail.stopped_by is None:
            raise
        task = asyncio.current_task()
        while task is not None and task.uncancel():
            pass  # what is recorded from here on is no cancelled call's any more
        raise stop_error(trail) from None


def stop_error(trail: Trail) -> CallError:
    """Say what became of a call that a brake stopped: as its record does."""
    brake = trail.stopped_by
    assert brake is not None, "only a call that was stopped is told so"
    if trail.failure is not None:
        return trail.failure
    if not trail.recorded:
        return refused_by(brake)
    is_write = trail.call is not None and trail.call.is_write
    if trail.completion is not None:
        effect = {"effect": "APPLIED"} if is_write else {}
        return stopped_by(brake, "it had ended, and its answer is kept under its key", **effect)
    if not trail.ran:
        text = f"an operator stopped the call ({brake.reason}): the tool had not started, nothing ran"
        return NothingRan(Reason.REASON_CALL_STOPPED, text, details={"brake": brake.brake_id})
    if is_write:
        return in_doubt(f"an operator stopped the call ({brake.reason})", brake=brake.brake_id)
    return stopped_by(brake, "it was a read, and has no answer")


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
    if isinstance(error, StoreError) and not trail.ran:
        return NothingRan(
            Reason.REASON_RECORD_UNAVAILABLE,
            f"the call cannot be recorded ({error}), nothing ran; ask again with the same key",
            retry_after_seconds=1.0,
        )
    if trail.stopped_by is not None:
        return stop_error(trail)
    if trail.ran and call.is_write:
        return in_doubt("the call was broken off")
    if isinstance(error, Exception):
        return Failed(Reason.REASON_UNSPECIFIED, f"the broker failed; see its log for {call.call_id}")
    return Failed(Reason.REASON_UNSPECIFIED, "the caller went away", details={"cancelled": "true"})
