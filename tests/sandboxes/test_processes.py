"""Finding a container's processes by their cgroups."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from sandboxes.processes import find_processes, kill_in_group
from tests.parts.engine import Obedient

ID = "0123456789abcdef" * 4


def _process(proc: Path, pid: int, cgroup: str) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "cgroup").write_text(cgroup)


def test_finds_only_the_processes_of_that_container(tmp_path: Path) -> None:
    _process(tmp_path, 7, f"0::/docker/{ID}\n")
    _process(tmp_path, 8, "0::/docker/" + "f" * 64)
    _process(tmp_path, 9, "0::/user.slice")
    (tmp_path / "self").mkdir()
    assert find_processes(ID, tmp_path) == [7]


def test_passes_over_a_process_that_just_ended(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    assert find_processes(ID, tmp_path) == []


@pytest.mark.parametrize("wrong", ["", "0123", ID.upper(), ID + "0", "../" + ID])
def test_refuses_what_could_mean_other_processes(wrong: str) -> None:
    with pytest.raises(ValueError, match="no container id"):
        find_processes(wrong)


@pytest.mark.engine
async def test_finds_init_of_a_real_container(obedient: Obedient) -> None:
    async with obedient.driver.create(obedient.spec(), "call") as sandbox:
        assert find_processes(sandbox.container_id)  # init, and the handler that it started
    assert find_processes(sandbox.container_id) == []


def test_kills_only_what_is_in_the_group_that_it_was_found_in() -> None:
    """Since it was listed, a process may have ended and its id may be that of anybody on the host."""
    process = subprocess.Popen(["sleep", "60"])
    kill_in_group(process.pid, "f" * 64)
    assert process.poll() is None
    kill_in_group(process.pid, Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()[0])
    assert process.wait(10) == -signal.SIGKILL
    kill_in_group(process.pid, "f" * 64)
