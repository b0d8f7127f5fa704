"""Stage 9, run: intent durable, then one sandbox, one way out, one deadline → raw output.

Rules:
1. Container and egress are made first, without effect; then DISPATCHED is committed; then the tool starts.
2. What is committed names the container, so that whoever takes over can end it.
3. Sandbox and egress are gone when the block ends, before any lease is revoked.
4. A write that ended in no known way is IN_DOUBT; a read just failed. Up to "start" nothing ran.
5. Log and errors leave without the secrets of this call. How a handler's process ended is told as one of few
   kinds: an exit code of its choice would be a message.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from sandboxes.sandbox import Driver, Sandbox
from broker.errors import CallError, Failed
from broker.leaks import LeakAlarm
from broker.model import Call, Mark, Reservation, SandboxRecord
from broker.redaction import NOTHING, REDACTED, Found, Redaction, off_loop
from broker.stages.reserve import NothingRan, in_doubt
from broker.stages.start_frame import Signing, start_frame
from broker.store.protocol import Store
from broker.trail import Trail
from credentials.lease import Lease
from sandboxes.egress.process import (
    Egress,
    EgressError,
    EgressProcess,
)
from sandboxes.outcome import OutcomeKind, RawOutcome, SandboxError, SandboxSpec
from toolcrib.handler.v1 import handler_pb2
from toolcrib.v1.reasons_pb2 import Reason
from tools.text import clean_text

log = logging.getLogger(__name__)

# A tool that has less time than this is not started.
MIN_RUN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Machinery:
    """What a call runs on: the driver of sandboxes and the egress process."""

    driver: Driver
    egress: EgressProcess


class Runner:
    """Runs one call's tool once."""

    def __init__(self, machinery: Machinery, store: Store, alarm: LeakAlarm) -> None:
        self._machinery = machinery
        self._store = store
        self._alarm = alarm

    async def __call__(
        self, call: Call, reservation: Reservation, leases: Sequence[Lease], trail: Trail
    ) -> bytes:
        """Run the tool and return the raw bytes of its result.

        Raises:
            NothingRan: SANDBOX_UNAVAILABLE; the tool did not start.
            Failed: DEADLINE_EXCEEDED, IN_DOUBT, OUTPUT_TOO_LARGE, TOOL_CRASHED or TOOL_FAILED.
        """
        redaction = Redaction(leases)
        try:
            outcome = await self._run(call, reservation, leases, trail)
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
        await self._alarm.sound(trail, Mark.SECRET_IN_LOG, said.found)
        if outcome.kind is OutcomeKind.RESULT:
            return outcome.response
        size = outcome.failure.ByteSize() if outcome.failure else 0
        failure, found = await off_loop(size, lambda: _as_error(outcome, call, redaction))
        await self._alarm.sound(trail, Mark.SECRET_IN_ERROR, found)
        raise failure

    async def _run(
        self, call: Call, reservation: Reservation, leases: Sequence[Lease], trail: Trail
    ) -> RawOutcome:
        """Hold sandbox and way out for one conversation; both are gone when it returns."""
        outcome: RawOutcome | None = None
        made: list[Sandbox] = []
        try:
            async with AsyncExitStack() as stack:
                sandbox, egress = await self._prepare(call, stack)
                made.append(sandbox)
                trail.tell = sandbox.cancel
                _check_fit(call, trail)
                start = start_frame(call, reservation, leases, egress)
                trail.committed = call.is_write
                await trail.at("dispatch")
                await self._store.dispatch(call.call_id, trail.leases, _records(made))
                await trail.at("start")
                trail.ran = True
                left = max(call.deadline - time.monotonic(), 0.001)
                outcome = await sandbox.run(start, left, Signing(call.call_id, leases))
        except (SandboxError, EgressError) as error:
            # What goes wrong at the ends does not change what the tool said.
            cause = Redaction(leases).clean(str(error)).text
            log.warning("end of the sandbox", extra={"call_id": call.call_id, "cause": cause})
            if outcome is None:
                raise
        finally:
            trail.tell = None
            trail.sandboxes = _records(made)
        return outcome

    async def _prepare(self, call: Call, stack: AsyncExitStack) -> tuple[Sandbox, Egress | None]:
        manifest = call.version.manifest
        uid = self._machinery.driver.allocate_uid()
        names = manifest.method(call.contract.method).targets
        egress = None
        if names:
            egress = await stack.enter_async_context(self._machinery.egress.open(call.call_id, uid, names))
        spec = SandboxSpec(
            image_id=call.version.image_id,
            command=tuple(manifest.image.command),
            limits=manifest.limits,
            uid=uid,
            socket_dir=egress.socket_dir if egress else None,
        )
        sandbox = await stack.enter_async_context(self._machinery.driver.create(spec, call.call_id))
        return sandbox, egress


def _records(made: Sequence[Sandbox]) -> list[SandboxRecord]:
    return [SandboxRecord(s.container_id, s.image_id, s.made, s.gone) for s in made]


def _check_fit(call: Call, trail: Trail) -> None:
    """See that no tool is started only to fail: for a write that would be a doubt."""
    if call.deadline - time.monotonic() < MIN_RUN_SECONDS:
        raise NothingRan(
            Reason.REASON_DEADLINE_EXCEEDED,
            "the time was up before the tool could start, nothing ran; ask again with the same key",
            retry_after_seconds=1.0,
        )
    if Mark.SESSION_LOST in trail.marks:
        raise NothingRan(
            Reason.REASON_CREDENTIALS_UNAVAILABLE,
            "Vault ended the broker's session and with it the call's credentials, nothing ran; ask again "
            "with the same key",
            retry_after_seconds=1.0,
        )


def _lost(call: Call, redaction: Redaction, error: Exception) -> Failed:
    if call.is_write:
        return in_doubt("the sandbox was lost")
    return Failed(
        Reason.REASON_SANDBOX_UNAVAILABLE,
        f"the sandbox was lost: {redaction.clean(str(error)).text}",
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
