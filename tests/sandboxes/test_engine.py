"""Finding an engine, starting one of our own, and saying clearly what is missing."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxes.docker_driver import DockerDriver
from sandboxes.engine import (
    Engine,
    EngineMissing,
    Folders,
    PrivateEngine,
    _find_problems,
    find_engine,
    start_engine,
)
from sandboxes.engine_api import EngineStalled
from sandboxes.images import build_base, build_bundle
from sandboxes.outcome import SandboxSpec, SandboxUnavailable
from sandboxes.processes import find_processes
from tests.parts import without
from tests.parts.engine import COMMAND, OBEDIENT_HANDLER, STATE, Obedient, TestLimits

GOOD_VERSION = {"Version": "20.10.24", "ApiVersion": "1.41"}
GOOD_INFO = {"MemoryLimit": True, "PidsLimit": True, "CpuCfsQuota": True, "SecurityOptions": ["name=seccomp"]}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a unix socket's is limited."""
    with tempfile.TemporaryDirectory(prefix="tc-") as name:
        yield Path(name)


@pytest.fixture
def stalled(folder: Path) -> Iterator[Engine]:
    """An engine that takes every request and answers none."""
    stop = threading.Event()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(folder / "stalled.sock"))
        door.listen(16)
        engine = Engine(f"unix://{folder}/stalled.sock", timeout_seconds=0.2)
        yield engine
        engine.close()
    stop.set()


def test_refuses_an_engine_elsewhere() -> None:
    with pytest.raises(EngineMissing, match="unix://"):
        Engine("tcp://127.0.0.1:2375")


def test_does_not_replace_the_engine_that_was_asked_for(folder: Path) -> None:
    with pytest.raises(EngineMissing, match=r"no Docker Engine answers at unix:///.*none\.sock"):
        find_engine(folder, f"unix://{folder}/none.sock")
    assert list(folder.iterdir()) == []


def test_says_when_an_engine_does_not_answer(stalled: Engine) -> None:
    with pytest.raises(EngineMissing, match="no Docker Engine answers"):
        stalled.info()


def test_refuses_a_path_that_no_socket_can_have(folder: Path) -> None:
    deep = folder / ("x" * 100)
    with pytest.raises(EngineMissing, match="shorter run_dir"):
        start_engine(Folders(deep, folder / "state"))
    assert not deep.exists()


def test_finds_no_problem_with_a_good_engine() -> None:
    assert _find_problems(GOOD_VERSION, GOOD_INFO) == []


@pytest.mark.parametrize(
    ("lacking", "named"),
    [
        ({"MemoryLimit": False}, "memory"),
        ({"PidsLimit": False}, "process limits"),
        ({"CpuCfsQuota": False}, "cpu"),
        ({"SecurityOptions": None}, "seccomp"),
    ],
)
def test_names_what_an_engine_lacks(lacking: dict[str, object], named: str) -> None:
    (problem,) = _find_problems(GOOD_VERSION, GOOD_INFO | lacking)
    assert named in problem


def test_names_an_engine_that_is_too_old() -> None:
    (problem,) = _find_problems({"Version": "19.03", "ApiVersion": "1.40"}, GOOD_INFO)
    assert "too old" in problem


async def test_is_unavailable_when_the_engine_stalls(stalled: Engine) -> None:
    driver = DockerDriver(stalled, "test", 1)
    spec = SandboxSpec("sha256:0", COMMAND, TestLimits(), None, driver.allocate_uid())
    with pytest.raises(SandboxUnavailable, match="does not answer"):
        async with driver.create(spec, "call"):
            pytest.fail("made a container of nothing")
    with pytest.raises(EngineStalled):
        await driver.leftovers()
    await driver.close()


@pytest.mark.engine
class TestPrivateEngine:
    """An engine of our own."""

    @pytest.fixture(autouse=True)
    def _needs_dockerd(self) -> None:
        if without("engine"):
            pytest.skip("TOOLCRIB_WITHOUT names the engine")
        assert shutil.which("dockerd") and os.geteuid() == 0, (
            "needs root and dockerd, or TOOLCRIB_WITHOUT=engine"
        )

    def test_starts_and_goes_away_without_a_trace(self, folder: Path) -> None:
        engine = start_engine(Folders(folder / "run", folder / "state"))
        assert engine.check().problems == ()
        engine.stop()
        assert not (folder / "run").exists()
        assert _processes_about(folder) == []

    def test_has_gvisor_where_it_is_installed(self, folder: Path) -> None:
        engine = start_engine(Folders(folder / "run", folder / "state"))
        info = engine.info()
        engine.stop()
        assert ("runsc" in info.runtimes) == (shutil.which("runsc") is not None)
        assert info.cgroup_driver in ("cgroupfs", "systemd")
        assert not info.user_namespaces

    def test_refuses_folders_in_use_and_ends_a_stray(self, folder: Path) -> None:
        folders = Folders(folder / "run", folder / "state")
        first = start_engine(folders)
        with pytest.raises(EngineMissing, match="another process"):
            start_engine(folders)
        _forget(first)
        second = start_engine(folders)
        assert second.answers()
        second.stop()
        first._process.wait()
        assert _processes_about(folder) == []

    @pytest.mark.parametrize("runtime", ["runc", "runsc"])
    def test_ends_containers_of_an_engine_that_was_killed(self, folder: Path, runtime: str) -> None:
        engine = start_engine(Folders(folder / "run", folder / "state"))
        if runtime not in engine.info().runtimes:
            engine.stop()
            pytest.skip(f"{runtime} is not installed")
        image = build_base(engine, STATE / "cache")
        sleep = ["/usr/bin/python3", "-c", "import time; time.sleep(600)"]
        config = {"Image": image, "Entrypoint": sleep, "HostConfig": {"Runtime": runtime}}
        made = engine.client.create_container_from_config({**config, "NetworkDisabled": True})["Id"]
        engine.client.start(made)
        engine._process.kill()
        engine.stop()
        assert find_processes(made) == []
        assert _processes_about(folder) == []

    async def test_serves_a_call_to_its_end_though_its_engine_was_killed(self, folder: Path) -> None:
        engine = start_engine(Folders(folder / "run", folder / "state"))
        image = build_bundle(
            engine, build_base(engine, STATE / "cache"), "b", {"handler.py": OBEDIENT_HANDLER}
        )
        driver = DockerDriver(engine, "test", 1)
        obedient = Obedient(engine, image, "test", driver)
        async with driver.create(obedient.spec(), "call") as sandbox:
            call = asyncio.create_task(sandbox.run(obedient.start("import time; time.sleep(1)"), 30))
            await asyncio.sleep(0.3)
            engine._process.kill()
            outcome = await call
        await driver.close()
        engine.stop()
        assert outcome.kind == "result"
        assert sandbox.gone is not None
        assert find_processes(sandbox.container_id) == []
        assert _processes_about(folder) == []
        assert str(folder) not in Path("/proc/self/mounts").read_text()


def _forget(engine: PrivateEngine) -> None:
    """Be the starter that died: its lock is gone, its engine is not."""
    os.close(engine._lock)
    engine.close()


def _processes_about(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if str(folder) in words:
            found.append(words)
    return found
