"""The files that a handler gives back: how many, how large, and what they would unpack to.

They arrive as frames and are never opened as files here. A name is a plain name; what is an archive may not
unpack to more than `MAX_RATIO` times its size, because somebody will unpack it.

    ArtefactRefused      one of them is over a cap or ill-formed; says which and why
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import re
import struct
import zipfile
import zlib
from typing import IO, cast

from sandboxes.outcome import Limits, RawArtefact, SandboxError
from toolcrib.handler.v1 import handler_pb2

MAX_RATIO = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}/[a-z0-9][a-z0-9.+-]{0,63}")
_ZIP_ENTRY, _GZIP, _BZIP2, _XZ, _ZLIB_HEAD = b"PK\x01\x02", b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x78"
_MAX_PARTS = 10_000  # entries of a zip, members of the others
_XZ_MEMORY = 128 * 1024 * 1024
_CHUNK = 64 * 1024
_NO_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
    OverflowError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # NotImplementedError is one
)
"""What the readers say of bytes that are no archive, or a broken one."""


class ArtefactRefused(SandboxError):
    """A file of the handler's cannot be taken."""


class _TooMany(Exception):
    """An archive has too many parts."""


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
            try:
                size = _unpacked_bytes(file.content, most)
            except _TooMany:
                raise ArtefactRefused(f"{file.name}: has more than {_MAX_PARTS} files in it") from None
            if size > most:
                raise ArtefactRefused(f"{file.name}: unpacks to more than {MAX_RATIO} times its size")


def _unpacked_bytes(content: bytes, most: int) -> int:
    """Tell how much an archive unpacks to; counting stops beyond `most`. 0 for what is no archive.

    Raises:
        _TooMany: It has so many parts that reading its index alone would cost too much.
    """
    if any(content.count(mark) > _MAX_PARTS for mark in (_ZIP_ENTRY, _GZIP, _BZIP2, _XZ)):
        raise _TooMany
    if size := _zip_bytes(content, most):  # first: a zip may begin with anything, its index is at its end
        return size
    if content.startswith(_GZIP):
        return _file_bytes(cast(IO[bytes], gzip.GzipFile(fileobj=io.BytesIO(content))), most)
    if content.startswith(_BZIP2):
        return _file_bytes(cast(IO[bytes], bz2.BZ2File(io.BytesIO(content))), most)
    if content.startswith(_XZ):
        return _xz_bytes(content, most)
    return _zlib_bytes(content, most) if content.startswith(_ZLIB_HEAD) else 0


def _zip_bytes(content: bytes, most: int) -> int:
    """Count what a zip's entries are, whatever it says that they are: other programs do not look at that."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size, said = 0, sum(entry.file_size for entry in archive.infolist())
            for entry in archive.infolist():
                if max(size, said) > most:
                    break
                size += _entry_bytes(archive, entry, most)
            return max(size, said)
    except _NO_ARCHIVE:
        return 0


def _entry_bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> int:
    entry.file_size = most + 2 * _CHUNK  # the reader would stop where the index says that the entry ends
    try:
        return _file_bytes(archive.open(entry), most)
    except _NO_ARCHIVE:  # encrypted, or of a method that is not known here
        return 0


def _file_bytes(file: IO[bytes], most: int) -> int:
    size = 0
    with contextlib.suppress(*_NO_ARCHIVE), file:
        while size <= most and (data := file.read(_CHUNK)):
            size += len(data)
    return size


def _zlib_bytes(content: bytes, most: int) -> int:
    unpack, size = zlib.decompressobj(), 0
    with contextlib.suppress(zlib.error):
        for place in range(0, len(content), _CHUNK):
            rest = content[place : place + _CHUNK]
            while rest and size <= most:
                size += len(unpack.decompress(rest, _CHUNK))
                rest = unpack.unconsumed_tail
    return size


def _xz_bytes(content: bytes, most: int) -> int:
    """Count as the others do; one that wants much memory to be read, as much as it says, is too much."""
    size, rest = 0, content
    try:
        while rest and size <= most:
            unpack = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
            size += len(unpack.decompress(rest, _CHUNK))
            while not unpack.eof and not unpack.needs_input and size <= most:
                size += len(unpack.decompress(b"", _CHUNK))
            rest = unpack.unused_data if unpack.eof else b""
    except lzma.LZMAError as error:
        return most + 1 if "limit" in str(error) else size
    return size
