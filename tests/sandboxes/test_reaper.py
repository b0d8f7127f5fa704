"""Reaping by control group: containers that the engine forgot, of dead epochs of one installation only."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxes.engine import Engine, Folders, PrivateEngine, start_engine
from sandboxes.images import build_base
from sandboxes.processes import find_processes
from sandboxes.reaper import Reaper, cgroup_parent, container_cgroup, cpu_seconds, find_hierarchies
from tests.parts import without
from tests.parts.engine import STATE

ID = "0123456789abcdef" * 4
SLEEP = "import time; time.sleep(600)"
FORK = """
import os, time
while True:
    try:
        if os.fork() == 0:
            time.sleep(0.05)
            os._exit(0)
        os.waitpid(-1, os.WNOHANG)
    except BlockingIOError:  # as many as it may have
        time.sleep(0.01)
"""


def test_names_installation_and_epoch_whatever_the_id() -> None:
    odd = "../../ä b-" + "x" * 500
    named = {cgroup_parent(text, 7, "cgroupfs") for text in (odd, odd + "x", "a-1", "a_1", "")}
    assert len(named) == 5
    assert all(name.startswith("/toolcrib_") and name.endswith("_7") and len(name) < 80 for name in named)


def test_names_a_slice_that_lies_in_no_other() -> None:
    parent = cgroup_parent("a-b", 7, "systemd")
    assert parent.endswith("_7.slice")
    assert "-" not in parent
    assert container_cgroup(parent, ID) == f"/{parent}/docker-{ID}.scope"


def test_refuses_a_cgroup_driver_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="cgroupfs or systemd"):
        cgroup_parent("a", 1, "none")


def test_finds_hierarchies_of_both_versions(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "cgroup /c/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n"
        "cgroup /c/unified cgroup2 rw 0 0\nproc /proc proc rw 0 0\n"
    )
    found = find_hierarchies(mounts)
    assert found == dict.fromkeys(("cpu", "cpuacct"), Path("/c/cpu,cpuacct")) | {"": Path("/c/unified")}


def fake_tree(root: Path, *names: str) -> None:
    """Make folders as the unified hierarchy shows them, with nobody in them."""
    for name in names:
        (root / name).mkdir(parents=True)


@pytest.mark.parametrize("form", ["cgroupfs", "systemd"])
def test_finds_dead_epochs_of_its_own_installation_only(tmp_path: Path, form: str) -> None:
    for installation, epoch in (("a", 1), ("a", 2), ("a", 3), ("a", 10), ("b", 1), ("a_1", 1)):
        fake_tree(tmp_path, container_cgroup(cgroup_parent(installation, epoch, form), ID).lstrip("/"))
    fake_tree(tmp_path, "toolcrib_a_1", "docker", "toolcrib-a-1")
    dead = Reaper("a", 3, {"": tmp_path}).find_dead()
    assert [epoch.number for epoch in dead] == [1, 2]
    assert [epoch.number for epoch in Reaper("a", 0, {"": tmp_path}).find_dead()] == [1, 2, 3, 10]
    assert all(epoch.container_ids() == {ID} for epoch in dead)


def test_takes_empty_folders_of_dead_epochs_away(tmp_path: Path) -> None:
    live, dead = (container_cgroup(cgroup_parent("a", epoch, "cgroupfs"), ID) for epoch in (2, 1))
    fake_tree(tmp_path, live.lstrip("/"), dead.lstrip("/") + "/nested")
    assert Reaper("a", 2, {"": tmp_path}).reap() == [ID]
    assert [folder.name for folder in tmp_path.iterdir()] == [Path(live).parent.name]


def test_takes_its_own_folder_away_once_it_is_empty(tmp_path: Path) -> None:
    folder = tmp_path / cgroup_parent("a", 2, "cgroupfs").lstrip("/")
    (folder / ID).mkdir(parents=True)
    Reaper("a", 2, {"": tmp_path}).remove_own()
    assert folder.exists()
    (folder / ID).rmdir()
    Reaper("a", 2, {"": tmp_path}).remove_own()
    assert not folder.exists()


def test_tells_no_processor_time_of_a_group_that_is_not_there() -> None:
    assert cpu_seconds("/toolcrib_none_1/" + ID) is None


# --- real containers ---
Make = Callable[..., str]


class Yard:
    """Makes containers that sleep, by installation, epoch and runtime, and takes them away again."""

    def __init__(self, engine: Engine, image: str) -> None:
        self.engine, self.image = engine, image
        self.made: list[str] = []
        self.driver = engine.info().cgroup_driver

    def make(self, installation: str, epoch: int, runtime: str = "runc", program: str = SLEEP) -> str:
        """Start a container; gives its id."""
        config: dict[str, Any] = {
            "Image": self.image,
            "Entrypoint": ["/usr/bin/python3", "-c", program],
            "NetworkDisabled": True,
            "HostConfig": {
                "Runtime": runtime,
                "CgroupParent": cgroup_parent(installation, epoch, self.driver),
                "PidsLimit": 200,
            },
        }
        made = str(self.engine.client.create_container_from_config(config)["Id"])
        self.made.append(made)
        self.engine.client.start(made)
        return made

    def clear(self) -> None:
        """Remove what was made."""
        for made in self.made:
            self.engine.client.remove_container(made, force=True)


@pytest.fixture
def yard(engine: Engine, base_image: str) -> Iterator[Yard]:
    yard = Yard(engine, base_image)
    yield yard
    yard.clear()


@pytest.fixture
def clean(installation: str) -> Iterator[None]:
    """The test's own epochs leave no folder behind."""
    yield
    for name in (installation, installation + "x"):
        Reaper(name, 0).reap()
        assert Reaper(name, 0).find_dead() == []


def runtimes() -> list[Any]:
    """Both runtimes; runsc is left out where TOOLCRIB_WITHOUT names it, or it is not installed."""
    lacking = without("runsc") or shutil.which("runsc") is None
    return ["runc", pytest.param("runsc", marks=pytest.mark.skipif(lacking, reason="without runsc"))]


@pytest.mark.engine
@pytest.mark.parametrize("runtime", runtimes())
def test_kills_what_dead_epochs_left_and_nothing_else(yard: Yard, installation, runtime, clean) -> None:
    live = yard.make(installation, 3, runtime)
    other = yard.make(installation + "x", 1, runtime)
    dead = [yard.make(installation, epoch, runtime) for epoch in (1, 2)]
    assert Reaper(installation, 3).reap() == dead
    assert [find_processes(container) for container in dead] == [[], []]
    assert find_processes(live)
    assert find_processes(other)


@pytest.mark.engine
def test_kills_what_forks_all_the_time(yard: Yard, installation, clean) -> None:
    forking = yard.make(installation, 1, program=FORK)
    time.sleep(0.3)
    assert Reaper(installation, 2).reap() == [forking]
    assert find_processes(forking) == []


@pytest.mark.engine
@pytest.mark.parametrize("runtime", runtimes())
def test_tells_the_processor_time_of_a_container(yard: Yard, installation, runtime, clean) -> None:
    busy = yard.make(installation, 1, runtime, "while True: pass")
    cgroup = container_cgroup(cgroup_parent(installation, 1, yard.driver), busy)
    before = cpu_seconds(cgroup)
    time.sleep(1.0)
    after = cpu_seconds(cgroup)
    assert before is not None
    assert after is not None
    assert after > before + 0.05


@pytest.fixture
def mortal() -> Iterator[tuple[PrivateEngine, Path]]:
    """An engine that the test may kill."""
    if without("engine"):
        pytest.skip("TOOLCRIB_WITHOUT names the engine")
    with tempfile.TemporaryDirectory(prefix="tc-") as name:
        engine = start_engine(Folders(Path(name) / "run", Path(name) / "state"))
        yield engine, Path(name)
        engine.stop()


@pytest.mark.engine
@pytest.mark.parametrize("runtime", runtimes())
def test_kills_what_a_killed_engine_forgot(mortal, installation, runtime, clean) -> None:
    engine, _ = mortal
    yard = Yard(engine, build_base(engine, STATE / "cache"))
    dead = yard.make(installation, 1, runtime)
    engine._process.kill()
    engine._process.wait()
    assert find_processes(dead)
    assert Reaper(installation, 2).reap() == [dead]
    assert find_processes(dead) == []
