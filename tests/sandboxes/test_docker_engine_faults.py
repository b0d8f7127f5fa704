"""The driver on an engine that is away, stalls, or refuses: what it then knows, owes and forgets."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandboxes.docker_driver import DockerDriver, DockerSandbox
from sandboxes.doorway import Doorway
from sandboxes.engine import Engine, Folders, start_engine
from sandboxes.images import build_base, build_bundle
from sandboxes.outcome import SandboxSpec, SandboxUnavailable
from sandboxes.processes import find_processes
from tests.parts import without
from tests.parts.engine import COMMAND, OBEDIENT_HANDLER, STATE, Obedient, TestLimits


class StrangeEngine:
    """Knows of nothing but what it is told, and never answers what it stalls on.

    Attributes:
        stalls: Requests that get no answer, by a part of their first line.
        knows: Answers, by a part of the request's first line; 404 to all others.
        asked: The first lines of all requests.
    """

    def __init__(self) -> None:
        self.stalls: set[str] = set()
        self.knows = {"/containers/json": b"[]"}
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"(?i)content-length: (\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                self.asked.append(head.splitlines()[0])
                if any(part in self.asked[-1] for part in self.stalls):
                    await reader.read()
                    break
                body = next((body for part, body in self.knows.items() if part in self.asked[-1]), b"")
                status = b"200 OK" if body else b"404 Not Found"
                writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        writer.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a unix socket's is limited."""
    with tempfile.TemporaryDirectory(prefix="tc-") as name:
        yield Path(name)


@pytest.fixture
async def strange(folder: Path) -> AsyncIterator[StrangeEngine]:
    strange = StrangeEngine()
    server = await asyncio.start_unix_server(strange.serve, folder / "d.sock")
    yield strange
    server.close()


@pytest.fixture
async def driver(folder: Path) -> AsyncIterator[DockerDriver]:
    engine = Engine(f"unix://{folder}/d.sock", timeout_seconds=0.3)
    driver = DockerDriver(engine, "test", 2)
    yield driver
    await driver.close()
    engine.close()


async def make(driver: DockerDriver) -> None:
    spec = SandboxSpec("sha256:0", COMMAND, TestLimits(), None, driver.allocate_uid())
    async with driver.create(spec, "call"):
        pytest.fail("made a container of nothing")


async def test_remembers_nothing_of_what_no_engine_was_asked_for(driver: DockerDriver) -> None:
    """A broker whose engine is away for hours would otherwise grow with each call."""
    for _ in range(3):
        with pytest.raises(SandboxUnavailable, match="does not answer"):
            await make(driver)
    await driver._settle()
    assert not driver._owed
    assert not driver._live


@pytest.mark.parametrize("times", [1, 3])
async def test_looks_again_for_what_an_engine_may_make_after_a_cancelled_call(
    driver: DockerDriver, strange: StrangeEngine, times: int
) -> None:
    strange.stalls.add("/create")
    call = asyncio.create_task(make(driver))
    await asyncio.sleep(0.1)
    for _ in range(times):
        call.cancel()
        await asyncio.sleep(0.02)
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(driver._owed) == 1
    before = len([line for line in strange.asked if line.startswith("DELETE")])
    await driver.reap()
    await driver._settle()
    assert len([line for line in strange.asked if line.startswith("DELETE")]) > before
    assert not driver._live


async def test_forgets_what_an_engine_refused_to_make(driver: DockerDriver, strange: StrangeEngine) -> None:
    with pytest.raises(SandboxUnavailable):
        await make(driver)
    await driver._settle()
    assert not driver._live
    assert any(line.startswith("DELETE") for line in strange.asked)


async def test_reaps_although_something_owed_is_gone_already(
    driver: DockerDriver, strange: StrangeEngine
) -> None:
    driver._owed.add("toolcrib-removed-meanwhile")
    assert await driver.reap() == []
    assert not driver._owed


async def test_leaves_no_task_behind_when_an_engine_stalls_on_removal(
    driver: DockerDriver, strange: StrangeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxes.docker_driver._REMOVE_SECONDS", 0.05)
    strange.stalls.add("DELETE")
    spec = SandboxSpec("sha256:0", COMMAND, TestLimits(), None, driver.allocate_uid())
    dead = driver._live["dead"] = DockerSandbox(driver._api, spec, "dead", lambda: datetime.now(UTC))
    dead._asked, dead.gone = True, dead.made
    await driver.close()
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("remove")] == []


async def test_watches_no_door_once_it_waits_no_longer(driver: DockerDriver, folder: Path) -> None:
    """A loop that still watches a closed descriptor fails whoever has its number next."""
    spec = SandboxSpec("sha256:0", COMMAND, TestLimits(), None, driver.allocate_uid())
    sandbox = DockerSandbox(driver._api, spec, "call", lambda: datetime.now(UTC))
    door, watched = Doorway(folder, "call", spec.uid), []

    async def meet() -> None:
        try:
            await sandbox._meet(door)
        finally:
            watched.append(asyncio.get_running_loop().remove_reader(door._listener))

    call = asyncio.create_task(meet())
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    door.close()
    assert watched == [False]


async def test_ends_what_waits_when_its_engine_was_killed() -> None:
    if without("engine"):
        pytest.skip("TOOLCRIB_WITHOUT names the engine")
    with tempfile.TemporaryDirectory(prefix="tc-") as name:
        engine = start_engine(Folders(Path(name) / "run", Path(name) / "state"))
        image = build_bundle(
            engine, build_base(engine, STATE / "cache"), "b", {"handler.py": OBEDIENT_HANDLER}
        )
        driver = DockerDriver(engine, "test", 1)
        await driver.start()
        async with driver.create(Obedient(engine, image, "test", driver).spec(), "warm") as sandbox:
            await sandbox.warm_up(20)
            engine._process.kill()
            async with asyncio.timeout(10):
                while sandbox.is_alive:
                    await asyncio.sleep(0.1)
            assert find_processes(sandbox.container_id) == []
        await driver.close()
        engine.stop()
