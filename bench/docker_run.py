"""The floor of a whole call: `docker run` with the sandboxes' hardening, to the program's output.

The flags are made from the same request that the driver sends, so that both harden alike. A setting that has
no flag here ends the benchmark instead of being left out. Two differ: the command has no flag for the
engine's `NetworkDisabled`, so it gets `--network none`, which starts more slowly; and none for what is hidden
of /proc and /sys, so it gets the engine's own, shorter lists.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sandboxes.hardening
from bench.measure import Subject
from sandboxes.hardening import MEASURES, container_config
from sandboxes.outcome import SandboxSpec

NAME = "docker run, hardened"
PROGRAM = "print('done')"

_SECCOMP = Path(sandboxes.hardening.__file__).with_name("seccomp.json")
_LABEL = "toolcrib.bench"
_SAID_OTHERWISE = frozenset({"Image", "Entrypoint", "Cmd", "Labels", "Env", "WorkingDir", "HostConfig"})
_NO_FLAG_NEEDED = frozenset({"OpenStdin", "StdinOnce", "AttachStdin", "AttachStdout", "AttachStderr"})
Flags = Callable[[Any], Sequence[str]]


class Limits:
    """A bundle's usual limits."""

    memory_mib, pids, cpus, tmp_mib, output_kib, log_kib = 128, 32, 1.0, 16, 256, 64
    artefacts, artefact_kib = 0, 1024


def docker_run(engine_url: str, image_id: str, against: str = NAME) -> Subject:
    """Make the subject: one fresh container a call, that prints a line by Python."""
    uids = itertools.count(90_000_000)

    async def call() -> None:
        spec = SandboxSpec(image_id, (), Limits(), None, next(uids))
        await _run(["docker", "--host", engine_url, *command(spec)])

    return Subject(NAME, call, against, calls=3, dropped=1)


def command(spec: SandboxSpec) -> list[str]:
    """Write the driver's request for a sandbox as arguments of the docker command."""
    flags = list(_flags(container_config(spec, {_LABEL: "1"}, MEASURES)))
    program = ["-I", "-S", "-c", PROGRAM]
    return ["run", "--rm", *flags, "--entrypoint", "/usr/bin/python3", spec.image_id, *program]


def _flags(config: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"--label={name}={value}" for name, value in config["Labels"].items())
    settings = {**config, **{f"HostConfig.{name}": value for name, value in config["HostConfig"].items()}}
    for name, value in settings.items():
        if name in _SAID_OTHERWISE or name in _NO_FLAG_NEEDED or value in (False, [], None, ""):
            continue
        if name not in _FLAGS:
            raise LookupError(f"no flag of the docker command is known here for {name}; add it to _FLAGS")
        yield from _FLAGS[name](value)


def _one(flag: str) -> Flags:
    return lambda value: [f"{flag}={value}"]


def _security(options: Sequence[str]) -> list[str]:
    named = (f"seccomp={_SECCOMP}" if option.startswith("seccomp=") else option for option in options)
    return [f"--security-opt={option}" for option in named]


_FLAGS: Mapping[str, Flags] = {
    "NetworkDisabled": lambda value: ["--network=none"],
    "HostConfig.Runtime": _one("--runtime"),
    "HostConfig.MaskedPaths": lambda paths: [],
    "HostConfig.ReadonlyPaths": lambda paths: [],
    "User": _one("--user"),
    "Hostname": _one("--hostname"),
    "HostConfig.ReadonlyRootfs": lambda value: ["--read-only"],
    "HostConfig.CapDrop": lambda names: [f"--cap-drop={name}" for name in names],
    "HostConfig.SecurityOpt": _security,
    "HostConfig.Memory": _one("--memory"),
    "HostConfig.MemorySwap": _one("--memory-swap"),
    "HostConfig.PidsLimit": _one("--pids-limit"),
    "HostConfig.NanoCpus": lambda nanos: [f"--cpus={nanos / 1e9}"],
    "HostConfig.Ulimits": lambda limits: [f"--ulimit={u['Name']}={u['Soft']}:{u['Hard']}" for u in limits],
    "HostConfig.Tmpfs": lambda folders: [f"--tmpfs={path}:{how}" for path, how in folders.items()],
    "HostConfig.IpcMode": _one("--ipc"),
    "HostConfig.CgroupnsMode": _one("--cgroupns"),
    "HostConfig.LogConfig": lambda log: [f"--log-driver={log['Type']}"],
    "HostConfig.RestartPolicy": lambda policy: [f"--restart={policy['Name']}"],
}


async def _run(arguments: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaint = await process.communicate()
    if process.returncode != 0 or said != b"done\n":
        raise RuntimeError(f"docker run failed: {complaint.decode(errors='replace').strip()}")
