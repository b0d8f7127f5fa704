"""One bubblewrap that lives for one call.

    async with driver.create(spec, call_id) as sandbox:
        await sandbox.warm_up(10)
        outcome = await sandbox.run(start, 2.0, answer_sign)

What is said with it is sandboxes/exchange.py's. Its end is confirmed by the kernel: init's pidfd, and a
cgroup that is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime

from sandboxes.bubblewrap_launch import Launched
from sandboxes.cgroups import Group
from sandboxes.exchange import Conversing, Exchange
from sandboxes.outcome import SandboxSpec, SandboxUnavailable
from sandboxes.stream import Stream
from sandboxes.watched_process import has_ended, wait_for_end

_END_SECONDS = 2.0

Launch = Callable[[], tuple[Launched, Group]]


class BubblewrapSandbox(Conversing):
    """A sandbox made by bwrap.

    Attributes:
        container_id: The name of its cgroup.
        made: When it was made.
        gone: Since when none of its processes is left, confirmed; None before.
    """

    def __init__(
        self, spec: SandboxSpec, container_id: str, threads: Executor, clock: Callable[[], datetime]
    ) -> None:
        self._spec, self._threads, self._clock = spec, threads, clock
        self.container_id = container_id
        self.image_id, self.uid = spec.image_id, spec.uid
        self.made = clock()
        self.gone: datetime | None = None
        self._starting: asyncio.Future[tuple[Launched, Group]] | None = None
        self._launched: Launched | None = None
        self._group: Group | None = None
        self._stream: Stream | None = None
        self._exchange: Exchange | None = None
        self._cpu_seconds: float | None = None
        self._ending = asyncio.Lock()

    async def make(self, launch: Launch) -> None:
        """Start it. Called by the driver.

        Args:
            launch: Blocks; gives a sandbox that runs, or leaves nothing.

        Raises:
            SandboxUnavailable: It could not be started.
        """
        loop = asyncio.get_running_loop()
        try:
            self._starting = asyncio.ensure_future(loop.run_in_executor(self._threads, launch))
        except RuntimeError as error:
            raise SandboxUnavailable("the driver has no threads any more") from error
        # A start that is under way cannot be stopped: `end` waits for it.
        launched, self._group = await asyncio.shield(self._starting)
        self._launched = launched
        self._stream = await Stream.over(launched.connected)
        self._exchange = Exchange(self._stream, self._spec, self._why_ended)
        self._exchange.be_born(network_of=launched.init.descriptor)

    @property
    def is_alive(self) -> bool:
        """Whether it can still serve its call, as far as that is known without asking anybody."""
        if self._exchange is None or self._launched is None or self.gone is not None:
            return False
        return self._exchange.is_fresh and not has_ended(self._launched.init.descriptor)

    def cpu_seconds(self) -> float | None:
        """Tell the processor time that everything in it has used; None where that cannot be read."""
        if self._group is not None and self.gone is None:
            self._cpu_seconds = self._group.cpu_seconds()
        return self._cpu_seconds

    async def end(self) -> bool:
        """Close the stream, kill, and confirm; safe to call again.

        Returns:
            True when the kernel has nothing of it any more.
        """
        async with self._ending:
            if self.gone is not None:
                return True
            if not await self._was_started():
                self.gone = self._clock()
                return True
            return await self._end_started()

    async def _was_started(self) -> bool:
        """Wait for a start that is under way; a failed one has left nothing."""
        if self._starting is None:
            return False
        try:
            self._launched, self._group = await asyncio.shield(self._starting)
        except SandboxUnavailable:
            return False
        return True

    async def _end_started(self) -> bool:
        assert self._launched is not None and self._group is not None
        if self._stream is not None:
            self._stream.close()
        else:
            self._launched.connected.close()
        self._launched.kill()
        ended = await wait_for_end(self._launched.init.descriptor, _END_SECONDS)
        self.cpu_seconds()
        loop = asyncio.get_running_loop()
        if not ended or not await loop.run_in_executor(self._threads, self._group.end):
            return False
        self.gone = self._clock()
        self._launched.forget()
        return True

    async def _why_ended(self) -> str:
        """Find out what ended a sandbox that did not say so itself."""
        assert self._launched is not None and self._group is not None
        if self.gone is not None:
            return ""
        await wait_for_end(self._launched.init.descriptor, _END_SECONDS)
        if self._group.was_out_of_memory():
            return f"out of memory: the limit is {self._spec.limits.memory_mib} MiB"
        return ""
