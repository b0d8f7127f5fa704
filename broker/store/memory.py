"""A store that keeps everything in the process's memory: for tests, and for nothing else.

It forgets with the process, and cannot be backed up. Otherwise it promises what SQLite promises: one contract
suite runs on both.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from broker.store.epochs import Watch
from broker.store.memory_calls import MemoryCalls
from broker.store.memory_registry import MemoryRegistry
from broker.store.memory_state import MemoryState
from broker.store.memory_workflows import MemoryWorkflows
from broker.store.options import StoreOptions


class MemoryStore(MemoryCalls, MemoryRegistry, MemoryWorkflows):
    """Implements `Store` on dictionaries. See there for what each method promises."""

    def __init__(
        self,
        options: StoreOptions | None = None,
        state: MemoryState | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Open a state: with a watch only when nobody has it, else by taking it over.

        Raises:
            StoreBusy: The watch says that another has it.
        """
        options = options or StoreOptions(secrets.token_bytes(32), "memory")
        super().__init__(options, state or MemoryState(), watch)
        self._beaten = options.monotonic()

    @property
    def is_tenured(self) -> bool:
        """True while the last beat is so young that, by the clocks, nobody can have taken over."""
        return self._options.monotonic() - self._beaten < self._options.epoch_seconds / 2

    async def beat(self) -> None:
        """Let the epoch expire later, and the time of grace pass."""
        await self._begin_write()
        monotonic = self._options.monotonic()
        self.state.run = replace(self._run, expires=self._next_expiry())
        if self.state.restoration is not None:
            self.state.restoration = self.state.restoration.after(monotonic - self._beaten)
        self._beaten = monotonic

    async def close(self) -> None:
        """End the epoch, and refuse everything from now on."""
        self._keys.notify_all()
        if not self._closed and self._run.number == self.epoch.number:
            self.state.run = replace(self._run, ended=True)
        self._closed = True
