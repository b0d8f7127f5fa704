"""Fixtures for bubblewrap: images as folders, a driver, and the tool that does what it is told.

It needs root, bwrap, libseccomp and control groups; missing means failed, unless TOOLCRIB_WITHOUT names
"bubblewrap". The images stay in .toolcrib/cache. Every `bubblewrap_driver` has an installation of its own,
and its teardown fails when a sandbox is left over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from sandboxes.bubblewrap_check import check_bubblewrap
from sandboxes.bubblewrap_compiler import compile_folder
from sandboxes.bubblewrap_driver import BubblewrapDriver
from sandboxes.bubblewrap_measures import MEASURES, Measure
from sandboxes.cgroups import find_cgroups
from sandboxes.folders import Folders
from sandboxes.outcome import RawOutcome, SandboxError, SandboxSpec
from tests.parts import REAL_PARTS, without
from tests.parts.engine import COMMAND, OBEDIENT_HANDLER, STATE, TestLimits, answer_of
from toolcrib.handler.v1 import handler_pb2

if TYPE_CHECKING:
    from tests.contracts.driver_trial import DriverFactory


@pytest.fixture(scope="session")
def bubblewrap_folders() -> Iterator[Folders]:
    """The images, on a host that was found fit."""
    if without("bubblewrap"):
        pytest.skip("TOOLCRIB_WITHOUT names bubblewrap")
    folders = Folders(STATE / "cache", compile_folder)
    try:
        REAL_PARTS.append(check_bubblewrap(find_cgroups()).describe())
    except SandboxError as error:
        pytest.fail(f"these tests need bubblewrap (or TOOLCRIB_WITHOUT=bubblewrap): {error}", pytrace=False)
    yield folders


@pytest.fixture(scope="session")
def bubblewrap_base(bubblewrap_folders: Folders) -> str:
    """Id of the base's folder; the first run downloads its parts."""
    return bubblewrap_folders.build_base()


@pytest.fixture(scope="session")
def bubblewrap_image(bubblewrap_folders: Folders, bubblewrap_base: str) -> str:
    """Id of the folder whose tool runs the program in its request."""
    return bubblewrap_folders.build_bundle(bubblewrap_base, {"handler.py": OBEDIENT_HANDLER})


@pytest.fixture
async def bubblewrap_driver(
    bubblewrap_folders: Folders, installation: str
) -> AsyncIterator[BubblewrapDriver]:
    """A driver; the test fails when it leaves a sandbox behind."""
    driver = BubblewrapDriver(bubblewrap_folders, installation, epoch=2)
    yield driver
    left = await driver.leftovers()
    for sandbox in left:
        await driver.end_container(sandbox)
    await driver.close()
    assert left == [], f"sandboxes left over: {left}"


@dataclass(frozen=True)
class BubblewrapTool:
    """Runs programs as the tool of one call, as `tests.parts.engine.Obedient` does."""

    folders: Folders
    image: str
    installation: str
    driver: BubblewrapDriver
    limits: TestLimits = field(default_factory=TestLimits)

    def spec(self, driver: BubblewrapDriver | None = None, command: Sequence[str] = COMMAND) -> SandboxSpec:
        """A sandbox of the obedient tool."""
        uid = (driver or self.driver).allocate_uid()
        return SandboxSpec(self.image, tuple(command), self.limits, None, uid)

    def within(self, **limits: int) -> BubblewrapTool:
        """The same with other limits."""
        return replace(self, limits=replace(self.limits, **limits))

    def start(self, program: str) -> handler_pb2.Start:
        """The Start frame that makes the tool run a program."""
        request = handler_pb2.Progress(message=program).SerializeToString()
        return handler_pb2.Start(protocol_version=1, method="test.v1.Obedient/Run", request=request)

    async def run(self, program: str, deadline_seconds: float = 10.0) -> RawOutcome:
        """Run a program in a sandbox with all measures."""
        async with self.driver.create(self.spec(), "call") as sandbox:
            return await sandbox.run(self.start(program), deadline_seconds)

    async def answer(self, program: str) -> str:
        """Run a program in a sandbox with all measures and give what it put into `answer`."""
        return answer_of(await self.run(program))

    async def answer_unprotected(self, program: str, *lacking: str, instead: Sequence[Measure] = ()) -> str:
        """The positive control: the same program with single measures taken away."""
        driver = BubblewrapDriver(
            self.folders, self.installation, epoch=2, measures=[*MEASURES, *instead], lacking=lacking
        )
        try:
            async with driver.create(self.spec(driver), "control") as sandbox:
                return answer_of(await sandbox.run(self.start(program), 10.0))
        finally:
            await driver.close()


@pytest.fixture
def bubblewrap_tool(
    bubblewrap_folders: Folders, bubblewrap_image: str, installation: str, bubblewrap_driver: BubblewrapDriver
) -> BubblewrapTool:
    """A tool that does what it is told, in real bubblewraps."""
    return BubblewrapTool(bubblewrap_folders, bubblewrap_image, installation, bubblewrap_driver)


@pytest.fixture
def bubblewrap_factory(bubblewrap_folders: Folders, bubblewrap_base: str) -> DriverFactory:
    """What the contract suite makes drivers with."""
    from tests.contracts.driver_trial import DriverFactory  # not before pytest has rewritten its assertions

    def make(installation: str, epoch: int) -> BubblewrapDriver:
        return BubblewrapDriver(bubblewrap_folders, installation, epoch)

    return DriverFactory("bubblewrap", make, bubblewrap_base)
