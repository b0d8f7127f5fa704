"""What of a sandbox is alive as the kernel knows it, whatever a driver or an engine says."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.02
_KERNEL, _GOFER = "runsc-sandbox", "runsc-gofer"
"""A gVisor sandbox as the host sees it: what runs in it has no arguments of its own here."""
_NOT_STARTED = "runc init "
"""A container that waits for an engine to start it; nothing of its image has run."""


@dataclass(frozen=True, slots=True)
class Trace:
    """By what the processes of one sandbox are known; whoever matches one of the three belongs to it.

    Attributes:
        mark: Stands in the arguments of the handler and of all that it forks.
        container_id: Stands in their cgroups, and in the arguments of what is a sandbox's kernel.
        uid: What they run as; 0 where that says nothing.
    """

    mark: str
    container_id: str = ""
    uid: int = 0


def find_alive(*traces: Trace, gofers: bool = False) -> list[str]:
    """Find the processes of sandboxes, as "pid arguments". Zombies are dead.

    Args:
        traces: The sandboxes.
        gofers: Whether a gVisor sandbox's file server counts. It runs nothing of the tool's, and ends by
            itself a moment after the sandbox.
    """
    found = (_describe(folder, traces) for folder in Path("/proc").glob("[0-9]*"))
    return [line for line in found if line and (gofers or f" {_GOFER}" not in line)]


def wait_until_gone(seconds: float, *traces: Trace) -> float:
    """Wait until none of their processes is left; returns how long it took. Blocks.

    Raises:
        AssertionError: Some are left after that time.
    """
    began = time.monotonic()
    while left := find_alive(*traces, gofers=True):
        assert time.monotonic() - began < seconds, f"after {seconds} s there are still {left}"
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began


def _describe(folder: Path, traces: Iterable[Trace]) -> str:
    try:
        arguments = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        cgroup, status = (folder / "cgroup").read_text(), (folder / "status").read_text()
    except OSError:  # ended meanwhile
        return ""
    if not arguments or arguments == _NOT_STARTED or "\nState:\tZ" in status:
        return ""
    if not any(_matches(one, arguments, cgroup, status) for one in traces):
        return ""
    return f"{folder.name} {arguments[:60]}…{arguments[-60:]}"


def _matches(trace: Trace, arguments: str, cgroup: str, status: str) -> bool:
    if trace.mark in arguments:
        return True
    if trace.container_id and trace.container_id in cgroup:
        return True
    if trace.container_id and trace.container_id in arguments and arguments.startswith((_KERNEL, _GOFER)):
        return True
    return trace.uid > 0 and f"\nUid:\t{trace.uid}\t" in status
