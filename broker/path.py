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
import time
from collections.abc import Collection
from dataclasses import dataclass

from broker.brakes import holds
from broker.errors import CallError, Failed, Refused
from broker.model import Answer, Brake, Call, Caller, EgressRules, Grant, Mark
from broker.outlast import outlast
from broker.request import Request
from broker.stages.admit import Admission
from broker.stages.approve import approve
from broker.stages.authenticate import Authenticator
from broker.stages.authorize import Authorizer
from broker.stages.claim import Claimed, Claimer
from broker.stages.gate import Gate
from broker.stages.mint import Minter
from broker.stages.place import Placer
from broker.stages.reserve import Reserver, in_doubt, stop_error, stoppable
from broker.stages.run import Runner
from broker.stages.sanitize import Sanitizer
from broker.stages.settle import Settler
from broker.stages.validate import Validator
from broker.tenure import taken_over
from broker.trail import Recorder, Trail
from toolcrib.v1.reasons_pb2 import Reason

# A stale broker waits this long for its calls to end their sandboxes; the one that took over ends them too.
RETIRE_SECONDS = 10.0
# An answer comes this long after the call's deadline at the latest.
GRACE_SECONDS = 0.5
# Kept of the caller's own deadline, to send an answer in before a call is reserved: a fifth of what is left,
# between these. Half of it is for the store to say that this broker is current.
ANSWER_SECONDS, MOST_ANSWER_SECONDS = 0.1, 0.25


@dataclass(frozen=True, slots=True)
class Stages:
    """The parts of the path that hold something; approve is a function."""

    recorder: Recorder
    authenticate: Authenticator
    admit: Admission
    validate: Validator
    claim: Claimer
    authorize: Authorizer
    gate: Gate
    place: Placer
    reserve: Reserver
    mint: Minter
    run: Runner
    sanitize: Sanitizer
    settle: Settler


class Path:
    """Walks requests from the door to the answer."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._walking: dict[asyncio.Task[Answer], Trail] = {}
        self._own: dict[asyncio.Task[Answer], Trail] = {}
        self.draining = False
        self.retired = False

    @property
    def running(self) -> Collection[Trail]:
        """The trails of all calls that are on their way, those of the broker itself among them."""
        return (*self._walking.values(), *self._own.values())

    async def answer(self, request: Request, trail: Trail | None = None) -> Answer:
        """Answer one request, by its deadline and GRACE_SECONDS: whatever stalls, its caller hears of it.

        A caller that hangs up stops it, unless it is a write that may have begun.

        Raises:
            Refused: Nothing happened.
            Failed: It was allowed, then went wrong.
        """
        if self.retired:
            raise taken_over()
        if self.draining:
            raise _draining()
        trail = trail or self.begin(request)
        task = asyncio.create_task(self._walk(request, trail), name=trail.call_id)
        self._walking[task] = trail
        task.add_done_callback(self._forget)
        try:
            async with asyncio.timeout(None) as trail.patience:
                trail.answer_by(request.deadline - _keep_back(request))
                return self._hand_out(await asyncio.shield(task), trail)
        except TimeoutError:
            # A process that was stopped wakes with its time up, and perhaps with nothing left to say.
            if not await self._stages.recorder.is_current(_keep_back(request) / 2):
                raise taken_over() from None
            return self._hand_out(_answer_late(task, trail), trail)
        except asyncio.CancelledError:
            if task.cancelled() and not _is_cancelled():  # this broker stopped it; its caller still waits
                raise (taken_over() if self.retired else _stopped(trail)) from None
            if not trail.committed:
                task.cancel()
            raise

    def begin(self, request: Request) -> Trail:
        """Make the trail of a request that just arrived, so that even a refusal has a call id."""
        return self._stages.recorder.begin(request)

    def begin_own(self, method: str, caller: Caller, environment: str, resolves: str) -> Trail:
        """Make the trail of a call that the broker itself makes, about a call in doubt."""
        trail = self._stages.recorder.begin_own(method)
        trail.caller, trail.environment, trail.resolves = caller, environment, resolves
        return trail

    async def answer_own(self, call: Call, trail: Trail, egress: EgressRules = None) -> Answer:
        """Carry out a call of the broker itself: recorded, sandboxed and ended like any other.

        It comes from no request, so there is nothing to authenticate, and no grant is asked; the operator's
        limits of the tenant hold, and so does a block of the agent for whom a call is sent again.

        Args:
            call: What the broker makes.
            trail: Its.
            egress: Rules over its HTTP requests, beside the manifest's.

        Raises:
            Refused: The version, the tenant's limits or a brake do not allow it.
            Failed: It went wrong.
        """
        trail.call = call
        self._stages.authorize.brakes.check_caller(call.caller)
        task = asyncio.create_task(self._walk_own(call, trail, egress), name=trail.call_id)
        self._own[task] = trail
        task.add_done_callback(self._forget)
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            task.cancel()
            await outlast(asyncio.wait((task,)))
            raise
        if task.cancelled() and trail.stopped_by is not None:
            raise stop_error(trail)  # before its first step
        return self._hand_out(task.result(), trail)

    def stop(self, brake: Brake) -> dict[asyncio.Task[Answer], Trail]:
        """Stop every call that a brake, which is in force by now, holds back.

        No call slips through: one that authenticates from now on is refused, and all others are here. One
        whose answer is durable is not stopped any more, only not told.

        Returns:
            The calls that were stopped, now or by an earlier brake, and have not ended yet.
        """
        found = {task: trail for task, trail in self._tasks().items() if _is_held(brake, trail)}
        for task, trail in found.items():
            if trail.stopped_by is not None:
                continue
            trail.stopped_by = brake
            if not trail.settled:
                trail.marks.append(Mark.STOPPED)
                task.cancel()
        return {task: trail for task, trail in found.items() if Mark.STOPPED in trail.marks}

    def tell_running(self, reason: str) -> int:
        """Tell every call that has credentials that they are gone, and mark it; its tool may stop early.

        Returns:
            How many were told.
        """
        bereft = [trail for trail in self.running if trail.leases and not trail.settled]
        for trail in bereft:
            if Mark.SESSION_LOST not in trail.marks:
                trail.marks.append(Mark.SESSION_LOST)
            if trail.tell is not None:
                trail.tell(reason)
        return len(bereft)

    async def _walk_own(self, call: Call, trail: Trail, egress: EgressRules) -> Answer:
        async with self._stages.recorder.open(trail), stoppable(trail):
            grant = self._stages.authorize.allow_own(call, trail, egress)
            return await self._carry_out(call, grant, Claimed(None, trail.attempt), trail)
        raise Failed(Reason.REASON_UNSPECIFIED, "unreachable: the lines above answer or raise")

    async def retire(self) -> None:
        """Stop at once: another broker has taken over. Sandboxes end; nothing more is recorded here."""
        self.retired = True
        running = set(self._walking)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=RETIRE_SECONDS)

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

    def _hand_out(self, answer: Answer, trail: Trail) -> Answer:
        """Let an answer leave, unless its caller was blocked, or its tool held back, before it did.

        Raises:
            CallError: What the call is told instead.
        """
        if trail.stopped_by is None and trail.caller is not None:
            brakes = self._stages.authorize.brakes
            trail.stopped_by = brakes.find_block(trail.caller)
            if trail.stopped_by is None and not answer.replayed:
                trail.stopped_by = brakes.find_hold(trail.caller.tenant, trail.method)
        if trail.stopped_by is not None:
            raise stop_error(trail)
        return answer

    def _tasks(self) -> dict[asyncio.Task[Answer], Trail]:
        return {task: trail for task, trail in (self._walking | self._own).items() if not task.done()}

    def _forget(self, task: asyncio.Task[Answer]) -> None:
        self._walking.pop(task, None)
        self._own.pop(task, None)
        if not task.cancelled():
            task.exception()  # a caller that hung up does not read it; the record has it

    async def _walk(self, request: Request, trail: Trail) -> Answer:
        stages = self._stages
        async with stages.recorder.open(trail), stoppable(trail):
            await trail.at("authenticate")
            if request.peer.unverified_authorization:
                await stages.authenticate.prepare(request.peer)
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
                    return await self._carry_out(call, grant, claim, trail)
        raise Failed(Reason.REASON_UNSPECIFIED, "unreachable: every way through the stages ends above")

    async def _carry_out(self, call: Call, grant: Grant, claim: Claimed, trail: Trail) -> Answer:
        stages = self._stages
        trail.answer_by(call.deadline + GRACE_SECONDS)
        await trail.at("reserve")
        with stages.place(call) as place:  # refused here, nothing is reserved; a cold one is made meanwhile
            async with stages.reserve(call, grant, claim, trail) as reservation:
                await trail.at("mint")
                async with stages.mint(call, reservation, trail) as leases:
                    await trail.at("run")
                    raw_output = await stages.run(call, reservation, leases, place, trail)
                    await trail.at("sanitize")
                    answer = await stages.sanitize(call, raw_output, leases, trail)
                    await trail.at("settle")
                    trail.answer = answer
                    await stages.settle(answer, trail)
                    return answer
        raise Failed(Reason.REASON_UNSPECIFIED, "unreachable: the stages above answer or raise")


def _keep_back(request: Request) -> float:
    """Say how long before its caller's deadline a call that stalls is answered, in seconds."""
    left = request.deadline - time.monotonic()
    return min(max(left / 5, ANSWER_SECONDS), MOST_ANSWER_SECONDS)


def _answer_late(task: asyncio.Task[Answer], trail: Trail) -> Answer:
    """Answer a call whose time is up while something stalls; what it opened is taken away behind the answer.

    Raises:
        Failed: DEADLINE_EXCEEDED, nothing ran, or a read was stopped.
        Refused: IN_PROGRESS, a write whose end is not known yet, its own or that of an earlier call.
    """
    if task.done():
        return task.result()
    if trail.settled and trail.answer is not None:
        return trail.answer  # durable; what still goes on is the end of its leases
    if trail.committed:
        raise Refused(
            Reason.REASON_IN_PROGRESS,
            "the time is up and it is not known yet how the write ended; ask again with the same key",
            retry_after_seconds=1.0,
        )
    task.cancel()
    if trail.earlier_call_id:
        raise Refused(
            Reason.REASON_IN_PROGRESS,
            "the time is up and it is not known yet how the first call with this key ended; ask again with "
            "the same key",
            retry_after_seconds=1.0,
        )
    raise Failed(
        Reason.REASON_DEADLINE_EXCEEDED,
        "the time was up before the tool had answered; no write was begun. Ask again with the same key",
        retry_after_seconds=1.0,
    )


def _is_held(brake: Brake, trail: Trail) -> bool:
    """Tell whether a brake holds a call back; one that has not authenticated yet is refused when it does."""
    caller = trail.call.caller if trail.call else trail.caller
    return caller is not None and holds(brake, caller, trail.method)


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
    """Say what became of a call that this broker stopped: as its record does."""
    if trail.stopped_by is not None:  # while its end was written down
        return stop_error(trail)
    if trail.ran and trail.committed and not trail.settled:
        return in_doubt("the broker ended while the tool ran")
    return _draining()
