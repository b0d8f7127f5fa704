"""The stream of one container, and the frames in it.

`Stream` is the engine's attach call: stdin one way, stdout and stderr (both multiplexed by the engine) the
other. It is read by asyncio itself, so that a tool that floods its output costs no thread, and it can be
closed at any moment: an engine whose reader stops draining hangs on kill and inspect for over 20 seconds.

`Transcript` makes frames of the bytes and keeps both caps; what it gets is hostile. `Dialogue` answers what
the handler asks on the way, one at a time: a handler that does not read its answers only stops itself.

    StreamBroken         the engine refused or lost the stream
    FramesInvalid        the handler wrote what is no frame, or asked without end
    OutputTooLarge       the handler wrote more than its cap
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from google.protobuf.message import DecodeError, Message

from sandboxes.outcome import AnswerSign, SandboxError
from toolcrib.handler.v1 import handler_pb2

OPEN_SECONDS = 10.0
MAX_SIGNS = 1_000
"""How often a handler may ask for a signature, refusals included: more than any manifest allows."""

OnProgress = Callable[[handler_pb2.Progress], None]
Send = Callable[[bytes], Awaitable[None]]

_HEADER = struct.Struct(">BxxxI")
_LENGTH = struct.Struct(">I")
_STDOUT, _STDERR = 1, 2
_CHUNK = 65_536


class StreamBroken(SandboxError):
    """The engine refused or lost the stream of a container."""


class FramesInvalid(SandboxError):
    """The handler wrote what is no frame."""


class OutputTooLarge(SandboxError):
    """The handler wrote more than its output cap."""


class Stream:
    """Both directions of one attached container."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def attach(cls, socket_path: Path, container: str) -> Stream:
        """Attach to a container that was created and not started yet.

        Raises:
            StreamBroken: The engine is not there, stalls, or refuses.
        """
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(socket_path), limit=4 * _CHUNK)
                stream = cls(reader, writer)
                try:
                    await stream._upgrade(container)
                except BaseException:
                    stream.close()
                    raise
                return stream
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            raise StreamBroken(f"the engine gives no stream: {error or type(error).__name__}") from error

    async def send(self, data: bytes) -> None:
        """Write to the container's stdin.

        Raises:
            OSError: The stream is gone.
        """
        self._writer.write(data)
        await self._writer.drain()

    def push(self, data: bytes) -> None:
        """Write to the container's stdin without waiting until it is taken; lost when the stream is gone."""
        if not self._writer.transport.is_closing():
            self._writer.write(data)

    async def read(self) -> tuple[int, bytes] | None:
        """Read the next piece: 1 for stdout or 2 for stderr, and its bytes; None at the end."""
        try:
            channel, length = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
            return channel, await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError):
            return None

    def close(self) -> None:
        """Let go at once, without waiting for what is still on its way."""
        self._writer.transport.abort()

    async def _upgrade(self, container: str) -> None:
        request = (
            f"POST /containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\n"
            "Host: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        )
        await self.send(request.encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if " 101 " not in head.splitlines()[0] + " ":
            raise StreamBroken(f"the engine refused the stream: {head.splitlines()[0]}")


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
        if channel == _STDERR:
            self._keep(data)
            return
        if channel != _STDOUT:
            return
        self._output_left -= len(data)
        if self._output_left < 0:
            raise OutputTooLarge(f"more than {self._output_cap // 1024} KiB of output")
        self._buffer += data
        yield from self._frames()

    def log(self) -> str:
        """The log as text: control and other invisible characters escaped, and a note where it was cut."""
        text = bytes(self._log).decode("utf-8", errors="surrogateescape")
        note = f"\n[{self._cut} bytes more were dropped]" if self._cut else ""
        return _NOT_ASCII.sub(_escape_run, text.translate(_ESCAPES)) + note

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
        self, transcript: Transcript, send: Send, answer: AnswerSign, on_progress: OnProgress | None = None
    ) -> None:
        """Prepare for one conversation.

        Args:
            transcript: Makes the frames.
            send: Writes to the handler; returns when it is taken.
            answer: Answers each Sign.
            on_progress: Called with each Progress.
        """
        self._transcript, self._send, self._answer = transcript, send, answer
        self._on_progress = on_progress
        self._signs_left = MAX_SIGNS

    async def take(self, channel: int, data: bytes) -> handler_pb2.HandlerFrame | None:
        """Take one piece of the stream; the frame that ends the conversation, when it is in it.

        What comes after that frame is not looked at: nothing is signed for a call that has its result.

        Raises:
            FramesInvalid: What came is no frame, or one Sign too many.
            OutputTooLarge: More came than the output cap allows.
            OSError: The stream is gone.
        """
        for frame in self._transcript.feed(channel, data):
            if frame.HasField("sign"):
                await self._sign(frame.sign)
            elif not frame.HasField("progress"):
                return frame
            elif self._on_progress is not None:
                self._on_progress(frame.progress)
        return None

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
