"""Fixtures for the real Docker Engine: engine, base image, a driver, and a tool that does what it is told.

The engine is the one at DOCKER_HOST or at the usual socket; where there is none and we are root, a private
one is started for the session. Its images stay in .toolcrib/tests (or another folder that
TOOLCRIB_TESTS_ENGINE names) and the downloaded parts in
.toolcrib/cache, so that only the first run downloads. Every `driver` has an installation of its own, and its
teardown fails when a container is left over.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sandboxes.docker_driver import DockerDriver
from sandboxes.engine import Engine, EngineMissing, find_engine
from sandboxes.hardening import MEASURES, Measure
from sandboxes.images import build_base, build_bundle
from sandboxes.outcome import RawOutcome, SandboxSpec
from tests.parts import REAL_PARTS, without
from toolcrib.handler.v1 import handler_pb2

STATE = Path(__file__).parents[2] / ".toolcrib"
ENGINE = os.environ.get("TOOLCRIB_TESTS_ENGINE", "tests")
"""Name of the private engine's folder: two runs side by side have one each."""

COMMAND = ("python3", "-m", "handler")

# A tool that runs the program in its request and answers with what that put into `answer`.
OBEDIENT_HANDLER = b"""
from toolcrib.handler import Handler
from toolcrib.handler.v1 import handler_pb2

handler = Handler()

@handler.tool("test.v1.Obedient/Run", handler_pb2.Progress)
def run(request, context):
    scope = {"answer": "", "context": context}
    exec(request.message, scope)
    return handler_pb2.Progress(message=str(scope["answer"]))

handler.run()
"""


@dataclass(frozen=True)
class TestLimits:
    """Limits of a sandbox; the fields are those of a manifest."""

    __test__ = False
    memory_mib: int = 96
    pids: int = 24
    cpus: float = 1.0
    tmp_mib: int = 8
    output_kib: int = 256
    log_kib: int = 16
    artefacts: int = 0
    artefact_kib: int = 64


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A real engine; missing means failed, unless TOOLCRIB_WITHOUT names it."""
    if without("engine"):
        pytest.skip("TOOLCRIB_WITHOUT names the engine")
    try:
        found = find_engine(
            tmp_path_factory.mktemp("engine"), os.environ.get("DOCKER_HOST") or None, STATE / ENGINE
        )
    except EngineMissing as error:
        pytest.fail(
            f"these tests need a real Docker Engine (or TOOLCRIB_WITHOUT=engine): {error}", pytrace=False
        )
    REAL_PARTS.append(found.check().describe())
    yield found
    found.stop()


@pytest.fixture(scope="session")
def base_image(engine: Engine) -> str:
    """Id of the base image; the first run downloads its parts."""
    return build_base(engine, STATE / "cache")


@pytest.fixture(scope="session")
def obedient_image(engine: Engine, base_image: str) -> str:
    """Id of the image whose tool runs the program in its request."""
    return build_bundle(engine, base_image, "obedient", {"handler.py": OBEDIENT_HANDLER})


@pytest.fixture
def installation() -> str:
    """An installation id that nothing else has."""
    return f"test-{uuid.uuid4()}"


@pytest.fixture
async def driver(engine: Engine, installation: str) -> AsyncIterator[DockerDriver]:
    """A driver; the test fails when it leaves a container behind."""
    driver = DockerDriver(engine, installation, epoch=2)
    yield driver
    left = await driver.leftovers()
    for container in left:
        await driver.end_container(container)
    await driver.close()
    assert left == [], f"containers left over: {left}"


@dataclass(frozen=True)
class Obedient:
    """Runs programs as the tool of one call."""

    engine: Engine
    image: str
    installation: str
    driver: DockerDriver
    limits: TestLimits = TestLimits()

    def spec(self, driver: DockerDriver | None = None, command: Sequence[str] = COMMAND) -> SandboxSpec:
        """A sandbox of the obedient tool."""
        uid = (driver or self.driver).allocate_uid()
        return SandboxSpec(self.image, tuple(command), self.limits, None, uid)

    def within(self, **limits: int) -> Obedient:
        """The same with other limits."""
        return replace(self, limits=replace(self.limits, **limits))

    def start(self, program: str) -> handler_pb2.Start:
        """The Start frame that makes the tool run a program."""
        request = handler_pb2.Progress(message=program).SerializeToString()
        return handler_pb2.Start(protocol_version=1, method="test.v1.Obedient/Run", request=request)

    async def run(self, program: str, deadline_seconds: float = 10.0) -> RawOutcome:
        """Run a program in a fully hardened sandbox."""
        async with self.driver.create(self.spec(), "call") as sandbox:
            return await sandbox.run(self.start(program), deadline_seconds)

    async def answer(self, program: str) -> str:
        """Run a program in a fully hardened sandbox and give what it put into `answer`."""
        return answer_of(await self.run(program))

    async def answer_unprotected(self, program: str, *lacking: str, instead: Sequence[Measure] = ()) -> str:
        """The positive control: the same program with single measures taken away."""
        names = {measure.name for measure in MEASURES}
        assert set(lacking) <= names, f"no such measure: {set(lacking) - names}"
        measures = [*(measure for measure in MEASURES if measure.name not in lacking), *instead]
        driver = DockerDriver(self.engine, self.installation, epoch=2, measures=measures)
        try:
            async with driver.create(self.spec(driver), "control") as sandbox:
                return answer_of(await sandbox.run(self.start(program), 10.0))
        finally:
            await driver.close()


def answer_of(outcome: RawOutcome) -> str:
    """What the obedient tool answered; a failure shows its log."""
    assert outcome.kind == "result", f"{outcome.kind}: {outcome.detail} {outcome.failure} {outcome.log}"
    return handler_pb2.Progress.FromString(outcome.response).message


@pytest.fixture
def obedient(engine: Engine, obedient_image: str, installation: str, driver: DockerDriver) -> Obedient:
    """A tool that does what it is told, in real sandboxes."""
    return Obedient(engine, obedient_image, installation, driver)
