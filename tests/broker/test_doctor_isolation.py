"""The doctor's look at isolation classes: what serves each, proven by a sandbox; and what is not served."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from broker.doctor import Finding, Level
from broker.doctor.engine import _check_runtimes, check_engine
from broker.doctor.isolation import check_isolation
from broker.settings import Settings, read_settings
from broker.store.inspection import StateView
from sandboxes.cgroups import find_cgroups
from sandboxes.engine import Engine, Folders, PrivateEngine, start_engine
from sandboxes.images import build_base
from sandboxes.reaper import Reaper, cgroup_parent
from tests.broker.test_doctor import CONFIG
from tests.parts import without
from tests.parts.engine import STATE

STRONG = (("shop", "bundle: orders\nisolation: strong\n"),)


def view_of(installation: str = "i1", live: int = 0, *manifests: tuple[str, str]) -> StateView:
    return StateView(installation, live, (1, 1), 0, 0, 0, manifests)


def write_settings(folder: Path, classes: str, url: str = "unix:///nowhere/docker.sock") -> Settings:
    """Settings with these classes, on that engine."""
    text = CONFIG.replace("unix:///nowhere/docker.sock", url)
    (folder / "toolcrib.toml").write_text(f"{text}\n[sandboxes]\nclasses = {{ {classes} }}\n")
    return read_settings(folder / "toolcrib.toml")


def of_class(findings: list[Finding], name: str) -> list[Finding]:
    return [finding for finding in findings if finding.subject == f"class {name}"]


async def test_says_that_a_class_is_not_served(tmp_path: Path) -> None:
    settings = write_settings(tmp_path, 'container = "docker-runc"')
    [found] = of_class(await check_isolation(settings, view_of()), "strong")
    assert (found.level, "no driver serves it" in found.text) == (Level.OK, True)


async def test_calls_it_a_problem_when_a_tool_asks_for_it(tmp_path: Path) -> None:
    settings = write_settings(tmp_path, 'container = "docker-runc"')
    [found] = of_class(await check_isolation(settings, view_of("i1", 0, *STRONG)), "strong")
    assert found.level is Level.PROBLEM
    assert "[sandboxes.classes]" in found.remedy


async def test_says_that_bubblewrap_is_weaker(tmp_path: Path) -> None:
    settings = write_settings(tmp_path, 'container = "bubblewrap"')
    found = of_class(await check_isolation(settings, None), "container")
    assert any("weaker" in one.text and one.level is Level.PROBLEM for one in found)


def write_weak_settings(folder: Path, image_dir: Path) -> Settings:
    """Settings of a broker that uses bubblewrap, with images there."""
    more = f'container = "bubblewrap" }}\nimage_dir = "{image_dir}"\nallow_weak = true\n#'
    return write_settings(folder, more)


async def test_proves_bubblewrap_by_running_one_sandbox(bubblewrap_base: str, tmp_path: Path) -> None:
    settings = write_weak_settings(tmp_path, STATE / "cache")
    found = of_class(await check_isolation(settings, None), "container")
    assert [one.level for one in found] == [Level.OK, Level.WARNING], found
    assert "bubblewrap serves it: a sandbox was ready after" in found[0].text
    assert "weaker" in found[1].text
    assert [group for group in find_cgroups().find() if group.installation.startswith("doctor")] == []


async def test_builds_no_image_to_prove_bubblewrap_with(bubblewrap_base: str, tmp_path: Path) -> None:
    found = of_class(
        await check_isolation(write_weak_settings(tmp_path, tmp_path / "none"), None), "container"
    )
    assert (found[0].level, "no base image" in found[0].text) == (Level.WARNING, True)
    assert not (tmp_path / "none").exists()


async def test_cannot_prove_a_driver_whose_engine_is_missing(tmp_path: Path) -> None:
    settings = write_settings(tmp_path, 'container = "docker-runc"')
    [found] = of_class(await check_isolation(settings, None), "container")
    assert found.level is Level.PROBLEM
    assert "no Docker Engine answers" in found.text


async def test_needs_no_engine_where_no_class_is_mapped_to_it(tmp_path: Path) -> None:
    assert await check_engine(write_settings(tmp_path, 'container = "bubblewrap"'), None) == []


@pytest.mark.engine
@pytest.mark.parametrize("name", ["docker-runc", "docker-runsc"])
async def test_proves_a_driver_by_running_one_sandbox(engine: Engine, base_image, tmp_path, name) -> None:
    if name.removeprefix("docker-") not in engine.info().runtimes:
        pytest.skip(f"the engine has no {name.removeprefix('docker-')}")
    settings = write_settings(tmp_path, f'strong = "{name}"', engine.base_url)
    [found] = of_class(await check_isolation(settings, None), "strong")
    assert found.level is Level.OK, found
    assert f"{name} serves it" in found.text


@pytest.mark.engine
def test_says_which_runtime_the_engine_lacks(engine: Engine) -> None:
    info = engine.info()
    lacking = replace(info, runtimes=tuple(name for name in info.runtimes if name != "runsc"))
    [found] = [one for one in _check_runtimes(lacking, ["runsc"]) if one.level is Level.PROBLEM]
    assert "has no runtime runsc" in found.text
    assert "daemon.json" in found.remedy


@pytest.fixture
def forgotten(engine: Engine, base_image: str, installation: str) -> Iterator[str]:
    """A container of epoch 1, without labels: the engine does not know whose it is."""
    sleep = ["/usr/bin/python3", "-c", "import time; time.sleep(600)"]
    parent = cgroup_parent(installation, 1, engine.info().cgroup_driver)
    config = {"Image": base_image, "Entrypoint": sleep, "HostConfig": {"CgroupParent": parent}}
    made = str(engine.client.create_container_from_config({**config, "NetworkDisabled": True})["Id"])
    engine.client.start(made)
    yield installation
    engine.client.remove_container(made, force=True)
    Reaper(installation, 0).reap()


@pytest.mark.engine
async def test_finds_processes_that_a_dead_broker_left(engine: Engine, forgotten, tmp_path) -> None:
    settings = write_settings(tmp_path, 'container = "docker-runc"', engine.base_url)
    found = [one for one in await check_engine(settings, view_of(forgotten, 2)) if one.subject == "processes"]
    assert [one.level for one in found] == [Level.PROBLEM]
    assert "of epoch 1" in found[0].text


@pytest.fixture
def misled(tmp_path: Path, base_image: str) -> Iterator[Callable[[Sequence[str]], Settings]]:
    """Makes an engine whose runsc has other arguments than ours; gives settings that use it."""
    if without("runsc") or shutil.which("runsc") is None:
        pytest.skip("without runsc")
    engines: list[PrivateEngine] = []
    with tempfile.TemporaryDirectory(prefix="tc-") as name:

        def start(arguments: Sequence[str]) -> Settings:
            script = Path(name) / "runsc"
            script.write_text(f'#!/bin/sh\nexec {shutil.which("runsc")} {" ".join(arguments)} "$@"\n')
            script.chmod(0o755)
            folders = Folders(Path(name) / "run", Path(name) / "state")
            engines.append(start_engine(folders, {"path": str(script)}))
            build_base(engines[0], STATE / "cache")
            return write_settings(tmp_path, 'strong = "docker-runsc"', engines[0].base_url)

        yield start
        for engine in engines:
            engine.stop()


@pytest.mark.engine
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--network=none"], "--host-uds=open"),
        (["--host-uds=open"], "network"),
        (["--host-uds=open", "--network=none", "--ignore-cgroups"], "not in its control groups"),
    ],
)
async def test_finds_a_gvisor_with_other_arguments_by_trying_it(misled, arguments, said) -> None:
    settings = misled(["--platform=ptrace", *arguments])
    [found] = of_class(await check_isolation(settings, None), "strong")
    assert found.level is Level.PROBLEM
    assert said in found.text
    assert "docs/runtimes.md" in found.remedy
