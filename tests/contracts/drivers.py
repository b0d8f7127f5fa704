"""The drivers that the contract is checked on, each as a factory.

Production drivers claim every clause. Those for tests only claim what `unclaimed` leaves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sandboxes.docker_driver import DockerDriver
from sandboxes.engine import Engine
from sandboxes.hardening import MEASURES, Measure
from sandboxes.runtimes import RUNC, RUNSC, Runtime
from sandboxes.sandbox import Driver
from tests.contracts.driver_trial import DriverFactory

PRODUCTION = ("docker-runc", "docker-runsc", "bubblewrap")


def docker_factory(
    engine: Engine, image_id: str, runtime: Runtime, lacking: tuple[str, ...] = (), *more: Measure
) -> DriverFactory:
    """Make a factory of drivers on the Docker Engine.

    Args:
        engine: Where the containers run.
        image_id: The base image will do.
        runtime: What runs them.
        lacking: Measures that are taken away.
        more: Measures that are put in their place.
    """
    unknown = set(lacking) - {measure.name for measure in MEASURES}
    assert not unknown, f"no such measure: {unknown}"
    measures = [*(measure for measure in MEASURES if measure.name not in lacking), *more]

    def make(installation: str, epoch: int) -> Driver:
        return DockerDriver(engine, installation, epoch, runtime=runtime, measures=measures)

    return DriverFactory(runtime.name, make, image_id)


def _find_factory(request: pytest.FixtureRequest) -> DriverFactory:
    if request.param == "bubblewrap":
        made: DriverFactory = request.getfixturevalue("bubblewrap_factory")
        return made
    engine, image_id = request.getfixturevalue("engine"), request.getfixturevalue("base_image")
    runtime = {"docker-runc": RUNC, "docker-runsc": RUNSC}[request.param]
    if runtime.runtime not in engine.info().runtimes:
        pytest.skip(f"the engine has no runtime {runtime.runtime}")
    return docker_factory(engine, image_id, runtime)


@pytest.fixture(params=PRODUCTION)
async def make(request: pytest.FixtureRequest) -> AsyncIterator[DriverFactory]:
    """A factory of each kind; nothing may be left when the test is over."""
    found = _find_factory(request)
    yield found
    await found.close()
    left = [name for elsewhere in (False, True) for name in await found(99, elsewhere=elsewhere).leftovers()]
    await found.close()
    assert left == [], f"left over: {left}"
