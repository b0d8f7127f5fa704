"""Stops a process as a stall of its machine would: none of its threads runs any more when this returns."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def stop(pid: int | None) -> None:
    """Send SIGSTOP, and wait for it to act: on a busy machine a thread answers a request before it does."""
    assert pid is not None, "it does not run"
    os.kill(pid, signal.SIGSTOP)
    until = time.monotonic() + 20
    while set(_states(pid)) - {"T", "Z"}:
        assert time.monotonic() < until, f"process {pid} does not stop"
        time.sleep(0.002)


@contextmanager
def stopped(pid: int | None) -> Iterator[None]:
    """Hold a process stopped; it goes on afterwards."""
    stop(pid)
    try:
        yield
    finally:
        assert pid is not None
        os.kill(pid, signal.SIGCONT)


def _states(pid: int) -> Iterator[str]:
    """The state of each thread: the letter behind the name (proc_pid_stat(5)), which may hold anything."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            yield (task / "stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            continue
