"""The one call of a sandbox, whatever the runtime: birth, warming up, the conversation, and how it ended.

exchange = Exchange(stream, spec, why_ended)
exchange.be_born()              # init starts the handler
await exchange.warm_up(10)      # optional: wait until it says that it is loaded
outcome = await exchange.run(start, 2.0, answer_sign)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from sandboxes.artefacts import ArtefactRefused, Basket
from sandboxes.container_init import (
    BIRTH,
    BIRTH_MAGIC,
    CALL,
    CALL_MAGIC,
    EXIT,
    EXIT_BAD_PREAMBLE,
    EXIT_DEADLINE,
    EXIT_HANDLER_FAILED,
    EXIT_IDLE,
    EXIT_NOT_STARTED,
    EXIT_OUTPUT_TOO_LARGE,
    EXIT_STDIN_CLOSED,
    FLAG_PROXY,
    FLAG_PROXY_IS_THERE,
    FRAMES,
    LOG,
)
from sandboxes.conversation import (
    Dialogue,
    FramesInvalid,
    OnProgress,
    OutputTooLarge,
    Transcript,
    cancel_bytes,
    frame_bytes,
)
from sandboxes.inner_door import open_inner_door
from sandboxes.outcome import (
    AnswerSign,
    Limits,
    OutcomeKind,
    RawOutcome,
    SandboxSpec,
    SandboxUnavailable,
    refuse_to_sign,
)
from sandboxes.stream import Stream, StreamBroken
from toolcrib.handler.v1 import handler_pb2

_MAX_MILLIS = 2**32 - 1
_EXITS = {
    0: "the handler ended without a result",
    EXIT_IDLE: "the sandbox was not used within its idle age",
    EXIT_STDIN_CLOSED: "the sandbox lost its stream",
    EXIT_BAD_PREAMBLE: "the sandbox got no valid preamble; is the base image of another version?",
    EXIT_NOT_STARTED: "the handler could not be started; its log says why",
    EXIT_HANDLER_FAILED: "the handler ended without a result; its log says why",
}

_FRAME_BYTES = 1024
"""What a frame takes beside an artefact's content: its length, the file's name and type."""

WhyEnded = Callable[[], Awaitable[str]]
"""Asks the runtime what ended a sandbox that did not say so itself; "" when nothing is known."""


def output_cap(limits: Limits) -> int:
    """The most bytes that a handler may say in frames, its artefacts among them."""
    artefacts = limits.artefacts and limits.artefacts * _FRAME_BYTES + limits.artefact_kib * 1024
    return limits.output_kib * 1024 + artefacts


class Exchange:
    """What is said with one sandbox."""

    def __init__(self, stream: Stream, spec: SandboxSpec, why_ended: WhyEnded) -> None:
        self._stream, self._spec, self._why_ended = stream, spec, why_ended
        self._output_cap = output_cap(spec.limits)
        self._transcript = Transcript(self._output_cap, spec.limits.log_kib * 1024)
        self._basket = Basket(spec.limits) if spec.limits.artefacts else None
        self._dialogue = Dialogue(self._transcript, stream.send, refuse_to_sign, self._basket)
        self._used = self._started = False
        self._cancel_reason: str | None = None
        self._exit_code: int | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether it can still serve a call: not used, not ended, and its handler has said nothing."""
        return not self._used and self._stream.is_open and FRAMES not in self._stream.peek()

    def be_born(self, flags: int = 0, network_of: int | None = None) -> None:
        """Have init start the handler, and what the spec wants beside it.

        Args:
            flags: What the runtime wants of init.
            network_of: A pidfd of init, where its network is one of this kernel's.
        """
        if self._spec.has_proxy:
            flags |= FLAG_PROXY_IS_THERE if self._open_door(network_of) else FLAG_PROXY
        idle_millis = int(self._spec.idle_seconds * 1000)
        # One byte more of the log, so that it is known when it was cut.
        caps = self._output_cap, self._spec.limits.log_kib * 1024 + 1
        self._stream.push(BIRTH.pack(BIRTH_MAGIC, max(1, min(idle_millis, _MAX_MILLIS)), *caps, flags))

    def _open_door(self, network_of: int | None) -> bool:
        """Have the proxy's place inside taken before a handler could take it; connections wait there."""
        if network_of is None or self._spec.take_door is None:
            return False
        door = open_inner_door(network_of)
        if door is None:
            return False
        self._spec.take_door(door)
        return True

    async def warm_up(self, patience_seconds: float) -> None:
        """Wait until the handler says that it is loaded.

        Raises:
            SandboxUnavailable: It ended, took too long, or the handler said something else.
        """
        try:
            async with asyncio.timeout(patience_seconds):
                while not self._dialogue.loaded and (piece := await self._stream.read()) is not None:
                    self._note_exit(*piece)
                    self._dialogue.take_early(*piece)
        except TimeoutError:
            raise SandboxUnavailable("the handler does not say that it is loaded") from None
        except (FramesInvalid, OutputTooLarge, StreamBroken) as error:
            raise SandboxUnavailable(str(error)) from error
        if not self._dialogue.loaded:
            raise SandboxUnavailable(f"the handler ended before its call: {self._transcript.log()[-300:]}")
        if FRAMES in self._stream.peek():
            raise SandboxUnavailable("the handler spoke before its call")

    async def run(
        self,
        start: handler_pb2.Start,
        deadline_seconds: float,
        answer: AnswerSign,
        on_progress: OnProgress | None = None,
    ) -> RawOutcome:
        """Hold the conversation. Raises for nothing that the handler does.

        Args:
            start: The request, with credentials and targets.
            deadline_seconds: When the sandbox ends, also without us: init knows it too. Signing counts.
            answer: Answers each Sign of the handler.
            on_progress: Called with each progress frame.
        """
        assert not self._used, "a sandbox serves one call"
        spoke_early = self._dialogue.loaded and not self.is_fresh and self._stream.is_open
        self._used = True
        if spoke_early:
            return self._outcome(OutcomeKind.CRASHED, "the handler spoke before its call")
        self._dialogue.begin(answer, on_progress)
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._begin(start, deadline_seconds)
                frame = await self._converse()
                if self._basket is not None:
                    await asyncio.to_thread(self._basket.check_ratios)
        except TimeoutError:
            return self._outcome(OutcomeKind.TIMED_OUT, "the deadline came before a result")
        except (OutputTooLarge, ArtefactRefused) as error:
            return self._outcome(OutcomeKind.OUTPUT_TOO_LARGE, str(error))
        except (FramesInvalid, StreamBroken) as error:
            return self._outcome(OutcomeKind.CRASHED, str(error))
        except OSError:
            frame = None
            await self._read_last_words()
        return await self._explain_end() if frame is None else self._conclude(frame)

    def cancel(self, reason: str) -> None:
        """Tell the handler that it may stop early; it need not. Waits for nothing; only the first is sent.

        Args:
            reason: For the handler; cut at 200 characters.
        """
        if self._cancel_reason is None:
            self._cancel_reason = reason
            if self._started:
                self._stream.push(cancel_bytes(reason))

    async def _begin(self, start: handler_pb2.Start, deadline_seconds: float) -> None:
        millis = max(1, min(int(deadline_seconds * 1000), _MAX_MILLIS))
        frame = frame_bytes(handler_pb2.BrokerFrame(start=start))
        await self._stream.send(CALL.pack(CALL_MAGIC, millis) + frame)
        self._started = True
        if self._cancel_reason is not None:
            self._stream.push(cancel_bytes(self._cancel_reason))

    async def _converse(self) -> handler_pb2.HandlerFrame | None:
        """Read until the frame that ends the conversation; None when the stream ends first."""
        while (piece := await self._stream.read()) is not None:
            self._note_exit(*piece)
            if (frame := await self._dialogue.take(*piece)) is not None:
                return frame
            await asyncio.sleep(0)  # a flood of frames must not keep the loop from other calls
        return None

    async def _read_last_words(self) -> None:
        """Read log and exit code of a sandbox that had ended before anything could be sent to it."""
        with contextlib.suppress(StreamBroken):
            while not self._stream.is_open and (piece := await self._stream.read()) is not None:
                self._note_exit(*piece)
                if piece[0] == LOG:
                    list(self._transcript.feed(*piece))

    def _note_exit(self, channel: int, data: bytes) -> None:
        if channel == EXIT and data:
            self._exit_code = data[0]

    def _conclude(self, frame: handler_pb2.HandlerFrame) -> RawOutcome:
        if frame.HasField("result"):
            return self._outcome(OutcomeKind.RESULT, "", response=frame.result.response)
        code = frame.failure.code[:64]
        return self._outcome(OutcomeKind.FAILURE, code, failure=frame.failure)

    async def _explain_end(self) -> RawOutcome:
        """Say why the stream ended before a result."""
        code = self._exit_code
        if code == EXIT_DEADLINE:
            return self._outcome(OutcomeKind.TIMED_OUT, "the deadline came before a result")
        if code == EXIT_OUTPUT_TOO_LARGE:
            return self._outcome(OutcomeKind.OUTPUT_TOO_LARGE, "more output than its cap")
        if code in (None, EXIT_HANDLER_FAILED) and (why := await self._why_ended()):
            return self._outcome(OutcomeKind.CRASHED, why)
        ended = "the sandbox was ended from outside"
        return self._outcome(OutcomeKind.CRASHED, ended if code is None else _EXITS.get(code, ended))

    def _outcome(
        self,
        kind: OutcomeKind,
        detail: str,
        *,
        response: bytes = b"",
        failure: handler_pb2.Failure | None = None,
    ) -> RawOutcome:
        said, result = self._transcript, kind is OutcomeKind.RESULT
        return RawOutcome(
            kind,
            response=response,
            failure=failure,
            log=said.log(),
            detail=detail,
            log_truncated=said.log_truncated,
            artefacts=tuple(self._basket.files) if result and self._basket else (),
        )


class Conversing:
    """What a sandbox of every runtime does by its exchange alone."""

    _exchange: Exchange | None = None

    async def warm_up(self, patience_seconds: float) -> None:
        """Wait until the handler says that it is loaded.

        Raises:
            SandboxUnavailable: It ended, took too long, or the handler said something else.
        """
        assert self._exchange is not None, "the driver makes the sandbox first"
        await self._exchange.warm_up(patience_seconds)

    async def run(
        self,
        start: handler_pb2.Start,
        deadline_seconds: float,
        answer: AnswerSign = refuse_to_sign,
        on_progress: OnProgress | None = None,
    ) -> RawOutcome:
        """Hold the one conversation of this sandbox, see `Exchange.run`."""
        assert self._exchange is not None, "the driver makes the sandbox first"
        return await self._exchange.run(start, deadline_seconds, answer, on_progress)

    def cancel(self, reason: str) -> None:
        """Tell the handler that it may stop early; it need not. Waits for nothing; only the first is sent."""
        if self._exchange is not None:
            self._exchange.cancel(reason)
