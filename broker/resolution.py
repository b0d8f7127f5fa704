"""Calls in doubt: found out by asking, sent again where that is safe, or handed to a person. Never guessed.

    1  fence     nothing of the attempt can act any more (fence.py)
    2  settle    the tool's `settle_seconds` pass: what was on its way inside the target has arrived or not
    3  ask       the declared probe, as a READ call of the broker's own, with its own record and audit
       or send   the same request under the same target key, where the target dedupes by it
    4  resolve   SUCCEEDED with the answer, FAILED with key and budgets given back, or NEEDS_HUMAN

An outcome is believed only from a probe that ran after 1 and 2. A part that is missing (engine, Vault) is
waited for, as long as it takes; a probe that answers nonsense, or a login that is refused for good, is asked
for again a few times, then a person is.
What an operator holds back (broker/brakes.py) is fenced, and then left alone until it is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass

from broker.brakes import Brakes
from broker.doubts import Doubts
from broker.errors import CallError
from broker.fence import Fence, Fenced, NotFenced
from broker.finding import Finding, needs_human, resolved_event, resolved_record
from broker.inquiry import Inquirer
from broker.model import CallRecord, CallState
from broker.store.protocol import Store
from broker.store.records import StaleEpoch, StoreError
from toolcrib.v1.reasons_pb2 import Reason

log = logging.getLogger(__name__)

# What says nothing about the call: a part of ours is missing, and will be back; the grants do not check, so
# that nobody knows what one of them left; or an operator holds the call back.
_MISSING_PARTS = frozenset(
    {
        Reason.REASON_CREDENTIALS_UNAVAILABLE,
        Reason.REASON_SANDBOX_UNAVAILABLE,
        Reason.REASON_RECORD_UNAVAILABLE,
        Reason.REASON_POLICY_FAILED,
        Reason.REASON_STALE_EPOCH,
        Reason.REASON_BRAKE_SET,
        Reason.REASON_CALLER_BLOCKED,
        Reason.REASON_CALL_STOPPED,
    }
)


@dataclass(frozen=True, slots=True)
class Tuning:
    """How patiently calls are resolved.

    Attributes:
        at_once: How many calls are fenced or asked about at a time.
        look_seconds: How often the store is asked, whether or not anybody reported a call.
        first_pause_seconds, longest_pause_seconds: Back-off between tries.
        max_tries: After so many answers that say nothing a person has to look.
    """

    at_once: int = 8
    look_seconds: float = 5.0
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 60.0
    max_tries: int = 6


PATIENT = Tuning()


class Resolution:
    """Resolves the calls in doubt of every tenant, in the background.

    Attributes:
        fence: What confirms that an attempt can have no effect any more.
    """

    def __init__(
        self,
        store: Store,
        doubts: Doubts,
        fence: Fence,
        inquirer: Inquirer,
        brakes: Brakes,
        tuning: Tuning = PATIENT,
    ) -> None:
        self.fence = fence
        self._store, self._doubts, self._inquirer = store, doubts, inquirer
        self._brakes = brakes
        self._tuning = tuning
        self._places = asyncio.Semaphore(self._tuning.at_once)
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take up what is in doubt, now and from now on."""
        self._looking = asyncio.create_task(self._look_for_ever(), name="resolution")

    async def close(self) -> None:
        """Stop; what is in doubt stays so, and the next start takes it up."""
        tasks = [task for task in (self._looking, *self._jobs.values()) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _look_for_ever(self) -> None:
        while True:
            try:
                for call in await self._store.in_doubt(limit=100 + len(self._jobs)):
                    self._take_up(call)
            except StoreError as error:
                log.warning("calls in doubt not listed", extra={"cause": str(error)})
            await self._doubts.wait_for_news(self._tuning.look_seconds)

    def _take_up(self, call: CallRecord) -> None:
        if call.call_id not in self._jobs:
            task = asyncio.create_task(self._see_through(call), name=f"resolution of {call.call_id}")
            self._jobs[call.call_id] = task
            task.add_done_callback(lambda done: self._forget(call.call_id, done))

    def _forget(self, call_id: str, done: asyncio.Task[None]) -> None:
        self._jobs.pop(call_id, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("resolution failed", extra={"call_id": call_id}, exc_info=error)

    async def _see_through(self, call: CallRecord) -> None:
        """Try until the call is resolved, by this or by somebody else."""
        fenced: Fenced | None = None
        tries, pause = 0, self._tuning.first_pause_seconds
        while True:
            try:
                with self._doubts.hold(call.call_id):
                    fenced = fenced or await self._fence(call)
                    finding = await self._find_out(call, fenced)
                    await self._resolve(call, finding)
                return
            except NotFenced as error:
                log.warning("not fenced", extra={"call_id": call.call_id, "cause": str(error)})
            except CallError as error:
                tries += error.reason not in _MISSING_PARTS or not error.passes
                log.warning(
                    "no answer about a call in doubt",
                    extra={"call_id": call.call_id, "cause": f"{error.reason_name}: {error.message}"},
                )
                if tries >= self._tuning.max_tries:
                    await self._give_up(call, error)
                    return
            except StaleEpoch:
                return
            except StoreError as error:
                log.warning("not resolved", extra={"call_id": call.call_id, "cause": str(error)})
            await asyncio.sleep(pause)
            await self._brakes.wait_until_released(call.tenant, call.method)
            pause = min(pause * 2, self._tuning.longest_pause_seconds)
            found = await self._read(call)
            if found is None or found.state is not CallState.IN_DOUBT:
                return
            call = found

    async def _fence(self, call: CallRecord) -> Fenced:
        async with self._places:
            return await self.fence(call)

    async def _find_out(self, call: CallRecord, fenced: Fenced) -> Finding:
        """Wait until the target has settled since the fence, and ask."""
        due = fenced.since + self._inquirer.settle_seconds(call)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        self._brakes.check_tool(call.tenant, call.method)
        async with self._places:
            return await self._inquirer.find_out(call, fenced)

    async def _give_up(self, call: CallRecord, error: CallError) -> None:
        with contextlib.suppress(StoreError):
            await self._resolve(call, needs_human(f"it could not be found out ({error.reason_name})"))

    async def _resolve(self, call: CallRecord, finding: Finding) -> None:
        current = await self._read(call)
        if current is None or current.state is not CallState.IN_DOUBT:
            return
        record = resolved_record(current, finding)
        await self._store.resolve(record, resolved_event(record, finding))
        log.warning("resolved", extra={"call_id": call.call_id, "outcome": record.state.value})

    async def _read(self, call: CallRecord) -> CallRecord | None:
        with contextlib.suppress(StoreError):
            return await self._store.get_call(call.tenant, call.call_id)
        return call
