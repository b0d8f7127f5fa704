"""Lulls between calls: when the end of a sandbox that has nothing to act by costs nobody time.

To end a container costs ten times as much processor time as a call. Whoever has a way out or a credential in
one ends it at once; the end of one that had neither is held back for a moment while calls come in a row.
"""

from __future__ import annotations

import asyncio
import math

from sandboxes.sandbox import Sandbox

LULL_SECONDS, LINGER_SECONDS = 0.01, 0.1
"""It ends when no call has come for the first, after the second at the latest."""


class Lull:
    """Knows when the last call came."""

    def __init__(self) -> None:
        self.over = False  # nothing is held back any more
        self._last_call = -math.inf  # on the loop's clock

    def note_call(self) -> None:
        """Note that a call comes."""
        self._last_call = asyncio.get_running_loop().time()

    async def wait(self, sandbox: Sandbox) -> None:
        """Wait for a lull, or until somebody else has ended the sandbox; not long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LINGER_SECONDS
        while not self.over and sandbox.gone is None and loop.time() < until:
            if loop.time() - self._last_call >= LULL_SECONDS:
                return
            await asyncio.sleep(LULL_SECONDS)
