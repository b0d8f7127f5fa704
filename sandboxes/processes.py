"""The processes of a container as the kernel knows them, when the engine has forgotten it."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
_PATIENCE_SECONDS = 2.0


def find_processes(container_id: str, proc: Path = Path("/proc")) -> list[int]:
    """Find the processes in a container's cgroups.

    Args:
        container_id: All 64 digits: a shorter one could mean another container.
        proc: Where the kernel shows its processes.

    Raises:
        ValueError: That is no container id.
    """
    if not _CONTAINER_ID.fullmatch(container_id):
        raise ValueError(f"{container_id!r}: is no container id of 64 hexadecimal digits")
    return [
        int(entry.name)
        for entry in proc.iterdir()
        if entry.name.isdigit() and container_id in _cgroups(entry)
    ]


def kill_processes(container_id: str) -> bool:
    """Kill the processes of a container, and wait until the kernel has none of them.

    Returns:
        True when none is left.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while found := find_processes(container_id):
        for pid in found:
            _kill(pid)
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _cgroups(entry: Path) -> str:
    try:
        return (entry / "cgroup").read_text()
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
