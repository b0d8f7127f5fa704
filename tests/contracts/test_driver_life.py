"""D1 to D7 on every driver: what it makes, and what it takes away again."""

from __future__ import annotations

import pytest

from tests.contracts.driver_clauses import CHECKERS
from tests.contracts.driver_trial import DriverFactory

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("clause", [f"D{number}" for number in range(1, 8)])
async def test_keeps(make: DriverFactory, clause: str) -> None:
    await CHECKERS[clause](make)
