"""The runtimes of the Docker Engine that sandboxes can have, and what each needs beside the common measures.

All figures and reasons for runsc were found by trying its release of December 2022 on the ptrace platform:

    * its own threads count against the container's limit of processes: 30 when idle, 460 under 24 processes
      that sleep and wake. At the limit it panics and takes the sandbox with it, so the engine's limit is only
      a bound for the host; RLIMIT_NPROC, which the sentry counts exactly, is what a handler meets;
    * its own memory counts too: 16 MiB when idle. And it copies what forked processes share in large pieces:
      a forked Python costs 9 MiB where runc needs less than one. Over the limit the kernel kills the sentry,
      which is the sandbox;
    * tmpfs keeps its size but not its number of inodes: they are the sentry's memory, which is limited;
    * sizes of files, open files, locked memory, queues, core dumps, processor time, user id, capabilities,
      the read-only root and noexec hold as they do under runc.
"""

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
        has_kernel_network: Whether a container's sockets are this kernel's, so that others can stand beside.
        dropped: Measures that it does not take, each with the reason.
    """

    name: str
    runtime: str
    overhead_mib: int = 0
    extra_pids: int = 0
    birth_flags: int = 0
    has_kernel_network: bool = True
    dropped: Mapping[str, str] = field(default_factory=dict)


RUNC = Runtime(
    "docker-runc",
    "runc",
    dropped={
        "no-proc": "runc needs /proc in the container to start it; the kernel keeps init's entries closed,"
        " which is not dumpable",
    },
)
RUNSC = Runtime(
    "docker-runsc",
    "runsc",
    overhead_mib=64,
    extra_pids=1_000,
    birth_flags=FLAG_FILTER,
    has_kernel_network=False,
    dropped={
        "seccomp": "runsc reads a profile with --oci-seccomp only, which is broken in this release: it stops"
        " pselect6 whatever the profile says. Init applies the same filter to the handler",
    },
)
RUNTIMES = {runtime.name: runtime for runtime in (RUNC, RUNSC)}
