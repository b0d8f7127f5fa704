"""Stage 9, run: intent durable, then one sandbox, one way out, one deadline → raw output.

Rules:
1. Sandbox and egress are there first, without effect; then DISPATCHED is committed; then the tool starts.
2. What is committed names the sandbox, so that whoever takes over can end it.
3. The sandbox has ended when the block ends, confirmed; then its egress is closed; then leases are revoked.
   Where there is neither egress nor lease, the end goes on beside the answer, up to 0.1 s later while calls
   follow each other: there is nothing left that the tool could act by.
4. A write that ended in no known way is IN_DOUBT; a read just failed. Up to "start" nothing ran. A process
   that dies behind the way out ends the call like that, unless the tool's result came first.
5. Log and errors leave without the secrets of this call. How a handler's process ended is told as one of few
   kinds: an exit code of its choice would be a message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from broker.errors import CallError, Failed
from broker.leaks import LeakAlarm
from broker.model import Call, Mark, Reservation, SandboxRecord
from broker.outlast import outlast
from broker.redaction import NOTHING, REDACTED, Found, Redaction, off_loop
from broker.stages.http_access import make_accesses
from broker.stages.reserve import NothingRan, in_doubt, runs_at_once
from broker.stages.start_frame import Signing, start_frame
from broker.store.protocol import Store
from broker.trail import Trail
from credentials.lease import Lease
from sandboxes.egress.process import Egress, EgressError, EgressLost, EgressProcess
from sandboxes.nests import Nest
from sandboxes.outcome import OutcomeKind, RawArtefact, RawOutcome, SandboxError
from sandboxes.pool_place import Place
from sandboxes.proxy.access import HttpAccess
from sandboxes.sandbox import Sandbox
from toolcrib.handler.v1 import handler_pb2
from toolcrib.v1.reasons_pb2 import Reason
from tools.content.text import clean_text

log = logging.getLogger(__name__)

# A tool that has less time than this is not started.
MIN_RUN_SECONDS = 0.05
# The HTTP proxy ends by itself what this broker does not end in time.
_WAY_OUT_MARGIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class RawOutput:
    """What a tool answered; nothing of it is checked yet.

    Attributes:
        response: The response message's bytes.
        artefacts: The files that it gave back, within their caps.
    """

    response: bytes
    artefacts: tuple[RawArtefact, ...] = ()


class Runner:
    """Runs one call's tool once."""

    def __init__(self, egress: EgressProcess, store: Store, alarm: LeakAlarm) -> None:
        self._egress = egress
        self._store = store
        self._alarm = alarm
        self._ending: set[asyncio.Task[None]] = set()

    async def __call__(
        self, call: Call, reservation: Reservation, leases: Sequence[Lease], place: Place, trail: Trail
    ) -> RawOutput:
        """Run the tool, in the sandbox that its place has, and return its raw result.

        Raises:
            NothingRan: SANDBOX_UNAVAILABLE; the tool did not start.
            Failed: DEADLINE_EXCEEDED, IN_DOUBT, OUTPUT_TOO_LARGE, TOOL_CRASHED or TOOL_FAILED.
        """
        redaction = Redaction(leases)
        try:
            outcome = await self._run(call, reservation, leases, place, trail)
        except (SandboxError, EgressError) as error:
            if trail.ran:
                raise _lost(call, redaction, error) from error
            raise NothingRan(
                Reason.REASON_SANDBOX_UNAVAILABLE,
                f"no sandbox could be made, nothing ran: {redaction.clean(str(error)).text}",
                retry_after_seconds=2.0,
            ) from error
        said = await off_loop(len(outcome.log), lambda: redaction.clean_log(outcome.log))
        trail.tool_log = said.text
        if outcome.log_truncated or outcome.kind is OutcomeKind.OUTPUT_TOO_LARGE:
            trail.marks.append(Mark.TRUNCATED)
        await self._alarm.sound(trail, Mark.SECRET_IN_LOG, said.found)
        if outcome.kind is OutcomeKind.RESULT:
            return RawOutput(outcome.response, outcome.artefacts)
        size = outcome.failure.ByteSize() if outcome.failure else 0
        failure, found = await off_loop(size, lambda: _as_error(outcome, call, redaction))
        await self._alarm.sound(trail, Mark.SECRET_IN_ERROR, found)
        raise failure

    async def _run(
        self, call: Call, reservation: Reservation, leases: Sequence[Lease], place: Place, trail: Trail
    ) -> RawOutcome:
        """Hold sandbox and way out for one conversation; both are gone when it returns."""
        outcome: RawOutcome | None = None
        egress: Egress | None = None
        made: list[Sandbox] = []
        trail.sandboxes_now = partial(_records, made)
        accesses = make_accesses(call, reservation.grant, leases)
        try:
            async with AsyncExitStack() as stack:
                sandbox, nest = await _wait_for_sandbox(call, place)
                made.append(sandbox)
                egress = await self._open_way_out(call, (sandbox, nest), accesses, stack)
                trail.tell = sandbox.cancel
                _check_fit(call, trail)
                start = start_frame(call, reservation, leases, egress)
                await self._dispatch(call, made, trail)
                left = max(call.deadline - time.monotonic(), 0.001)
                conversation = sandbox.run(start, left, Signing(call.call_id, leases))
                outcome = await _converse(conversation, call, egress)
                if egress is None and runs_at_once(call) and outcome.kind is OutcomeKind.RESULT:
                    # Nothing is revoked after it: the kernel's milliseconds are not the caller's.
                    lull = None if call.key else place.let_calls_pass(sandbox)
                    trail.ending = self._end_beside(stack.pop_all(), call, lull)
        except (SandboxError, EgressError) as error:
            # What goes wrong at the ends does not change what the tool said.
            cause = Redaction(leases).clean(str(error)).text
            log.warning("end of the sandbox", extra={"call_id": call.call_id, "cause": cause})
            if outcome is None:
                raise
        finally:
            trail.tell = None
            _note_connections(egress, trail)
        return outcome

    async def _dispatch(self, call: Call, made: Sequence[Sandbox], trail: Trail) -> None:
        """Make it durable that the tool may run from here on."""
        trail.committed = call.is_write
        await trail.at("dispatch")
        await self._store.dispatch(call.call_id, trail.leases, _records(made))
        await trail.at("start")
        trail.ran = True

    def _end_beside(
        self, ends: AsyncExitStack, call: Call, lull: Coroutine[Any, Any, None] | None
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(_end_all(ends, call, lull), name=f"end of {call.call_id}'s sandbox")
        self._ending.add(task)  # nobody else may hold it
        task.add_done_callback(self._ending.discard)
        return task

    async def _open_way_out(
        self,
        call: Call,
        held: tuple[Sandbox, Nest | None],
        accesses: Sequence[HttpAccess],
        stack: AsyncExitStack,
    ) -> Egress | None:
        """Open what the tool may reach; sandbox and way out end with the stack, in this order."""
        sandbox, nest = held
        stack.push_async_callback(_end, sandbox, call)  # also when the way out cannot be opened
        names = call.version.manifest.method(call.contract.method).targets
        if not names:
            return None
        if nest is None:
            raise EgressError("the sandbox was made without a way out")
        seconds = max(call.deadline - time.monotonic(), 0.0) + _WAY_OUT_MARGIN_SECONDS
        opening = self._egress.open(call.call_id, nest, names, accesses, seconds)
        egress = await stack.enter_async_context(opening)
        stack.push_async_callback(_end, sandbox, call)
        return egress


async def _converse(
    conversation: Coroutine[Any, Any, RawOutcome], call: Call, egress: Egress | None
) -> RawOutcome:
    """Hold a conversation until it ends, or until its way out is lost.

    A read whose way out broke under it is told just that, and not what its tool made of it. A write's own
    word about what it did stands.

    Raises:
        EgressLost: A process behind the way out died before the tool had said how it ended.
    """
    if egress is None:
        return await conversation
    running = asyncio.create_task(conversation)
    losing = asyncio.create_task(egress.lost.wait())
    try:
        await asyncio.wait((running, losing), return_when=asyncio.FIRST_COMPLETED)
        outcome = running.result() if running.done() else None
    finally:
        running.cancel()
        losing.cancel()
        await asyncio.wait((running, losing))
    failed = not call.is_write and outcome is not None and outcome.kind is not OutcomeKind.RESULT
    if outcome is None or (failed and egress.is_broken):
        raise EgressLost("a process behind it died")
    return outcome


def _note_connections(egress: Egress | None, trail: Trail) -> None:
    if egress is not None:
        trail.connections, trail.connections_dropped = egress.connections, egress.uncounted


async def _wait_for_sandbox(call: Call, place: Place) -> tuple[Sandbox, Nest | None]:
    """Wait for the sandbox, no longer than the call's time.

    Raises:
        NothingRan: DEADLINE_EXCEEDED.
        SandboxError: None can be made.
    """
    try:
        async with asyncio.timeout(max(call.deadline - time.monotonic(), 0.0)):
            return await place.sandbox()
    except TimeoutError as error:
        raise _too_late() from error


async def _end(sandbox: Sandbox, call: Call) -> None:
    """End a sandbox and wait until that is confirmed, whoever goes away meanwhile."""
    if sandbox.gone is None and not await outlast(sandbox.end()):
        log.warning("end of the sandbox is not confirmed", extra={"call_id": call.call_id})


async def _end_all(ends: AsyncExitStack, call: Call, lull: Coroutine[Any, Any, None] | None) -> None:
    """End what a call had while its answer goes on; what goes wrong there does not change the answer."""
    try:
        if lull is not None:
            await lull
        await ends.aclose()
    except (SandboxError, EgressError) as error:
        log.warning("end of the sandbox", extra={"call_id": call.call_id, "cause": str(error)})


def _records(made: Sequence[Sandbox]) -> list[SandboxRecord]:
    return [SandboxRecord(s.container_id, s.image_id, s.made, s.gone) for s in made]


def _check_fit(call: Call, trail: Trail) -> None:
    """See that no tool is started only to fail: for a write that would be a doubt."""
    if call.deadline - time.monotonic() < MIN_RUN_SECONDS:
        raise _too_late()
    if Mark.SESSION_LOST in trail.marks:
        raise NothingRan(
            Reason.REASON_CREDENTIALS_UNAVAILABLE,
            "Vault ended the broker's session and with it the call's credentials, nothing ran; ask again "
            "with the same key",
            retry_after_seconds=1.0,
        )


def _too_late() -> NothingRan:
    return NothingRan(
        Reason.REASON_DEADLINE_EXCEEDED,
        "the time was up before the tool could start, nothing ran; ask again with the same key",
        retry_after_seconds=1.0,
    )


def _lost(call: Call, redaction: Redaction, error: Exception) -> Failed:
    what = "way out" if isinstance(error, EgressError) else "sandbox"
    if call.is_write:
        return in_doubt(f"the {what} was lost")
    return Failed(
        Reason.REASON_SANDBOX_UNAVAILABLE,
        f"the {what} was lost: {redaction.clean(str(error)).text}",
        retry_after_seconds=2.0,
    )


def _as_error(outcome: RawOutcome, call: Call, redaction: Redaction) -> tuple[CallError, Found]:
    """Say how a tool ended without a result; and whose secrets it had put into what it said."""
    if outcome.kind is OutcomeKind.FAILURE and outcome.failure is not None:
        return _tool_failure(outcome.failure, call, redaction)
    return _crash(outcome, call, redaction), NOTHING


def _crash(outcome: RawOutcome, call: Call, redaction: Redaction) -> CallError:
    if call.is_write:
        how = outcome.kind.value.lower().replace("_", " ")
        return in_doubt(f"the tool ended without an answer ({how})")
    if outcome.kind is OutcomeKind.TIMED_OUT:
        return Failed(
            Reason.REASON_DEADLINE_EXCEEDED, "the tool did not end in time", retry_after_seconds=1.0
        )
    if outcome.kind is OutcomeKind.OUTPUT_TOO_LARGE:
        return Failed(Reason.REASON_OUTPUT_TOO_LARGE, "the tool's output is over its limit; ask for less")
    detail = redaction.clean(outcome.detail).text[:200]
    return Failed(Reason.REASON_TOOL_CRASHED, f"the tool ended without an answer: {detail}")


def _tool_failure(failure: handler_pb2.Failure, call: Call, redaction: Redaction) -> tuple[CallError, Found]:
    code, message, found = _clean_failure(failure, redaction)
    unknown = failure.effect in (handler_pb2.EFFECT_DONE_UNSPECIFIED, handler_pb2.EFFECT_UNKNOWN)
    if call.is_write and unknown:
        return in_doubt(f"{code}: {message}", tool_code=code), found
    effect = "APPLIED" if failure.effect == handler_pb2.EFFECT_APPLIED else "NONE"
    failed = Failed(
        Reason.REASON_TOOL_FAILED,
        f"{code}: {message}",
        retry_after_seconds=1.0 if failure.retryable else None,
        details={"tool_code": code, "effect": effect},
    )
    return failed, found


def _clean_failure(failure: handler_pb2.Failure, redaction: Redaction) -> tuple[str, str, Found]:
    """Take what cannot be seen and what must not be seen out of a tool's code and message."""
    code, message = (redaction.clean(clean_text(text)[0]) for text in (failure.code, failure.message))
    # Cut only now: what is cut before could be the end of a secret whose beginning stays.
    if across := redaction.find(code.text + message.text):  # a half in each
        return REDACTED, REDACTED, across | code.found | message.found
    return code.text[:64], message.text[:1000], code.found | message.found
