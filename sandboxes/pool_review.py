"""Looks at what waits in a pool, all the time, and ends what should not wait there.

What waits has no call, so it has nothing to do. One that uses the processor all the same runs code that was
put into it for another time: it is killed, and flagged so that people look at the tool version.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from sandboxes.pool import Pool
from sandboxes.pool_stock import Holder, Shelf
from sandboxes.pool_watch import Why

log = logging.getLogger(__name__)

REVIEW_SECONDS = 1.0
RETIRE_SHARE = 0.8
"""Of its idle age; what is left is for the call that takes it: its mint must not take longer."""
LOOK_SECONDS = 3.0
MOST_CPU = 0.02
"""Of one processor, over LOOK_SECONDS. What waits for a frame uses under 0.0002 (measured: runc, runsc)."""


class PoolReview:
    """Reviews one pool regularly."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to review."""
        self._task = asyncio.create_task(self._review_for_ever(), name="pool review")

    async def close(self) -> None:
        """Review no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def review(self) -> None:
        """Look at everything that waits, once, and let the makers fill up."""
        pool, wants = self._pool, self._pool.wants()
        for kind, shelf in list(pool.shelves.items()):
            if not pool.is_wanted(kind):
                for holder in list(shelf.idle):
                    pool.end_idle(shelf, holder, Why.NOT_WANTED)
            for holder in list(shelf.idle):
                why = self._find_fault(shelf, holder)
                if why is not None:
                    pool.end_idle(shelf, holder, why)
            self._shrink(shelf, wants.get(kind, 0))
        pool.forget_unused()
        pool.schedule()

    async def _review_for_ever(self) -> None:
        while True:
            await asyncio.sleep(REVIEW_SECONDS)
            try:
                self.review()
            except Exception:
                log.exception("the pool could not be reviewed")

    def _find_fault(self, shelf: Shelf, holder: Holder) -> Why | None:
        pool = self._pool
        now = pool.clock()
        if not holder.is_fit:
            if holder.is_lost:
                return Why.EGRESS_LOST
            shelf.note_failure(now)
            return Why.DIED
        if now - holder.offered >= pool.terms.idle_seconds * RETIRE_SHARE:
            return Why.RETIRED
        share = _find_cpu_share(holder, now)
        if share is None:
            return None
        if share > MOST_CPU:
            shelf.note_failure(now)
            pool.watch.flagged(shelf.kind, share)
            return Why.BUSY
        shelf.note_success()  # it loaded, and then behaved: neither alone ends a rest
        return None

    def _shrink(self, shelf: Shelf, wanted: int) -> None:
        """End a quarter of what is too much, the oldest first: demand that comes again soon finds the rest.

        A little more than is wanted stays, so that a rate that wavers does not cost a making each time.
        """
        surplus = len(shelf.idle) - wanted
        slack = 1 + wanted // 4 if wanted else 0
        for _ in range((surplus + 3) // 4 if surplus > slack else 0):
            self._pool.end_idle(shelf, shelf.idle[0], Why.SURPLUS)


def _find_cpu_share(holder: Holder, now: float) -> float | None:
    """Tell which share of a processor one used since it was looked at; None while it is too early."""
    since, before = holder.looked
    if now - since < LOOK_SECONDS or holder.sandbox is None:
        return None
    used = holder.sandbox.cpu_seconds()
    holder.looked = (now, used)
    if used is None or before is None:
        return 0.0
    return (used - before) / (now - since)
