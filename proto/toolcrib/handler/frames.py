"""Frames between handler and broker: a 4-byte big-endian length and one message."""

from __future__ import annotations

import os
import select
import struct

from google.protobuf.message import Message

from toolcrib.handler.artefacts import FOLDER
from toolcrib.handler.v1 import handler_pb2

READ_DESCRIPTOR = 3
WRITE_DESCRIPTOR = 4

_LENGTH = struct.Struct(">I")


class Frames:
    """The two descriptors that init gives a handler.

    Attributes:
        artefact_folder: Where the files are that can be given back.
    """

    artefact_folder = FOLDER

    def __init__(self, source: int = READ_DESCRIPTOR, sink: int = WRITE_DESCRIPTOR) -> None:
        self._source, self._sink = source, sink

    def read(self) -> handler_pb2.BrokerFrame:
        """Wait for the next frame.

        Raises:
            EOFError: The broker is gone.
        """
        (length,) = _LENGTH.unpack(self._read_exactly(_LENGTH.size))
        return handler_pb2.BrokerFrame.FromString(self._read_exactly(length))

    def waiting(self) -> bool:
        """Tell whether a frame (or the end) is there to be read."""
        return bool(select.select([self._source], [], [], 0)[0])

    def write(self, frame: Message) -> None:
        """Send one frame, all of it."""
        body = frame.SerializeToString()
        data = memoryview(_LENGTH.pack(len(body)) + body)
        while data:
            data = data[os.write(self._sink, data) :]

    def _read_exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self._source, size)
            if not part:
                raise EOFError("the broker closed the frames")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
