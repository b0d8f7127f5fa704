"""Looks through what a running container holds, from outside and as root: memory, files, arguments."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

_READABLE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) r\S+ \S+ \S+ \S+ *(\S*)")
_MOST_FILE_BYTES = 4 * 1024 * 1024
"""What is larger is a program that was in the image before there was a secret."""


def find_processes(container_id: str) -> list[int]:
    """List the processes of a container, by their cgroups."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if container_id in (entry / "cgroup").read_text():
                found.append(int(entry.name))
    return found


def find_in_container(container_id: str, wanted: Mapping[str, bytes]) -> dict[str, set[str]]:
    """Say where each of some texts is found: "memory of PID", "file PATH", "environment of PID", …."""
    places: dict[str, set[str]] = {name: set() for name in wanted}
    processes = find_processes(container_id)
    assert processes, "the container is gone"
    for place, data in _read_all(processes):
        for name, text in wanted.items():
            if text in data:
                places[name].add(place)
    return places


def _read_all(processes: list[int]) -> Iterator[tuple[str, bytes]]:
    for process in processes:
        for part in ("environ", "cmdline"):
            with contextlib.suppress(OSError):
                yield f"{part} of {process}", Path(f"/proc/{process}/{part}").read_bytes()
        for data in _read_memory(process):
            yield f"memory of {process}", data
    yield from _read_files(Path(f"/proc/{processes[0]}/root"))


def _read_memory(process: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        maps = Path(f"/proc/{process}/maps").read_bytes().splitlines()
        with Path(f"/proc/{process}/mem").open("rb", 0) as memory:
            for line in maps:
                found = _READABLE.match(line)
                if found and found[3] not in (b"[vvar]", b"[vsyscall]"):
                    yield _read_range(memory.fileno(), int(found[1], 16), int(found[2], 16))


def _read_range(memory: int, begin: int, end: int) -> bytes:
    """Read a range as far as it is there: memory that was only reserved is not."""
    parts = []
    for offset in range(begin, end, 1 << 20):
        try:
            parts.append(os.pread(memory, min(1 << 20, end - offset), offset))
        except (OSError, OverflowError):
            parts.append(b"\0")
    return b"".join(parts)


def _read_files(root: Path) -> Iterator[tuple[str, bytes]]:
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = [name for name in folders if not (here == root and name in ("proc", "sys"))]
        for name in names:
            with contextlib.suppress(OSError):
                about = (here / name).lstat()
                if stat.S_ISREG(about.st_mode) and about.st_size <= _MOST_FILE_BYTES:
                    yield f"file {(here / name).relative_to(root)}", (here / name).read_bytes()
