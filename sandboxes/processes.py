"""Processes as the kernel knows them: those of a container that the engine forgot, and those of others."""

from __future__ import annotations

import contextlib
import os
import re
import select
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
            kill_in_group(pid, container_id)
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def kill_in_group(pid: int, group: str) -> None:
    """Kill a process if it is in a control group; since it was listed, its id may have become another's.

    Args:
        pid: Its id.
        group: What the path of its group contains.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if group in _cgroups(Path(f"/proc/{pid}")):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        os.close(descriptor)


def is_program(pid: int, name: str, argument: str = "") -> bool:
    """Tell whether a process runs a program, with a piece of text in one of its words.

    Args:
        pid: Its id.
        name: The program's name without its folder.
        argument: What one of the words of its command line has to contain.
    """
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return Path(words[0]).name == name and any(argument in word for word in words)


def end_process(pid: int) -> None:
    """End a process that is not our child: politely, then not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for sign, patience in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, sign)
            if _has_ended(descriptor, patience):
                return
    finally:
        os.close(descriptor)


def _cgroups(entry: Path) -> str:
    try:
        return (entry / "cgroup").read_text()
    except OSError:
        return ""


def _has_ended(descriptor: int, patience_seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(patience_seconds * 1000))
