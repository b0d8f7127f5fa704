"""Keeps a child process running: starts it, and starts it again whenever it is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from sandboxes.child import Child, ChildGone, ChildRefused

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.05

C = TypeVar("C", bound=Child)
OnGone = Callable[[Child], None]


class Keeper(Generic[C]):
    """Keeps one child running.

    Attributes:
        child: The one that serves; None while there is none.
        restarts: How often it had to be started again.
    """

    def __init__(self, name: str, launch: Callable[[OnGone], Awaitable[C]], on_gone: OnGone) -> None:
        """Know how it is started.

        Args:
            name: For people, "the egress process".
            launch: Gives a child that is configured and can serve.
            on_gone: Told of each child that is gone.
        """
        self.child: C | None = None
        self.restarts = 0
        self._name, self._launch_one, self._on_gone = name, launch, on_gone
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it.

        Raises:
            ChildGone: It ended at once.
            ChildRefused: It cannot serve.
        """
        self._keeping = asyncio.create_task(self._keep(await self._launch()))

    async def stop(self) -> None:
        """End it, and let nobody start it again."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
            self._keeping = None
        child, self.child = self.child, None
        if child is not None:
            await child.end()

    async def _launch(self) -> C:
        self.child = child = await self._launch_one(self._note_gone)
        return child

    def _note_gone(self, child: Child) -> None:
        if child is self.child:
            self.child = None
        self._on_gone(child)

    async def _keep(self, child: C) -> None:
        """Start it again whenever it is gone, more slowly each time that it does not stay."""
        pause = _FIRST_PAUSE_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await child.gone.wait()
            if loop.time() - began > _LONGEST_PAUSE_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            _LOG.error("%s (pid %d) is gone: %s; starting it again", self._name, child.pid, child.reason)
            child, pause = await self._relaunch(pause)
            self.restarts += 1
            _LOG.warning("%s runs again (pid %d, restart %d)", self._name, child.pid, self.restarts)

    async def _relaunch(self, pause: float) -> tuple[C, float]:
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            try:
                return await self._launch(), pause
            except (ChildGone, ChildRefused, OSError) as error:
                _LOG.error("%s does not start: %s; trying again in %.1f s", self._name, error, pause)
