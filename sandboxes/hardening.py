"""The measures that make a container a sandbox: one each, with the attack that it stops.

`container_config` is the only way a container's settings come about. Settings that no measure names keep the
engine's default; what would weaken a sandbox (a mount, a capability, a device, an environment) cannot be
asked for at all. tests/attacks/ takes single measures away to show that each attack works without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandboxes.outcome import SandboxSpec
from sandboxes.runtimes import RUNC, Runtime

LABEL_INSTALLATION = "toolcrib.installation"
LABEL_EPOCH = "toolcrib.epoch"
SOCKET_FOLDER = "/run/toolcrib"
DOOR_FOLDER = "/run/init"
# What an engine hides or protects by itself differs by version, so both lists are said.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel",
)
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/sys")
ENTRYPOINT = ("/usr/bin/python3", "-I", "-S", "/opt/toolcrib/init.pyc")

_MIB = 1024 * 1024
_SECCOMP = (Path(__file__).parent / "seccomp.json").read_text()


@dataclass(frozen=True, slots=True)
class Measure:
    """One setting of the container.

    Attributes:
        name: What tests and documentation call it.
        setting: Where it stands in the engine's request, dotted. Lists of one setting are joined.
        value: Makes the value for one sandbox.
        stops: The attack.
    """

    name: str
    setting: str
    value: Callable[[SandboxSpec], Any]
    stops: str


def _always(value: Any) -> Callable[[SandboxSpec], Any]:
    return lambda spec: value


def _ulimit(name: str, most: int) -> Callable[[SandboxSpec], Any]:
    return _always([{"Name": name, "Soft": most, "Hard": most}])


def _memory(spec: SandboxSpec) -> int:
    return spec.limits.memory_mib * _MIB


def _identity(spec: SandboxSpec) -> str:
    return f"{spec.uid}:{spec.uid}"


def _nano_cpus(spec: SandboxSpec) -> int:
    return int(spec.limits.cpus * 1_000_000_000)


def _pids(spec: SandboxSpec) -> int:
    return spec.limits.pids + 1 + spec.has_proxy  # init and its relay are not the handler's


def _processes_inside(spec: SandboxSpec) -> list[dict[str, Any]]:
    most = _pids(spec)
    return [{"Name": "nproc", "Soft": most, "Hard": most}]


def _tmp(spec: SandboxSpec) -> dict[str, str]:
    size = f"size={spec.limits.tmp_mib}m,nr_inodes={spec.limits.tmp_mib * 256}"
    # The image can override mode=, not uid=.
    return {"/tmp": f"rw,noexec,nosuid,nodev,{size},uid={spec.uid},gid={spec.uid},mode=0700"}  # noqa: S108


def _file_size(spec: SandboxSpec) -> list[dict[str, Any]]:
    most = max(spec.limits.tmp_mib, 1) * _MIB
    return [{"Name": "fsize", "Soft": most, "Hard": most}]


MEASURES: tuple[Measure, ...] = (
    Measure("no-network", "NetworkDisabled", _always(True), "sending data out, reaching the host's services"),
    Measure("identity", "User", _identity, "acting as root, or as the uid of another sandbox"),
    Measure("no-environment", "Env", _always([]), "reading what the engine or the host keeps in variables"),
    Measure("hostname", "Hostname", _always("sandbox"), "learning the host's or the container's name"),
    Measure("no-terminal", "Tty", _always(False), "pushing input into a terminal (TIOCSTI)"),
    Measure("no-stdin", "OpenStdin", _always(False), "being spoken to by whoever else can use the engine"),
    Measure(
        "read-only-root",
        "HostConfig.ReadonlyRootfs",
        _always(True),
        "changing the handler, the SDK or the interpreter under a later process; filling the host's disk",
    ),
    Measure("no-capabilities", "HostConfig.CapDrop", _always(["ALL"]), "every power of root that is left"),
    Measure(
        "no-new-privileges",
        "HostConfig.SecurityOpt",
        _always(["no-new-privileges:true"]),
        "gaining privileges through a setuid program or file capabilities",
    ),
    Measure(
        "seccomp",
        "HostConfig.SecurityOpt",
        _always([f"seccomp={_SECCOMP}"]),
        "reaching the host by AF_VSOCK, kernel bugs in rarely used calls (io_uring, bpf, keyctl, user"
        " namespaces), changing limits or priority of init, running a program from memory (memfd)",
    ),
    Measure("memory", "HostConfig.Memory", _memory, "taking the host's memory"),
    Measure("no-swap", "HostConfig.MemorySwap", _memory, "doubling its memory, secrets on the host's disk"),
    Measure("pids", "HostConfig.PidsLimit", _pids, "a fork bomb"),
    Measure(
        "processes-inside",
        "HostConfig.Ulimits",
        _processes_inside,
        "a fork bomb under a runtime whose own threads fill the engine's limit",
    ),
    Measure("cpus", "HostConfig.NanoCpus", _nano_cpus, "starving other sandboxes and the broker"),
    Measure("open-files", "HostConfig.Ulimits", _ulimit("nofile", 256), "using up the kernel's open files"),
    Measure("no-core", "HostConfig.Ulimits", _ulimit("core", 0), "leaving a credential in a core dump"),
    Measure("no-queues", "HostConfig.Ulimits", _ulimit("msgqueue", 0), "kernel memory beyond the limit"),
    Measure("no-locked-memory", "HostConfig.Ulimits", _ulimit("memlock", 0), "pinning memory"),
    Measure("file-size", "HostConfig.Ulimits", _file_size, "filling what is writable with one file"),
    Measure("tmp", "HostConfig.Tmpfs", _tmp, "filling disk or inodes; running a program that it wrote"),
    Measure(
        "no-proc",
        "HostConfig.Tmpfs",
        _always({"/proc": "ro,noexec,nosuid,nodev,size=4k,mode=0555"}),
        "opening init's stdin by /proc/1/fd under a runtime that does not keep it closed",
    ),
    Measure(
        "masked-paths",
        "HostConfig.MaskedPaths",
        _always(list(MASKED_PATHS)),
        "reading the host's kernel: its memory, keys, log, modules, addresses, hardware",
    ),
    Measure(
        "read-only-paths",
        "HostConfig.ReadonlyPaths",
        _always(list(READ_ONLY_PATHS)),
        "changing the host's kernel by /proc and /sys: core_pattern, sysctls, uevent helpers",
    ),
    Measure("no-shared-memory", "HostConfig.IpcMode", _always("none"), "memory beside /tmp's limit"),
    Measure("own-cgroup-view", "HostConfig.CgroupnsMode", _always("private"), "learning the host's cgroups"),
    Measure("no-log", "HostConfig.LogConfig", _always({"Type": "none"}), "filling the host's disk"),
    Measure(
        "no-restart",
        "HostConfig.RestartPolicy",
        _always({"Name": "no"}),
        "coming back to life with a call's context after its end",
    ),
    Measure("own-init", "HostConfig.Init", _always(False), "a second PID 1 that knows no deadline"),
    Measure("not-privileged", "HostConfig.Privileged", _always(False), "everything"),
)


def container_config(
    spec: SandboxSpec,
    labels: Mapping[str, str],
    measures: Iterable[Measure] = MEASURES,
    runtime: Runtime = RUNC,
    cgroup_parent: str = "",
    door: Path | None = None,
) -> dict[str, Any]:
    """Make the engine's request for one sandbox.

    Args:
        spec: What is wanted.
        labels: Installation and epoch, nothing about the call.
        measures: All of them; fewer only in tests that show what a measure is good for.
        runtime: What runs it.
        cgroup_parent: Where its cgroups are; says installation and epoch. Empty for the engine's own place.
        door: The host's folder of init's socket.
    """
    config: dict[str, Any] = {
        "Image": spec.image_id,
        "Entrypoint": list(ENTRYPOINT),
        "Cmd": list(spec.command),
        "WorkingDir": "/opt/bundle",
        "Labels": dict(labels),
        "HostConfig": {
            "Mounts": [*_mount(spec.socket_dir, SOCKET_FOLDER), *_mount(door, DOOR_FOLDER)],
            "Runtime": runtime.runtime,
            "CgroupParent": cgroup_parent,
        },
    }
    for measure in measures:
        if measure.name not in runtime.dropped:
            _put(config, measure.setting.split("."), measure.value(spec))
    _allow_for(runtime, config["HostConfig"])
    return config


def _allow_for(runtime: Runtime, host_config: dict[str, Any]) -> None:
    """Leave room for what the runtime itself takes, so that the handler has what its manifest says."""
    for name, more in (
        ("Memory", runtime.overhead_mib * _MIB),
        ("MemorySwap", runtime.overhead_mib * _MIB),
        ("PidsLimit", runtime.extra_pids),
    ):
        if name in host_config:
            host_config[name] += more


def _mount(source: Path | None, target: str) -> list[dict[str, Any]]:
    """The only mounts there can be: read-only, and nothing mounted later on the host shows up in them."""
    if source is None:
        return []
    return [
        {
            "Type": "bind",
            "Source": str(source),
            "Target": target,
            "ReadOnly": True,
            "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
        }
    ]


def _put(config: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        config = config.setdefault(name, {})
    there = config.get(path[-1])
    if isinstance(value, list) and isinstance(there, list):
        config[path[-1]] = there + value
    elif isinstance(value, dict) and isinstance(there, dict):
        config[path[-1]] = there | value
    else:
        config[path[-1]] = value
