"""What the parts of the memory store share: the state, and what stands for a transaction."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from broker.audit import START, Anchor, seal
from broker.store.cipher import Sealing
from broker.store.epochs import Restoration, Run, Watch, describe_stale
from broker.store.memory_state import MemoryState
from broker.store.options import StoreOptions
from broker.store.paging import PageTokens
from broker.store.records import AuditEvent, Epoch, StaleEpoch, StoreError
from broker.workflow_records import Imprint, merge_labels


class MemoryPart:
    """The state, and what this run of the broker is in it."""

    def __init__(self, options: StoreOptions, state: MemoryState, watch: Watch | None) -> None:
        self._options = options
        self.state = state
        if watch is not None:
            watch.check_free(state.run, options.clock())
        number = state.run.number + 1 if state.run else 1
        state.run = Run(number, self._next_expiry(), options.epoch_seconds, ended=False)
        self.epoch = Epoch(state.installation, number)
        self._sealing = Sealing(options.cipher)
        self._tokens = PageTokens(state.page_key)
        self._closed = False

    @property
    def restoration(self) -> Restoration | None:
        """What the last restore left, if there was one."""
        return self.state.restoration

    @property
    def restored_at(self) -> datetime | None:
        """When the state was restored from a backup last."""
        return self.state.restoration.at if self.state.restoration else None

    async def check_epoch(self) -> None:
        """See that this process may still write.

        Raises:
            StaleEpoch: Another process has taken over.
        """
        await self._begin_write()

    def _next_expiry(self) -> datetime:
        return self._options.clock() + timedelta(seconds=self._options.epoch_seconds)

    async def _begin_read(self) -> None:
        """Let others run first, as a store with a disk does."""
        await asyncio.sleep(0)
        if self._closed:
            raise StoreError("the store is closed")

    async def _begin_write(self) -> None:
        """From here to the method's end nothing awaits: that is the transaction."""
        await self._begin_read()
        newest = self._run.number
        if newest != self.epoch.number:
            raise StaleEpoch(f"the store: {describe_stale(self.epoch.number, newest)}")

    @property
    def _run(self) -> Run:
        assert self.state.run is not None, "a store that is open has begun an epoch"
        return self.state.run

    def _append(self, *events: AuditEvent) -> None:
        """Chain records: the last step that can fail, so that a change and its records come together."""
        chain = self.state.audit
        head = Anchor(chain[-1].sequence, chain[-1].hash) if chain else START
        records = []
        for event in events:
            records.append(seal(event, head, self._options.audit_key, self._options.key_id))
            head = Anchor(records[-1].sequence, records[-1].hash)
        chain.extend(records)

    def _leave(self, imprint: Imprint | None) -> None:
        """Keep what a call leaves on its workflow."""
        if imprint is None:
            return
        for name, label in imprint.spread():
            key = name, label.label
            self.state.labels[key] = merge_labels(self.state.labels.get(key), label)
        if not imprint.trusted:
            return
        trusted, workflow = self.state.trusted, imprint.workflow
        old = [mac for (name, mac), at in trusted.items() if name == workflow and at < imprint.forget_before]
        for mac in old:
            del trusted[workflow, mac]
        for mac in imprint.trusted:
            trusted[workflow, mac] = max(imprint.at, trusted.get((workflow, mac), imprint.at))
