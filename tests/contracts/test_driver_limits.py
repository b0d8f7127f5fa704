"""S7 to S11 and S13 on every driver: how a sandbox ends, and what it can reach."""

from __future__ import annotations

import pytest

from sandboxes.engine import Engine
from sandboxes.runtimes import RUNC
from tests.contracts.driver_clauses import CHECKERS
from tests.contracts.driver_trial import DriverFactory
from tests.contracts.drivers import docker_factory
from tests.contracts.violators_containment import CONTAINMENT_VIOLATORS, Weakness

pytestmark = pytest.mark.engine

CASES = [
    pytest.param(clause, weakness, id=f"{clause}-without-{weakness.lacking[0]}")
    for clause, weaknesses in CONTAINMENT_VIOLATORS.items()
    for weakness in weaknesses
]


@pytest.mark.parametrize("clause", ["S7", "S8", "S9", "S10", "S11", "S13"])
async def test_keeps(make: DriverFactory, clause: str) -> None:
    await CHECKERS[clause](make)


@pytest.mark.parametrize(("clause", "weakness"), CASES)
async def test_finds_what_is_not_contained(
    engine: Engine, base_image: str, clause: str, weakness: Weakness
) -> None:
    weak = docker_factory(engine, base_image, RUNC, weakness.lacking, *weakness.more)
    try:
        with pytest.raises(AssertionError):
            await CHECKERS[clause](weak)
    finally:
        await weak.close()
