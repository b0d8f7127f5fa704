"""Calls in doubt, as far as this process works on them: who reports one, who resolves it, who waits for it.

The store knows which calls are in doubt; this only wakes the resolution up, and lets a retry wait while its
key's call is being resolved.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager


class Doubts:
    """Brings those who find doubts, those who resolve them and those who wait together."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._in_hand: dict[str, asyncio.Event] = {}

    @property
    def count(self) -> int:
        """How many calls are being resolved now."""
        return len(self._in_hand)

    def report(self) -> None:
        """Say that a call has ended in doubt."""
        self._news.set()

    async def wait_for_news(self, seconds: float) -> None:
        """Return when a call was reported, or when the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    @contextmanager
    def hold(self, call_id: str) -> Iterator[None]:
        """Have a call in hand: whoever asks for its outcome waits meanwhile."""
        done = self._in_hand[call_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._in_hand[call_id]
            done.set()

    async def wait(self, call_id: str, seconds: float) -> bool:
        """Wait for a call that is being resolved; False when it is not, or when the time is up."""
        done = self._in_hand.get(call_id)
        if done is None:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await done.wait()
        return done.is_set()
