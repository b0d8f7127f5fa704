"""One container that lives for one call.

    async with driver.create(spec, call_id) as sandbox:
        outcome = await sandbox.run(start, 10, answer_sign)

Up to `run` nothing of the handler has been executed: init waits for its preamble. On leaving the block, by
whatever path, the stream is closed, then the container killed and removed, and its end confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from sandboxes.container_init import (
    EXIT_BAD_PREAMBLE,
    EXIT_DEADLINE,
    EXIT_HANDLER_FAILED,
    EXIT_IDLE,
    EXIT_NOT_STARTED,
    EXIT_OUTPUT_TOO_LARGE,
    EXIT_STDIN_CLOSED,
    MAGIC,
    PREAMBLE,
)
from sandboxes.conversation import (
    Dialogue,
    FramesInvalid,
    OnProgress,
    OutputTooLarge,
    Stream,
    Transcript,
    cancel_bytes,
    frame_bytes,
)
from sandboxes.engine_calls import EngineCalls, EngineNotFound, EngineStalled
from sandboxes.outcome import (
    AnswerSign,
    OutcomeKind,
    RawOutcome,
    SandboxError,
    SandboxSpec,
    refuse_to_sign,
)
from toolcrib.handler.v1 import handler_pb2

_LOG_SECONDS = 0.05  # for the log to arrive after a good answer
_END_SECONDS = 2.0  # for log and exit code to arrive after a bad end
_KILL_SECONDS = 0.5  # for the kernel to end what was killed; without the right to kill, the engine does it
_MAX_MILLIS = 2**32 - 1

_EXITS = {
    0: "the handler ended without a result",
    EXIT_IDLE: "the sandbox was not used within its idle age",
    EXIT_STDIN_CLOSED: "the sandbox lost its stream",
    EXIT_BAD_PREAMBLE: "the sandbox got no valid preamble; is the base image of another version?",
    EXIT_NOT_STARTED: "the handler could not be started; its log says why",
    EXIT_HANDLER_FAILED: "the handler ended without a result; its log says why",
}

logger = logging.getLogger(__name__)


class DockerSandbox:
    """A container of the Docker Engine.

    Attributes:
        name: What the engine knows it by, from before it exists.
        container_id: Empty until it is made.
        made: When it was made.
        ended: When the kernel confirmed that none of its processes is left; known without the engine.
        gone: When the engine had removed it as well; None before, and where that could not be confirmed.
    """

    def __init__(
        self, calls: EngineCalls, spec: SandboxSpec, name: str, clock: Callable[[], datetime]
    ) -> None:
        self._calls, self._spec, self._clock = calls, spec, clock
        self.name = name
        self.container_id = ""
        self.image_id, self.uid = spec.image_id, spec.uid
        self.made = clock()
        self.ended: datetime | None = None
        self.gone: datetime | None = None
        self._stream: Stream | None = None
        self._process: int | None = None
        self._used = self._started = False
        self._cancel_reason: str | None = None
        self._uncertain = False

    async def make(self, config: dict[str, Any], socket_path: Path) -> None:
        """Create, attach and start the container. Called by the driver.

        Raises:
            SandboxUnavailable: The engine is missing, stalls or refuses.
        """
        try:
            self.container_id = created = await self._calls.create(config, self.name)
        except EngineStalled:
            self._uncertain = True
            raise
        self._stream = await Stream.attach(socket_path, created)
        await self._calls.start(created)
        self._process = await self._open_process()

    async def run(
        self,
        start: handler_pb2.Start,
        deadline_seconds: float,
        answer: AnswerSign = refuse_to_sign,
        on_progress: OnProgress | None = None,
    ) -> RawOutcome:
        """Hold the one conversation of this sandbox.

        Never raises for what the handler does; from here on only the outcome tells what may have happened.

        Args:
            start: The request, with credentials and targets.
            deadline_seconds: When the sandbox ends, also without us: init knows it too. Signing counts.
            answer: Answers each Sign of the handler.
            on_progress: Called with each progress frame.
        """
        assert self._stream is not None, "the driver makes the sandbox first"
        assert not self._used, "a sandbox serves one call"
        self._used = True
        limits = self._spec.limits
        transcript = Transcript(limits.output_kib * 1024, limits.log_kib * 1024)
        dialogue = Dialogue(transcript, self._stream.send, answer, on_progress)
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._begin(self._stream, start, deadline_seconds)
                frame = await _converse(self._stream, dialogue)
        except TimeoutError:
            return _outcome(OutcomeKind.TIMED_OUT, transcript, "the deadline came before a result")
        except OutputTooLarge as error:
            return _outcome(OutcomeKind.OUTPUT_TOO_LARGE, transcript, str(error))
        except FramesInvalid as error:
            return _outcome(OutcomeKind.CRASHED, transcript, str(error))
        except OSError:
            frame = None
        if frame is None:
            return await self._explain_end(transcript)
        return await self._conclude(frame, transcript)

    def cancel(self, reason: str) -> None:
        """Tell the handler that it may stop early; it need not. Waits for nothing; only the first is sent.

        Args:
            reason: For the handler; cut at 200 characters.
        """
        if self._cancel_reason is not None:
            return
        self._cancel_reason = reason
        if self._started and self._stream is not None:
            self._stream.push(cancel_bytes(reason))

    async def end(self) -> bool:
        """Close the stream, kill, remove, and confirm. Called by the driver; safe to call again.

        Returns:
            True when the end is confirmed.
        """
        if self.gone is not None:
            return True
        if self._stream is not None:
            self._stream.close()
        self._kill_process()
        if self._process is not None and await self._process_ended(_KILL_SECONDS):
            self.ended = self.ended or self._clock()
        try:
            await self._calls.remove(self.container_id or self.name)
        except SandboxError as error:
            logger.warning("sandbox %s: its removal is owed: %s", self.name, error)
            return False
        if self._uncertain:  # the engine may make it yet: look again later
            self._uncertain = False
            return False
        if not await self._process_ended(_END_SECONDS):
            return False
        self.gone = self._clock()
        self.ended = self.ended or self.gone
        self._close_process()
        return True

    def _preamble(self, deadline_seconds: float) -> bytes:
        limits = self._spec.limits
        millis = max(1, min(int(deadline_seconds * 1000), _MAX_MILLIS))
        return PREAMBLE.pack(MAGIC, millis, limits.output_kib * 1024, limits.log_kib * 1024)

    async def _begin(self, stream: Stream, start: handler_pb2.Start, deadline_seconds: float) -> None:
        await stream.send(
            self._preamble(deadline_seconds) + frame_bytes(handler_pb2.BrokerFrame(start=start))
        )
        self._started = True
        if self._cancel_reason is not None:
            stream.push(cancel_bytes(self._cancel_reason))

    async def _conclude(self, frame: handler_pb2.HandlerFrame, transcript: Transcript) -> RawOutcome:
        await self._read_log(transcript, _LOG_SECONDS)
        if frame.HasField("result"):
            return RawOutcome(OutcomeKind.RESULT, response=frame.result.response, log=transcript.log())
        if frame.HasField("failure"):
            failure = frame.failure
            return RawOutcome(
                OutcomeKind.FAILURE, failure=failure, log=transcript.log(), detail=f"{failure.code[:64]}"
            )
        return _outcome(OutcomeKind.CRASHED, transcript, "the handler sent an artefact; none are allowed")

    async def _explain_end(self, transcript: Transcript) -> RawOutcome:
        """Find out why the stream ended before a result."""
        try:
            async with asyncio.timeout(_END_SECONDS):
                code, out_of_memory = await self._wait_for_exit()
        except EngineNotFound:
            return _outcome(OutcomeKind.CRASHED, transcript, "the sandbox vanished during the call")
        except (SandboxError, TimeoutError):
            return _outcome(OutcomeKind.CRASHED, transcript, "the engine lost the sandbox during the call")
        if code == EXIT_DEADLINE:
            return _outcome(OutcomeKind.TIMED_OUT, transcript, "the deadline came before a result")
        if code == EXIT_OUTPUT_TOO_LARGE:
            return _outcome(OutcomeKind.OUTPUT_TOO_LARGE, transcript, "more output than its cap")
        if out_of_memory:
            memory = self._spec.limits.memory_mib
            return _outcome(OutcomeKind.CRASHED, transcript, f"out of memory: the limit is {memory} MiB")
        detail = _EXITS.get(code, "the sandbox was ended from outside")
        return _outcome(OutcomeKind.CRASHED, transcript, detail)

    async def _wait_for_exit(self) -> tuple[int, bool]:
        while True:
            state = await self._calls.state(self.container_id)
            if not state["Running"]:
                return int(state["ExitCode"]), bool(state["OOMKilled"])
            await asyncio.sleep(0.02)

    async def _read_log(self, transcript: Transcript, seconds: float) -> None:
        """Take what is still coming; a second answer is ignored like any other noise."""
        assert self._stream is not None
        try:
            async with asyncio.timeout(seconds):
                while (piece := await self._stream.read()) is not None:
                    for _ in transcript.feed(*piece):
                        continue
        except (TimeoutError, OutputTooLarge, FramesInvalid):
            return

    async def _open_process(self) -> int | None:
        """Hold on to init by a descriptor: its end is known even when the engine is not there to ask."""
        pid = int((await self._calls.state(self.container_id))["Pid"])
        if pid <= 0:
            return None
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return None
        if self.container_id in _cgroups_of(pid):
            return descriptor
        os.close(descriptor)  # the engine counts its processes in another namespace, or it ended already
        return None

    def _kill_process(self) -> None:
        """Kill init, and with it the whole sandbox, without asking the engine, where we may."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    async def _process_ended(self, patience_seconds: float) -> bool:
        if self._process is None:
            return True
        poll = select.poll()  # not select(): a broker may have more than 1,024 descriptors
        poll.register(self._process, select.POLLIN)
        until = time.monotonic() + patience_seconds
        while not poll.poll(0):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.005)
        return True

    def _close_process(self) -> None:
        if self._process is not None:
            os.close(self._process)
            self._process = None


async def _converse(stream: Stream, dialogue: Dialogue) -> handler_pb2.HandlerFrame | None:
    """Read until the frame that ends the conversation; None when the stream ends first."""
    while (piece := await stream.read()) is not None:
        if (frame := await dialogue.take(*piece)) is not None:
            return frame
    return None


def _cgroups_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


def _outcome(kind: OutcomeKind, transcript: Transcript, detail: str) -> RawOutcome:
    return RawOutcome(kind, log=transcript.log(), detail=detail)
