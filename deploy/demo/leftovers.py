"""What is left over, looked up where it would be: engine, Vault, PostgreSQL, processes, files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

# Every process that the demo starts inherits this variable, so that one that slipped away is found too.
_MARK = "TOOLCRIB_DEMO_RUN"


def mark_children() -> str:
    """Mark this process's environment for its children.

    Returns:
        The mark, to be given to `find_processes`.
    """
    mark = secrets.token_hex(8)
    os.environ[_MARK] = mark
    return mark


def find_processes(mark: str) -> list[str]:
    """List processes that descend from this one or carry the mark, as "pid name"; ended ones don't count."""
    found = {pid for pid in _pids() if pid != os.getpid() and _has_mark(pid, mark)}
    found |= _descendants(os.getpid())
    return [f"{pid} {_name(pid)}" for pid in sorted(found) if _is_running(pid)]


def find_files(folder: Path) -> list[str]:
    """List files and sockets under a folder; one that is not there has none."""
    # Not by rglob: it fails where a folder goes away meanwhile.
    return sorted(str(Path(place) / name) for place, _, names in os.walk(folder) for name in names)


def _pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def _has_mark(pid: int, mark: str) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # ended, or another user's: then it is none of ours
        return False
    return f"{_MARK}={mark}".encode() in variables.split(b"\0")


def _descendants(root: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid in _pids():
        children.setdefault(_parent(pid), []).append(pid)
    found: set[int] = set()
    pending = [root]
    while pending:
        for child in children.get(pending.pop(), ()):
            found.add(child)
            pending.append(child)
    return found


def _stat(pid: int) -> tuple[str, int]:
    """Read a process's state and parent, from behind its name: that can hold blanks and brackets."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return fields[0], int(fields[1])


def _parent(pid: int) -> int:
    return _stat(pid)[1]


def _is_running(pid: int) -> bool:
    return _stat(pid)[0] not in "ZX"


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"
