"""The files that a handler gives back: how many, how large, and what they would unpack to.

They arrive as frames and are never opened as files here. A name is a plain name; what is an archive may not
unpack to more than `MAX_RATIO` times its size, because somebody will unpack it.

    ArtefactRefused      one of them is over a cap or ill-formed; says which and why
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib

from sandboxes.outcome import Limits, RawArtefact, SandboxError
from toolcrib.handler.v1 import handler_pb2

MAX_RATIO = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}/[a-z0-9][a-z0-9.+-]{0,63}")
_GZIP, _ZLIB_HEAD, _ZIP = b"\x1f\x8b", b"\x78", b"PK\x03\x04"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_CHUNK = 256 * 1024


class ArtefactRefused(SandboxError):
    """A file of the handler's cannot be taken."""


class Basket:
    """What one call may give back.

    Attributes:
        output_bytes: The cap of what is no artefact.
    """

    def __init__(self, limits: Limits) -> None:
        self.output_bytes = limits.output_kib * 1024
        self._left, self._bytes_left = limits.artefacts, limits.artefact_kib * 1024
        self.files: list[RawArtefact] = []

    def take(self, artefact: handler_pb2.Artefact) -> None:
        """Take one file.

        Raises:
            ArtefactRefused: It is one too many, too large, or its name or media type is ill-formed.
        """
        if self._left <= 0:
            raise ArtefactRefused("the handler sent more artefacts than its manifest allows")
        self._left -= 1
        self._bytes_left -= len(artefact.content)
        if self._bytes_left < 0:
            raise ArtefactRefused("the artefacts are larger than the manifest allows")
        if not _NAME.fullmatch(artefact.name) or artefact.name in {file.name for file in self.files}:
            raise ArtefactRefused("an artefact's name is no plain name, or there twice")
        media_type = artefact.media_type or "application/octet-stream"
        if not _MEDIA_TYPE.fullmatch(media_type):
            raise ArtefactRefused(f"{artefact.name}: its media type is none")
        self.files.append(RawArtefact(artefact.name, media_type, artefact.content))

    def check_ratios(self) -> None:
        """See that nothing unpacks to too much. Takes a while for large files: not on the event loop.

        Raises:
            ArtefactRefused: One does.
        """
        for file in self.files:
            most = max(len(file.content), 1) * MAX_RATIO
            if _unpacked_bytes(file.content, most) > most:
                raise ArtefactRefused(f"{file.name}: unpacks to more than {MAX_RATIO} times its size")


def _unpacked_bytes(content: bytes, most: int) -> int:
    """Tell how much an archive unpacks to; counting stops beyond `most`. 0 for what is no archive."""
    if content.startswith(_ZIP):
        return _zip_bytes(content)
    if content.startswith(_GZIP):
        return _deflated_bytes(content, most, _GZIP_WINDOW)
    if content.startswith(_ZLIB_HEAD):
        return _deflated_bytes(content, most, zlib.MAX_WBITS)
    return 0


def _zip_bytes(content: bytes) -> int:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return 0


def _deflated_bytes(content: bytes, most: int, window: int) -> int:
    unpack, size, rest = zlib.decompressobj(window), 0, content
    try:
        while rest and size <= most:
            size += len(unpack.decompress(rest, _CHUNK))
            rest = unpack.unconsumed_tail
    except zlib.error:
        return size
    return size
