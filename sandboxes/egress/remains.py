"""What an older broker's egress process and HTTP proxy may have left: the processes themselves, and a folder.

The kernel ends them when their broker dies. A broker that is stopped is not dead: its children run on, and
could bring what a tool wrote before to its target. Whoever takes over ends them here. The egress process is
known by the lock that it holds on its folder. The proxy has no folder: the broker writes down who it is, by
boot, process id and the time of its start, which together never come again, before it gets any call.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import time
from pathlib import Path

PROXY_NOTE = "proxy"
"""Name of the file, beside the egress process's folder, that says which process the HTTP proxy is."""
_LOCKS = Path("/proc/locks")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PATIENCE_SECONDS = 3.0


def end_remains(folder: Path) -> bool:
    """End the egress process that works in a folder, and remove the folder.

    Args:
        folder: What was given to `EgressProcess.start` once, by a broker that is not this one.

    Returns:
        True when no process of that broker is left.
    """
    if not _end_noted(folder / PROXY_NOTE):
        return False
    root = folder / "egress"
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        shutil.rmtree(folder, ignore_errors=True)
        return True
    try:
        ended = _take_lock(descriptor)
    finally:
        os.close(descriptor)
    if ended:
        shutil.rmtree(folder, ignore_errors=True)
    return ended


def note_process(file: Path, pid: int) -> None:
    """Write down which process a child is.

    Raises:
        OSError: It cannot be written, or there is no such process.
    """
    file.write_text(_describe(pid))


def _end_noted(file: Path) -> bool:
    """Kill the process that a file names, if it is still that one; True when it is not there any more."""
    try:
        noted = file.read_text()
        pid = int(noted.split()[1])
        descriptor = os.pidfd_open(pid)
    except (OSError, ValueError, IndexError):  # no note, or half of one: no call was given to it yet
        return True
    try:
        if _describe(pid) != noted:
            return True
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return bool(select.select([descriptor], [], [], _PATIENCE_SECONDS)[0])
    except (ProcessLookupError, FileNotFoundError):
        return True
    finally:
        os.close(descriptor)


def _describe(pid: int) -> str:
    """Boot, process id, and the time of its start (field 22 of proc(5)'s stat)."""
    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{_BOOT_ID.read_text().strip()} {pid} {started}"


def _take_lock(descriptor: int) -> bool:
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _kill_holders(os.fstat(descriptor).st_ino)
        else:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.02)


def _kill_holders(inode: int) -> None:
    """Kill the egress processes that hold a lock on an inode (/proc/locks; see proc_locks(5))."""
    for line in _LOCKS.read_text().splitlines():
        fields = line.replace("-> ", "").split()
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            pid = int(fields[4])
            if pid > 0 and _is_egress(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _is_egress(pid: int) -> bool:
    try:
        return b"sandboxes.egress" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
