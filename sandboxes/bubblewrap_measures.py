"""The measures that make a bubblewrap a sandbox: one each, with the attack that it stops.

Their names are those of sandboxes/hardening.py where they correspond, so that one attack can ask for the same
measure to be missing in either. Two things cannot be missing and are no measures: the PID namespace with our
init as PID 1, and no-new-privileges, which bubblewrap always sets. docs/runtimes.md says what is weaker here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandboxes.cgroups import Ceilings
from sandboxes.outcome import SandboxSpec

_MIB = 1024 * 1024
_OWN_PROCESSES = 2  # init, and the bwrap outside that waits for it

# Docker's lists (moby, oci/defaults.go). What this kernel does not have needs no cover.
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True)
class Measure:
    """One property of the sandbox.

    Attributes:
        name: What tests and documentation call it.
        setting: "bwrap" for arguments; "user", "filter", "tmp", "overlay"; "rlimit.NAME", "ceiling.NAME".
        value: Makes the value for one sandbox.
        stops: The attack.
    """

    name: str
    setting: str
    value: Callable[[SandboxSpec], Any]
    stops: str


@dataclass(slots=True)
class Settings:
    """What one sandbox is started with.

    Attributes:
        arguments: Of bwrap.
        user: Who runs bwrap and everything in it; None for root.
        filtered: Whether the syscall filter is loaded.
        tmp: Options of the tmpfs at /tmp; None for one without limits.
        overlaid: Whether the image's files get inodes of its own.
        rlimits: Soft and hard, by prlimit's name.
        ceilings: Of its cgroup.
    """

    arguments: list[str] = field(default_factory=list)
    user: int | None = None
    filtered: bool = False
    tmp: str | None = None
    overlaid: bool = False
    rlimits: dict[str, int] = field(default_factory=dict)
    ceilings: dict[str, Any] = field(default_factory=dict)

    def ceiling(self) -> Ceilings:
        """Give the limits of the cgroup."""
        return Ceilings(**self.ceilings)


def _always(value: Any) -> Callable[[SandboxSpec], Any]:
    return lambda spec: value


def _arguments(*arguments: str) -> Callable[[SandboxSpec], list[str]]:
    return lambda spec: list(arguments)


def _tmp(spec: SandboxSpec) -> str:
    inodes = spec.limits.tmp_mib * 256
    return f"size={spec.limits.tmp_mib}m,nr_inodes={inodes},uid={spec.uid},gid={spec.uid},mode=0700"


def _masked(_: SandboxSpec) -> list[str]:
    """Cover a folder by an empty one that cannot be written, a file by one that cannot be opened."""
    arguments = []
    for path in map(Path, _MASKED):
        if path.is_dir():
            arguments += ["--tmpfs", str(path), "--remount-ro", str(path)]
        elif path.exists():
            arguments += ["--ro-bind", "/dev/null", str(path)]
    return arguments


def _read_only(_: SandboxSpec) -> list[str]:
    there = (path for path in _READ_ONLY if Path(path).exists())
    return [word for path in there for word in ("--ro-bind", path, path)]


MEASURES: tuple[Measure, ...] = (
    Measure(
        "no-network",
        "bwrap",
        _arguments("--unshare-net"),
        "sending data out, reaching the host's services",
    ),
    Measure(
        "identity",
        "user",
        lambda spec: spec.uid,
        "acting as root, or as the uid of another sandbox; it is its uid on the host too",
    ),
    Measure("no-environment", "bwrap", _arguments("--clearenv"), "reading what the host keeps in variables"),
    Measure("hostname", "bwrap", _arguments("--unshare-uts", "--hostname", "sandbox"), "the host's name"),
    Measure("no-terminal", "bwrap", _arguments("--new-session"), "pushing input into a terminal (TIOCSTI)"),
    Measure(
        "dies-with-broker",
        "bwrap",
        _arguments("--die-with-parent"),
        "outliving a broker that died before init could see its stdin close",
    ),
    Measure("no-capabilities", "bwrap", _arguments("--cap-drop", "ALL"), "every power of root that is left"),
    Measure(
        "no-user-namespaces",
        "bwrap",
        _arguments("--disable-userns"),
        "gaining powers of root in a namespace of its own, and with them the kernel's less used code",
    ),
    Measure(
        "seccomp",
        "filter",
        _always(True),
        "reaching the host by AF_VSOCK, kernel bugs in rarely used calls (io_uring, bpf, keyctl, user"
        " namespaces), changing limits or priority of init, running a program from memory (memfd)",
    ),
    Measure(
        "memory",
        "ceiling.memory_bytes",
        lambda spec: spec.limits.memory_mib * _MIB,
        "taking the host's memory",
    ),
    Measure("no-swap", "ceiling.no_swap", _always(True), "doubling its memory, secrets on the host's disk"),
    Measure(
        "pids",
        "ceiling.pids",
        lambda spec: spec.limits.pids + _OWN_PROCESSES + spec.has_proxy,  # the last: init's relay
        "a fork bomb",
    ),
    Measure("cpus", "ceiling.cpus", lambda spec: spec.limits.cpus, "starving other sandboxes and the broker"),
    Measure("open-files", "rlimit.nofile", _always(256), "using up the kernel's open files"),
    Measure("no-core", "rlimit.core", _always(0), "leaving a credential in a core dump"),
    Measure("no-queues", "rlimit.msgqueue", _always(0), "kernel memory beyond the limit"),
    Measure("no-locked-memory", "rlimit.memlock", _always(0), "pinning memory"),
    Measure(
        "file-size",
        "rlimit.fsize",
        lambda spec: max(spec.limits.tmp_mib, 1) * _MIB,
        "filling what is writable with one file",
    ),
    Measure("tmp", "tmp", _tmp, "filling disk or inodes; running a program that it wrote"),
    Measure(
        "own-inodes",
        "overlay",
        _always(True),
        "talking to another sandbox of the same tool by locks or watches on a file of the image",
    ),
    Measure(
        "no-shared-memory", "bwrap", _arguments("--unshare-ipc"), "memory that others see, and outlives it"
    ),
    Measure("own-cgroup-view", "bwrap", _arguments("--unshare-cgroup"), "learning the host's cgroups"),
    Measure("masked-paths", "bwrap", _masked, "reading the kernel's memory, keys and timers"),
    Measure("read-only-paths", "bwrap", _read_only, "changing settings of the kernel (core_pattern, sysrq)"),
    Measure(
        "read-only-devices",
        "bwrap",
        _arguments("--remount-ro", "/dev"),
        "memory beside /tmp's limit, and running a program that it wrote there",
    ),
    # The last one: bwrap works through its arguments in their order.
    Measure(
        "read-only-root",
        "bwrap",
        _arguments("--remount-ro", "/"),
        "changing the handler, the SDK or the interpreter under a later process; filling the host's disk",
    ),
)


def settings_for(spec: SandboxSpec, measures: Iterable[Measure] = MEASURES) -> Settings:
    """Put together what one sandbox is started with.

    Args:
        spec: What is wanted.
        measures: All; fewer only in tests that show what a measure is good for.
    """
    settings = Settings()
    for measure in measures:
        kind, _, name = measure.setting.partition(".")
        _put(settings, kind, name, measure.value(spec))
    return settings


def _put(settings: Settings, kind: str, name: str, value: Any) -> None:
    if kind == "bwrap":
        settings.arguments += value
    elif kind == "rlimit":
        settings.rlimits[name] = value
    elif kind == "ceiling":
        settings.ceilings[name] = value
    elif kind == "user":
        settings.user = value
    elif kind == "filter":
        settings.filtered = value
    elif kind == "overlay":
        settings.overlaid = value
    else:
        settings.tmp = value
