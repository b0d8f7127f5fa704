"""The runtimes of the Docker Engine that sandboxes can have, and what each needs beside the common measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sandboxes.container_init import FLAG_FILTER


@dataclass(frozen=True, slots=True)
class Runtime:
    """One runtime.

    Attributes:
        name: What settings call the driver that uses it.
        runtime: What the engine calls it.
        overhead_mib: Memory that it takes of a container's limit for itself.
        extra_pids: Threads and processes of its own that count against a container's limit.
        birth_flags: What init has to do because the runtime does not.
        dropped: Measures that it does not take, each with the reason.
    """

    name: str
    runtime: str
    overhead_mib: int = 0
    extra_pids: int = 0
    birth_flags: int = 0
    dropped: Mapping[str, str] = field(default_factory=dict)


RUNC = Runtime("docker-runc", "runc")
RUNSC = Runtime("docker-runsc", "runsc", overhead_mib=64, extra_pids=100, birth_flags=FLAG_FILTER)
RUNTIMES = {runtime.name: runtime for runtime in (RUNC, RUNSC)}
