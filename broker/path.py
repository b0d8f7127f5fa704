"""The way of a call, one line a stage.

     0  record        opens the trail; a refusal is recorded too; what cannot be recorded does not run
     1  authenticate  channel → Caller, and a place within the tenant's limits
     2  validate      bytes → canonical Call of one tool version
     3  claim         takes the key, or finds what it did before
     4  authorize     grants → Grant
     5  gate          destinations against what tool and grant accept → concerns
     6  approve       does a person have to agree first?
     7  reserve       one transaction: call, key, budgets → Reservation
     8  mint          leases for this call
     9  run           intent durable, then one sandbox, one deadline → raw output
    10  sanitize      raw output → checked, cleaned, scanned, labelled Answer
    11  settle        completion durable; then the leases end, confirmed

What is opened is an `async with`, so that the order of the ends is the language's job: sandbox, egress,
leases, reservation, claim, record. `trail.at` is the one boundary between stages.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from broker.errors import CallError, Failed, Refused
from broker.model import Answer
from broker.redaction import Redaction
from broker.request import Request
from broker.stages.admit import Admission
from broker.stages.approve import approve
from broker.stages.authenticate import Authenticator
from broker.stages.authorize import Authorizer
from broker.stages.claim import Claimer
from broker.stages.gate import Gate
from broker.stages.mint import Minter
from broker.stages.reserve import UNKNOWN_OUTCOME, Reserver
from broker.stages.run import Runner
from broker.stages.sanitize import sanitize
from broker.stages.settle import Settler
from broker.stages.validate import Validator
from broker.trail import Recorder, Trail
from toolcrib.v1.reasons_pb2 import Reason


@dataclass(frozen=True, slots=True)
class Stages:
    """The parts of the path that hold something; approve and sanitize are functions."""

    recorder: Recorder
    authenticate: Authenticator
    admit: Admission
    validate: Validator
    claim: Claimer
    authorize: Authorizer
    gate: Gate
    reserve: Reserver
    mint: Minter
    run: Runner
    settle: Settler


class Path:
    """Walks requests from the door to the answer."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._walking: set[asyncio.Task[Answer]] = set()
        self.draining = False

    async def answer(self, request: Request, trail: Trail | None = None) -> Answer:
        """Answer one request. A caller that hangs up stops it, unless it is a write that may have begun.

        Raises:
            Refused: Nothing happened.
            Failed: It was allowed, then went wrong.
        """
        if self.draining:
            raise _draining()
        trail = trail or self.begin(request)
        task = asyncio.create_task(self._walk(request, trail), name=trail.call_id)
        self._walking.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and not _is_cancelled():
                raise _stopped(trail) from None  # the drain stopped it; its caller still waits
            if not trail.committed:
                task.cancel()
            raise

    def begin(self, request: Request) -> Trail:
        """Make the trail of a request that just arrived, so that even a refusal has a call id."""
        return self._stages.recorder.begin(request)

    async def drain(self, seconds: float) -> int:
        """Take no new calls; let those that run end, and stop what is left when the time is up.

        Returns:
            How many calls had to be stopped; a write among them is in doubt.
        """
        self.draining = True
        running = set(self._walking)
        if running:
            _, late = await asyncio.wait(running, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=10)
            return len(late)
        return 0

    def _forget(self, task: asyncio.Task[Answer]) -> None:
        self._walking.discard(task)
        if not task.cancelled():
            task.exception()  # a caller that hung up does not read it; the record has it

    async def _walk(self, request: Request, trail: Trail) -> Answer:
        stages = self._stages
        async with stages.recorder.open(trail):
            await trail.at("authenticate")
            caller = trail.caller = stages.authenticate(request.peer)
            with stages.admit(caller, request):
                await trail.at("validate")
                call = await stages.validate(request, caller, trail)
                await trail.at("claim")
                async with stages.claim(call, request, trail) as claim:
                    if claim.earlier_answer is not None:
                        return claim.earlier_answer
                    await trail.at("authorize")
                    grant = stages.authorize(call, trail)
                    await trail.at("gate")
                    concerns = stages.gate(call, grant)
                    await trail.at("approve")
                    approve(call, grant, concerns)
                    await trail.at("reserve")
                    async with stages.reserve(call, grant, claim, trail) as reservation:
                        await trail.at("mint")
                        async with stages.mint(call, reservation, trail) as leases:
                            await trail.at("run")
                            raw_output = await stages.run(call, reservation, leases, trail)
                            await trail.at("sanitize")
                            answer = sanitize(call, raw_output, Redaction(leases))
                            await trail.at("settle")
                            await stages.settle(answer, trail)
                            return answer
        raise Failed(Reason.REASON_UNSPECIFIED, "unreachable: every way through the stages ends above")


def _is_cancelled() -> bool:
    """Tell whether whoever waits here was cancelled: the caller hung up."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _draining() -> Refused:
    return Refused(
        Reason.REASON_DRAINING,
        "the broker is shutting down; retry with the same key",
        retry_after_seconds=2.0,
    )


def _stopped(trail: Trail) -> CallError:
    """Say what became of a call that the drain stopped: as its record does."""
    if trail.dispatched and trail.committed and not trail.settled:
        return Failed(Reason.REASON_IN_DOUBT, f"the broker ended while the tool ran: {UNKNOWN_OUTCOME}")
    return _draining()
