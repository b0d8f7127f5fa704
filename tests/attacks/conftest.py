"""The grounds on which attacks run."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import pytest

from sandboxes.bubblewrap_driver import BubblewrapDriver
from sandboxes.docker_driver import DockerDriver
from sandboxes.runtimes import RUNTIMES as ENGINE_RUNTIMES
from tests.attacks.arena import CONTROL, RUNTIMES, Ground, load_attacks
from tests.parts import without
from tests.parts.bubblewrap import BubblewrapTool
from tests.parts.engine import Obedient


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each attack on one runtime, the runtimes in turn; TOOLCRIB_ATTACKS=all keeps it on each."""
    if os.environ.get("TOOLCRIB_ATTACKS") == "all":
        return
    places = {attack.name: place for place, attack in enumerate(load_attacks())}
    items[:] = [item for item in items if _is_in_turn(item, places)]


def _is_in_turn(item: pytest.Item, places: Mapping[str, int]) -> bool:
    given = getattr(item, "callspec", None)
    if given is None or not {"attack", "closed_ground"} <= given.params.keys():
        return True
    return bool(
        given.params["closed_ground"] == RUNTIMES[places[given.params["attack"].name] % len(RUNTIMES)]
    )


@pytest.fixture(params=RUNTIMES)
def closed_ground(request: pytest.FixtureRequest) -> Ground:
    """A runtime's own sandboxes, with all that protects them; `ground` ends them."""
    name, installation = request.param, request.getfixturevalue("installation")
    if name == "bubblewrap":
        folders, image = (request.getfixturevalue(f"bubblewrap_{part}") for part in ("folders", "image"))
        bubblewrap = BubblewrapDriver(folders, installation, 2)
        return Ground(name, BubblewrapTool(folders, image, installation, bubblewrap), bubblewrap)
    if without(name.removeprefix("docker-")):
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
