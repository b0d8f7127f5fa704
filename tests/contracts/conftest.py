"""Fixtures of the contract suites."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.store.cipher import Cipher
from broker.store.epochs import Watch
from broker.store.protocol import Store
from tests.contracts.drivers import make
from tests.contracts.stores import MemoryPlace, SetClock, SqlitePlace, StorePlace

__all__ = ["clock", "make", "place", "store"]


class _Closing:
    """A place that remembers what it opened."""

    def __init__(self, place: StorePlace) -> None:
        self._place = place
        self.clock = place.clock
        self.opened: list[Store] = []

    def open(self, cipher: Cipher | None = None) -> Store:
        self.opened.append(self._place.open(cipher))
        return self.opened[-1]

    def open_free(self, watch: Watch | None = None) -> Store:
        self.opened.append(self._place.open_free(watch))
        return self.opened[-1]

    def mark_restored(self, grace_seconds: float) -> None:
        self._place.mark_restored(grace_seconds)


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
