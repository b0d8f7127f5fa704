"""Fixtures of the contract suites."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.store.protocol import Store
from tests.contracts.stores import MemoryPlace, SetClock, SqlitePlace, StorePlace


class _Closing:
    """A place that remembers what it opened."""

    def __init__(self, place: StorePlace) -> None:
        self._place = place
        self.clock = place.clock
        self.opened: list[Store] = []

    def open(self) -> Store:
        self.opened.append(self._place.open())
        return self.opened[-1]


@pytest.fixture(params=["memory", "sqlite"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StorePlace]:
    """A place without a store in it, once in memory and once on the disk."""
    place = _Closing(MemoryPlace() if request.param == "memory" else SqlitePlace(tmp_path))
    yield place
    for store in place.opened:
        await store.close()


@pytest.fixture
def store(place: StorePlace) -> Store:
    """A fresh store."""
    return place.open()


@pytest.fixture
def clock(place: StorePlace) -> SetClock:
    """The store's clock."""
    return place.clock
