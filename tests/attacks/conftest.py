"""The grounds on which attacks run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from sandboxes.bubblewrap_driver import BubblewrapDriver
from sandboxes.docker_driver import DockerDriver
from sandboxes.runtimes import RUNTIMES as ENGINE_RUNTIMES
from tests.attacks.arena import CONTROL, RUNTIMES, Ground
from tests.parts import without
from tests.parts.bubblewrap import BubblewrapTool
from tests.parts.engine import Obedient


@pytest.fixture(params=RUNTIMES)
def closed_ground(request: pytest.FixtureRequest) -> Ground:
    """A runtime's own sandboxes, with all that protects them; `ground` ends them."""
    name, installation = request.param, request.getfixturevalue("installation")
    if name == "bubblewrap":
        folders, image = (request.getfixturevalue(f"bubblewrap_{part}") for part in ("folders", "image"))
        bubblewrap = BubblewrapDriver(folders, installation, 2)
        return Ground(name, BubblewrapTool(folders, image, installation, bubblewrap), bubblewrap)
    if without(name):
        pytest.skip(f"TOOLCRIB_WITHOUT names {name}")
    engine, image = request.getfixturevalue("engine"), request.getfixturevalue("obedient_image")
    driver = DockerDriver(engine, installation, 2, runtime=ENGINE_RUNTIMES[name])
    return Ground(name, Obedient(engine, image, installation, driver), driver)


@pytest.fixture
async def ground(closed_ground: Ground) -> AsyncIterator[Ground]:
    """The same; the test fails when anything of it is left over."""
    yield closed_ground
    left = await closed_ground.driver.leftovers()
    for container in left:
        await closed_ground.driver.end_container(container)
    await closed_ground.driver.close()
    assert list(left) == [], f"left over: {left}"


@pytest.fixture
def open_ground(obedient: Obedient) -> Ground:
    """Where controls run; each weakens it as it says."""
    return replace(Ground(CONTROL, obedient, obedient.driver))
