"""The drivers of one broker, by the isolation classes that they serve, and the pool of what waits in them.

    fleet = Fleet({"container": docker, "strong": gvisor})
    await fleet.start()
    pool = fleet.open_pool(terms, egress.nest, watch)

A manifest names a class, the operator maps classes to drivers, and nothing falls back to another class by
itself: what no driver serves does not run. One driver may serve several classes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sandboxes.outcome import SandboxUnavailable
from sandboxes.pool import MakeNest, Pool
from sandboxes.pool_review import PoolReview
from sandboxes.pool_size import PoolTerms
from sandboxes.pool_watch import PoolWatch
from sandboxes.sandbox import Driver

_LOOKS, _LOOK_SECONDS = 100, 0.05


class Fleet:
    """Several drivers as one.

    Attributes:
        pool: Where calls get their sandboxes; there once it is opened.
        drivers: By class.
    """

    pool: Pool
    _review: PoolReview

    def __init__(self, drivers: Mapping[str, Driver]) -> None:
        """Know the drivers.

        Raises:
            ValueError: There is none: then nothing could run.
        """
        if not drivers:
            raise ValueError("no driver serves any class")
        self.drivers = dict(drivers)
        self._distinct = list({id(driver): driver for driver in drivers.values()}.values())

    @property
    def names(self) -> dict[str, str]:
        """The driver's name of each class."""
        return {isolation: driver.name for isolation, driver in self.drivers.items()}

    async def start(self) -> None:
        """Make sure that what runs the sandboxes is there and fit.

        Raises:
            SandboxError: It is not; the message says what to do.
        """
        for driver in self._distinct:
            await driver.start()

    def open_pool(self, terms: PoolTerms, make_nest: MakeNest, watch: PoolWatch | None = None) -> Pool:
        """Open the pool and begin to review it."""
        self.pool = Pool(self.drivers, make_nest, terms, watch)
        self._review = PoolReview(self.pool)
        self._review.start()
        return self.pool

    def review_pool(self) -> None:
        """Look now at what waits: something changed that decides what may wait."""
        self._review.review()

    async def close_pool(self) -> None:
        """End every sandbox of the pool, those of running calls among them."""
        await self._review.close()
        await self.pool.close()

    async def close(self) -> None:
        """End every sandbox that is left."""
        for driver in self._distinct:
            await driver.close()

    async def reap(self) -> list[str]:
        """End what other epochs of this installation left; returns what is gone."""
        gone: list[str] = []
        for driver in self._distinct:
            gone += await driver.reap()
        return list(dict.fromkeys(gone))

    async def leftovers(self) -> list[str]:
        """List what is there of this installation and does not wait in the pool, whatever its epoch."""
        for _ in range(_LOOKS):
            found = [one for driver in self._distinct for one in await driver.leftovers()]
            shelves = list(self.pool.shelves.values()) if hasattr(self, "pool") else []
            waiting = set(self.pool.idle) if shelves else set()
            left = [one for one in dict.fromkeys(found) if one not in waiting]
            if not left or not any(shelf.making for shelf in shelves):
                break
            await asyncio.sleep(_LOOK_SECONDS)  # it may be one that is being made, to wait
        return left

    async def end_container(self, container_id: str) -> bool:
        """End what a record names, whichever epoch made it; True when nothing of it is left.

        Raises:
            SandboxUnavailable: Its driver is not there, or is none of this configuration's.
        """
        for driver in self._distinct:
            if driver.knows(container_id):
                return await driver.end_container(container_id)
        raise SandboxUnavailable(
            f"no driver of sandboxes.classes made {container_id[:12]}: map the class that it had again"
        )
