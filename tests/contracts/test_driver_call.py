"""S1 to S6 and S12 on every driver: the one call of a sandbox."""

from __future__ import annotations

import pytest

from tests.contracts.driver_clauses import CHECKERS
from tests.contracts.driver_trial import DriverFactory

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("clause", ["S1", "S2", "S3", "S4", "S5", "S6", "S12"])
async def test_keeps(make: DriverFactory, clause: str) -> None:
    await CHECKERS[clause](make)
