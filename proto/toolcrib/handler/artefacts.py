"""Files that a call gives back: regular files of one folder, and nothing that leads out of it.

What a handler gives back may have come from elsewhere, an unpacked archive for example. A link in it must not
turn into a file of the handler's own, so a file is opened beneath the folder, by its plain name.
"""

from __future__ import annotations

import os
import re
import stat

FOLDER = "/tmp/artefacts"  # noqa: S108 - the one place that a sandbox can write
MAX_SPARSENESS = 100
"""How many times larger than what is on the disk a file may claim to be."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_BLOCK_BYTES = 512
_SMALL_BYTES = 64 * 1024
_CHUNK = 1 << 20


class ArtefactInvalid(Exception):
    """A file cannot be given back; the text says why."""


def make_folder(folder: str = FOLDER) -> str:
    """Make the folder, unless it is there; gives its path."""
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - pathlib costs 5 ms at start
    return folder


def read_artefact(name: str, folder: str = FOLDER) -> bytes:
    """Read one file of the folder.

    Args:
        name: Its plain name: letters, digits, ".", "_", "-".
        folder: Where it is.

    Raises:
        ArtefactInvalid: It is not there, is no regular file, has a second name, or is mostly holes.
    """
    if not _NAME.fullmatch(name):
        raise ArtefactInvalid(f"{name!r}: is no plain name of up to 100 letters, digits, '.', '_' and '-'")
    try:
        descriptor = _open_beneath(folder, name)
    except OSError as error:
        raise ArtefactInvalid(f"{name}: cannot be read from {folder}: {error.strerror}") from error
    try:
        _check(name, os.fstat(descriptor))
        parts = []
        while part := os.read(descriptor, _CHUNK):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _open_beneath(folder: str, name: str) -> int:
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Not blocking: the name may be a pipe's, that nobody writes to.
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    finally:
        os.close(place)


def _check(name: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ArtefactInvalid(f"{name}: is no regular file")
    if found.st_nlink != 1:
        raise ArtefactInvalid(f"{name}: has another name elsewhere; copy it instead of linking it")
    on_disk = max(found.st_blocks * _BLOCK_BYTES, 1)
    if found.st_size > _SMALL_BYTES and found.st_size > MAX_SPARSENESS * on_disk:
        raise ArtefactInvalid(f"{name}: is mostly holes: {found.st_size} bytes of which {on_disk} are there")
