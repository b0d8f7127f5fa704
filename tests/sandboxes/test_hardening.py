"""The settings of every container, and that nothing can be asked for beside them."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from sandboxes.hardening import MEASURES, container_config
from sandboxes.outcome import SandboxSpec
from sandboxes.runtimes import RUNC, RUNSC, Runtime
from tests.parts.engine import TestLimits

DANGEROUS = """
io_uring_setup io_uring_enter bpf keyctl add_key request_key userfaultfd unshare setns mount umount2 fsopen
pivot_root chroot ptrace process_vm_readv process_vm_writev pidfd_getfd perf_event_open memfd_create execveat
init_module kexec_load open_by_handle_at setpriority sched_setaffinity sched_setscheduler sched_setattr
setrlimit mq_open shmget semget msgget personality socket clone prlimit64 splice vmsplice iopl
"""
SPEC = SandboxSpec("sha256:1", ("python3", "-m", "handler"), TestLimits(), None, 100_000_001)


def _host(spec: SandboxSpec = SPEC) -> Any:
    return container_config(spec, {})["HostConfig"]


def test_says_of_each_measure_what_it_stops() -> None:
    assert all(measure.stops for measure in MEASURES)
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)


def test_sets_every_measure() -> None:
    config = container_config(SPEC, {}, runtime=Runtime("all", "all"))
    for measure in MEASURES:
        place: Any = config
        for name in measure.setting.split("."):
            place = place[name]
        value = measure.value(SPEC)
        assert place == value or all(item in place for item in value)


@pytest.mark.parametrize("runtime", [RUNC, RUNSC])
def test_drops_a_measure_for_a_reason_only(runtime: Runtime) -> None:
    assert runtime.dropped.keys() <= {measure.name for measure in MEASURES}
    assert all(runtime.dropped.values())


def test_leaves_room_for_what_the_runtime_takes() -> None:
    host = container_config(SPEC, {}, runtime=RUNSC)["HostConfig"]
    assert host["Memory"] == (96 + RUNSC.overhead_mib) * 1024 * 1024
    assert host["PidsLimit"] == 25 + RUNSC.extra_pids


def test_mounts_nothing_without_a_socket_folder() -> None:
    assert _host()["Mounts"] == []


def test_mounts_the_socket_folder_read_only() -> None:
    (mount,) = _host(replace(SPEC, socket_dir=Path("/run/sockets")))["Mounts"]
    assert (mount["Source"], mount["Target"], mount["ReadOnly"]) == ("/run/sockets", "/run/toolcrib", True)


def test_allows_no_swap() -> None:
    assert _host()["Memory"] == _host()["MemorySwap"] == 96 * 1024 * 1024


def test_has_no_field_for_a_mount_capability_device_or_variable() -> None:
    names = {field.name for field in fields(SandboxSpec)}
    assert names == {
        "image_id",
        "command",
        "limits",
        "socket_dir",
        "uid",
        "idle_seconds",
        "has_proxy",
        "take_door",
    }


def _profile() -> Any:
    (text,) = (o for o in _host()["SecurityOpt"] if o.startswith("seccomp="))
    return json.loads(text.removeprefix("seccomp="))


def test_refuses_system_calls_by_default_and_knows_one_architecture_each() -> None:
    profile = _profile()
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert all(entry["subArchitectures"] == [] for entry in profile["archMap"])


@pytest.mark.parametrize("call", DANGEROUS.split())
def test_allows_no_dangerous_call_without_a_condition(call: str) -> None:
    for rule in _profile()["syscalls"]:
        if call in rule["names"]:
            assert rule["args"], f"{call} is allowed whatever its arguments"
