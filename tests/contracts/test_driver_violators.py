"""Each clause of the driver contract has a checker, and drivers that violate it, which that checker finds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contracts.driver_clauses import CHECKERS, read_clauses
from tests.contracts.driver_trial import DriverFactory
from tests.contracts.fake_driver import IMAGE, UNCLAIMED, FakeDriver, FakeEngine
from tests.contracts.violators import VIOLATORS, Violate
from tests.contracts.violators_call import CALL_VIOLATORS
from tests.contracts.violators_containment import CONTAINMENT_VIOLATORS

FOUND = VIOLATORS | CALL_VIOLATORS
CASES = [
    pytest.param(clause, violate, id=f"{clause}-{violate.__name__.lstrip('_')}")
    for clause, violators in FOUND.items()
    for violate in violators
]


@pytest.fixture
async def make() -> AsyncIterator[DriverFactory]:
    engine = FakeEngine()
    yield DriverFactory("fake", lambda *place: FakeDriver(engine, *place), IMAGE, UNCLAIMED)
    await engine.end_all()


def test_has_a_checker_and_a_violator_for_every_clause() -> None:
    clauses = read_clauses()
    assert len(clauses) >= 20
    assert set(CHECKERS) == set(clauses)
    assert FOUND.keys() | CONTAINMENT_VIOLATORS.keys() == set(clauses)
    assert all((*FOUND.values(), *CONTAINMENT_VIOLATORS.values()))


@pytest.mark.parametrize(("clause", "violate"), CASES)
async def test_finds_the_violator(make: DriverFactory, clause: str, violate: Violate) -> None:
    with pytest.raises(AssertionError):
        await CHECKERS[clause](make.violated_by(violate))


@pytest.mark.parametrize("clause", [clause for clause in read_clauses() if clause not in UNCLAIMED])
async def test_accepts_what_the_violators_cover(make: DriverFactory, clause: str) -> None:
    await CHECKERS[clause](make)
