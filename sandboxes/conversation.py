"""What a handler says: its frames, its log, and the answers that it gets on the way.

`Transcript` makes frames of the bytes and keeps both caps; what it gets is hostile. `Dialogue` answers what
the handler asks on the way, one at a time: a handler that does not read its answers only stops itself.

    FramesInvalid        the handler wrote what is no frame, spoke before its call, or asked without end
    OutputTooLarge       the handler wrote more than its cap
"""

from __future__ import annotations

import re
import struct
from collections.abc import Awaitable, Callable, Iterator

from google.protobuf.message import DecodeError, Message

from sandboxes.artefacts import Basket
from sandboxes.container_init import FRAMES, LOG
from sandboxes.outcome import AnswerSign, SandboxError
from toolcrib.handler.v1 import handler_pb2

MAX_SIGNS = 1_000
"""How often a handler may ask for a signature, refusals included: more than any manifest allows."""

CUT_NOTE = "\n[the rest was dropped]"
"""The last line of a log that was cut."""

OnProgress = Callable[[handler_pb2.Progress], None]
Send = Callable[[bytes], Awaitable[None]]

_LENGTH = struct.Struct(">I")


class FramesInvalid(SandboxError):
    """The handler wrote what is no frame."""


class OutputTooLarge(SandboxError):
    """The handler wrote more than its output cap."""


class Transcript:
    """Everything that one handler said."""

    def __init__(self, output_cap: int, log_cap: int) -> None:
        """Prepare for one conversation.

        Args:
            output_cap: Bytes of all frames together.
            log_cap: Bytes of the log that are kept.
        """
        self._output_left, self._log_left = output_cap, log_cap
        self._output_cap = output_cap
        self._buffer = bytearray()
        self._log = bytearray()
        self._cut = 0

    def feed(self, channel: int, data: bytes) -> Iterator[handler_pb2.HandlerFrame]:
        """Take one piece of the stream and give the frames that are complete now.

        Raises:
            FramesInvalid: What came is no frame.
            OutputTooLarge: More came than the output cap allows.
        """
        if channel == LOG:
            self._keep(data)
        if channel != FRAMES:
            return
        self._output_left -= len(data)
        if self._output_left < 0:
            raise OutputTooLarge(f"more than {self._output_cap // 1024} KiB of output")
        self._buffer += data
        yield from self._frames()

    def log(self) -> str:
        """The log as text: control and other invisible characters escaped, and a note where it was cut."""
        text = bytes(self._log).decode("utf-8", errors="surrogateescape")
        note = CUT_NOTE if self._cut else ""
        return _NOT_ASCII.sub(_escape_run, text.translate(_ESCAPES)) + note

    @property
    def log_truncated(self) -> bool:
        """Whether more was said than the log's cap."""
        return self._cut > 0

    def _keep(self, data: bytes) -> None:
        kept = data[: self._log_left]
        self._log += kept
        self._log_left -= len(kept)
        self._cut += len(data) - len(kept)

    def _frames(self) -> Iterator[handler_pb2.HandlerFrame]:
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > self._output_cap:
                raise OutputTooLarge(f"a frame of {length} bytes; the cap is {self._output_cap // 1024} KiB")
            if len(self._buffer) < _LENGTH.size + length:
                return
            body = bytes(self._buffer[_LENGTH.size : _LENGTH.size + length])
            del self._buffer[: _LENGTH.size + length]
            yield _parse(body)


class Dialogue:
    """What is said between Start and the frame that ends the conversation."""

    def __init__(
        self, transcript: Transcript, send: Send, answer: AnswerSign, basket: Basket | None = None
    ) -> None:
        """Prepare for one conversation.

        Args:
            transcript: Makes the frames.
            send: Writes to the handler; returns when it is taken.
            answer: Answers each Sign.
            basket: Takes each Artefact; without one there may be none.
        """
        self._transcript, self._send, self._answer, self._basket = transcript, send, answer, basket
        self._on_progress: OnProgress | None = None
        self._signs_left = MAX_SIGNS
        self.loaded = False
        self._output_left = None if basket is None else basket.output_bytes

    def begin(self, answer: AnswerSign, on_progress: OnProgress | None) -> None:
        """Answer Signs, and pass on each Progress, from now on."""
        self._answer, self._on_progress = answer, on_progress

    def take_early(self, channel: int, data: bytes) -> None:
        """Take one piece of the stream before there is a call: the handler may only say that it is loaded.

        Raises:
            FramesInvalid: It said something else.
            OutputTooLarge: More came than the output cap allows.
        """
        for frame in self._transcript.feed(channel, data):
            kind = frame.WhichOneof("frame")
            if kind != "loaded":
                raise FramesInvalid(f"the handler sent a {kind} before its call")
            self._note_loaded()

    async def take(self, channel: int, data: bytes) -> handler_pb2.HandlerFrame | None:
        """Take one piece of the stream; the frame that ends the conversation, when it is in it.

        What comes after that frame is not looked at: nothing is signed for a call that has its result.

        Raises:
            ArtefactRefused: An artefact is over a cap, or ill-formed.
            FramesInvalid: What came is no frame, or one Sign too many.
            OutputTooLarge: More came than the output cap allows.
            OSError: The stream is gone.
        """
        for frame in self._transcript.feed(channel, data):
            kind = frame.WhichOneof("frame")
            if kind != "artefact":
                self._count(frame)
            if kind == "sign":
                await self._sign(frame.sign)
            elif kind == "loaded":
                self._note_loaded()
            elif kind == "artefact":
                self._take_artefact(frame.artefact)
            elif kind != "progress":
                return frame
            elif self._on_progress is not None:
                self._on_progress(frame.progress)
        return None

    def _count(self, frame: handler_pb2.HandlerFrame) -> None:
        """Keep the cap of what is no artefact, where the transcript's leaves room for artefacts as well."""
        if self._output_left is None:
            return
        self._output_left -= frame.ByteSize()
        if self._output_left < 0:
            raise OutputTooLarge("more output than its cap")

    def _note_loaded(self) -> None:
        if self.loaded:
            raise FramesInvalid("the handler said twice that it is loaded")
        self.loaded = True

    def _take_artefact(self, artefact: handler_pb2.Artefact) -> None:
        if self._basket is None:
            raise FramesInvalid("the handler sent an artefact; none are allowed")
        self._basket.take(artefact)

    async def _sign(self, sign: handler_pb2.Sign) -> None:
        self._signs_left -= 1
        if self._signs_left < 0:
            raise FramesInvalid(f"the handler asked for more than {MAX_SIGNS} signatures")
        await self._send(frame_bytes(handler_pb2.BrokerFrame(signature=await self._answer(sign))))


def cancel_bytes(reason: str) -> bytes:
    """Make the frame that tells a handler to stop early; the reason is cut at 200 characters."""
    return frame_bytes(handler_pb2.BrokerFrame(cancel=handler_pb2.Cancel(reason=reason[:200])))


def frame_bytes(message: Message) -> bytes:
    """Make one frame of a message."""
    body = message.SerializeToString()
    return _LENGTH.pack(len(body)) + body


def _parse(body: bytes) -> handler_pb2.HandlerFrame:
    try:
        frame = handler_pb2.HandlerFrame.FromString(body)
    except DecodeError as error:
        raise FramesInvalid("the handler wrote bytes that are no frame") from error
    if frame.WhichOneof("frame") is None:
        raise FramesInvalid("the handler wrote an empty or unknown frame")
    return frame


def _escape(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def _escape_run(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else "".join(map(_escape, found[0]))


# A log of a megabyte must not keep the event loop: what a flood is made of goes by one table. Bytes that are
# no UTF-8 stand as surrogates until then.
_ESCAPES = {code: _escape(chr(code)) for code in range(0xA1)}
_ESCAPES |= {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
_NOT_ASCII = re.compile("[^\x00-\x7f]+")
