"""The grounds on which attacks run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.attacks.arena import CONTROL, Ground
from tests.parts.engine import Obedient

READY = ("docker-runc",)


@pytest.fixture(params=READY)
async def ground(request: pytest.FixtureRequest, obedient: Obedient) -> AsyncIterator[Ground]:
    """A runtime's own sandboxes, with all that protects them."""
    yield Ground(request.param, obedient, obedient.driver)


@pytest.fixture
def open_ground(obedient: Obedient) -> Ground:
    """Where controls run; each weakens it as it says."""
    return Ground(CONTROL, obedient, obedient.driver)
