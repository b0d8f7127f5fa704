"""What is in an image, and the one way to write and to sum it up, so that two builds can be compared.

A `Tree` is a file system as a mapping. `write_layer` writes it as an archive that depends on nothing else:
the entries are sorted, all belong to root, and none has a time. `sum_up` makes a digest of what an archive
says that a process could notice: path, kind, permissions, owner, extended attributes, link target and bytes.
Times and the order of entries are left out: the engine sets times of its own on folders.

Rules of the digest (raise `_FORM` when they change):
    * an entry is one line: its fields, each with its length before it, so that no two entries read alike;
    * lines are sorted by path; the digest is SHA-256 over them;
    * what the engine itself puts into every container (`ENGINE_PLACES`) is left out: no sandbox ever sees
      what an image has there;
    * what a bundle adds (below `BUNDLE_FOLDER`) is summed up apart from the base that it stands on.
"""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, cast

BUNDLE_FOLDER = "opt/bundle"
LIBRARY_FOLDER = "site-packages"
"""Where in its folder a bundle's dependencies are. No module and no proto package can have that name."""
PROGRAM_FOLDER = "handler/bin/"
"""What lies below can be started: programs of compiled languages."""

ENGINE_PLACES = (
    ".dockerenv",
    "dev/console",
    "dev/pts",
    "dev/shm",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
)
"""What the engine makes anew in every container; a sandbox's hardening covers it."""

_FORM = b"toolcrib-content-1"
_CHUNK = 1 << 20
_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "link",
    tarfile.LNKTYPE: "hard link",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "pipe",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder or symbolic link of root's.

    Attributes:
        data: A file's bytes.
        target: Where a symbolic link leads; "" for others.
        mode: Permission bits.
        is_folder: True for a folder.
    """

    data: bytes = b""
    target: str = ""
    mode: int = 0o644
    is_folder: bool = False

    @property
    def is_file(self) -> bool:
        """True for a plain file."""
        return not self.is_folder and not self.target


FOLDER = Entry(mode=0o755, is_folder=True)
Tree = dict[str, Entry]
"""Entries by their path from the root, without a slash in front."""


@dataclass(frozen=True, slots=True)
class Content:
    """What an image's file system sums up to, hex.

    Attributes:
        base: SHA-256 of all but what a bundle adds.
        bundle: SHA-256 of what a bundle adds.
    """

    base: str
    bundle: str


class ByteStream(io.RawIOBase):
    """Chunks of bytes, as the engine sends them, as a file to be read."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what comes next; 0 at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        taken = self._rest[: len(buffer)]
        self._rest = self._rest[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)


def as_file(chunks: Iterable[bytes]) -> IO[bytes]:
    """Give chunks of bytes as a file to be read."""
    return cast(IO[bytes], io.BufferedReader(ByteStream(chunks), _CHUNK))


def files_below(folder: str, files: Mapping[str, bytes]) -> Tree:
    """Make a tree of files that everybody can read; those below `handler/bin/` can be run as well."""
    modes = {name: 0o755 if name.startswith(PROGRAM_FOLDER) else 0o644 for name in files}
    return {f"{folder}/{name}": Entry(data, mode=modes[name]) for name, data in files.items()}


def write_layer(tree: Mapping[str, Entry], target: IO[bytes]) -> None:
    """Write a tree as an archive; the same tree gives the same bytes, everywhere.

    The folders above each entry are written too: one that a layer leaves out gets permissions of the
    engine's choice.
    """
    whole = {**{folder: FOLDER for name in tree for folder in _parents(name)}, **tree}
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(whole):
            member = _member(name, whole[name])
            archive.addfile(member, io.BytesIO(whole[name].data) if member.isreg() else None)


def read_tree(source: IO[bytes], places: Iterable[str] | None = None, max_bytes: int = 1 << 30) -> Tree:
    """Read an archive of files, folders and symbolic links; other kinds are left out.

    Args:
        source: The archive, read as a stream.
        places: Names to read; None for all.
        max_bytes: The most that is read in all.

    Raises:
        ValueError: What is to be read is larger.
    """
    wanted = None if places is None else frozenset(places)
    tree: Tree = {}
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for member in archive:
            name = plain_name(member.name)
            kind = _KINDS.get(member.type)
            if not name or kind not in ("file", "folder", "link"):
                continue
            if wanted is not None and name not in wanted:
                continue
            max_bytes -= member.size
            if max_bytes < 0:
                raise ValueError(f"{name}: the archive is larger than it may be")
            file = archive.extractfile(member) if kind == "file" else None
            data = file.read() if file is not None else b""
            target = member.linkname if kind == "link" else ""
            tree[name] = Entry(data, target, stat.S_IMODE(member.mode), kind == "folder")
    return tree


def sum_up(source: IO[bytes]) -> Content:
    """Sum up an archive of a whole file system, such as the engine's export of a container.

    Args:
        source: The archive, read as a stream: nothing of it is kept in memory but a line an entry.
    """
    lines: dict[str, bytes] = {}
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for member in archive:
            name = plain_name(member.name)
            if name and name not in ENGINE_PLACES:
                lines[name] = _line(name, member, _hash(archive, member))
    return _digests(lines)


def plain_name(name: str) -> str:
    """Give an archive's name for an entry without "./" in front and slashes around; "" for the root."""
    return "" if name in (".", "./", "/") else name.removeprefix("./").strip("/")


def _digests(lines: Mapping[str, bytes]) -> Content:
    parts = [hashlib.sha256(_FORM), hashlib.sha256(_FORM)]
    for name in sorted(lines):
        parts[name.startswith(f"{BUNDLE_FOLDER}/")].update(lines[name])
    return Content(base=parts[0].hexdigest(), bundle=parts[1].hexdigest())


def _line(name: str, member: tarfile.TarInfo, digest: str) -> bytes:
    kind = _KINDS.get(member.type, "unknown")
    attributes = sorted(item for item in member.pax_headers.items() if item[0].startswith("SCHILY.xattr."))
    fields = [
        name,
        kind,
        f"{stat.S_IMODE(member.mode):o}",
        f"{member.uid}:{member.gid}",
        member.linkname if "link" in kind else "",
        f"{member.devmajor}:{member.devminor}" if "device" in kind else "",
        digest if kind == "file" else "",
        *(text for item in attributes for text in item),
    ]
    parts = [field.encode("utf-8", "surrogateescape") for field in fields]
    return b"".join(len(part).to_bytes(4, "big") + part for part in (b"%d" % len(parts), *parts))


def _hash(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    digest = hashlib.sha256()
    file = archive.extractfile(member) if member.isreg() else None
    while file is not None and (chunk := file.read(_CHUNK)):
        digest.update(chunk)
    return digest.hexdigest()


def _member(name: str, entry: Entry) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode, member.linkname, member.size = entry.mode, entry.target, len(entry.data)
    if entry.is_folder:
        member.type = tarfile.DIRTYPE
    elif entry.target:
        member.type, member.mode = tarfile.SYMTYPE, 0o777
    return member


def _parents(name: str) -> Iterator[str]:
    return (str(parent) for parent in PurePosixPath(name).parents if str(parent) != ".")
