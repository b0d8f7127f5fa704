"""Reads our chain and Vault's log at one pace and compares them.

Rules:
1. Each of our records is checked (broker/audit.py) before it is believed; a broken chain ends the comparison.
2. The side that is behind in time is read on. This only bounds what has to be remembered: no clock decides
   what agrees, and clocks that differ cost memory, nothing else.
3. What was written to our chain after its end was reached the first time is read again after the log's end: it
   may explain what the log says, and is not itself looked for in the log. So both may grow meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO

from broker.audit import Anchor, Walk
from broker.reconciliation.differences import Difference
from broker.reconciliation.ledger import Count, Ledger, Window
from broker.reconciliation.our_record import read_record
from broker.reconciliation.vault_log import MAX_LINE_BYTES, VaultLog
from broker.store.protocol import AuditRecord

RecordsAfter = Callable[[int], AsyncIterator[AuditRecord]]
"""Gives the chain's records after a sequence, as many as there are then."""


@dataclass(slots=True)
class Comparison:
    """What was found.

    Attributes:
        head: Of our chain, when it was read last.
        lines: Of Vault's log.
        hidden: How often the log hides a lease id or accessor that it should show.
        most_held: The most that had to be remembered at one time.
    """

    differences: list[Difference] = field(default_factory=list)
    count: Count = field(default_factory=Count)
    head: Anchor | None = None
    lines: int = 0
    hidden: int = 0
    most_held: int = 0


class _OurSide:
    """Our chain, one record at a time."""

    def __init__(self, walk: Walk, records_after: RecordsAfter, ledger: Ledger) -> None:
        self._walk, self._records_after, self._ledger = walk, records_after, ledger
        self._records = walk.check(records_after(0))
        self.time: datetime | None = None
        self.at_end = False

    async def advance(self) -> None:
        """Take one record, or find the end."""
        async for record in self._records:
            self.time, said = read_record(record)
            if said is not None:
                self._ledger.take_ours(said)
            return
        self.at_end = True

    async def read_rest(self) -> None:
        """Take what was written since the end was found."""
        self._records, self.at_end = self._walk.check(self._records_after(self._walk.head.sequence)), False
        while not self.at_end:
            await self.advance()


async def compare(
    records_after: RecordsAfter, walk: Walk, lines: Iterable[bytes], window: Window
) -> Comparison:
    """Compare both sides from their beginning.

    Raises:
        ChainBroken: Our chain does not hold; nothing was compared to its end.
        LogHidden: Vault's log hides accessors.
        StoreError: Our chain cannot be read.
    """
    found = Comparison()
    ledger, log = Ledger(found.differences.append, window), VaultLog(found.differences.append)
    found.count = ledger.count
    ours = _OurSide(walk, records_after, ledger)
    await ours.advance()
    for happening in log.read(lines):
        while not ours.at_end and ours.time is not None and ours.time <= happening.at:
            await ours.advance()
        ledger.take_vaults(happening)
        ledger.prune(happening.at)
        found.most_held = max(found.most_held, len(ledger) + log.open_requests)
    while not ours.at_end:
        await ours.advance()
    head = walk.head.sequence
    await ours.read_rest()
    walk.end()
    ledger.finish(head, log.end)
    log.finish()
    found.head, found.lines, found.hidden = walk.head, log.lines, log.hidden
    return found


def read_lines(files: Iterable[BinaryIO]) -> Iterator[bytes]:
    """Read the lines of some files, one after the other; of a line that is too long only the beginning."""
    for file in files:
        while line := file.readline(MAX_LINE_BYTES + 1):
            rest = line
            while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = file.readline(MAX_LINE_BYTES + 1)
            yield line
