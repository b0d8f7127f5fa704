"""Reads our chain and Vault's log at one pace and compares them.

Rules:
1. Each of our records is checked (broker/audit.py) before it is believed; a broken chain ends the comparison.
2. The side that is behind in time is read on. This only bounds what has to be remembered: no clock decides
   what agrees, and clocks that differ cost memory, nothing else.
3. Both may grow meanwhile: our chain is read to its end, then the log to its end, then what our chain got
   since. That may explain what the log says, and is not itself looked for in the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import BinaryIO

from broker.audit import Anchor, Walk
from broker.reconciliation.differences import Difference
from broker.reconciliation.ledger import Count, Ledger, Window
from broker.reconciliation.our_record import read_record
from broker.reconciliation.vault_log import MAX_LINE_BYTES, VaultLog
from broker.store.records import AuditRecord

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
        record = await anext(self._records, None)
        if record is None:
            self.at_end = True
            return
        self.time, said = read_record(record)
        if said is not None:
            self._ledger.take_ours(said)

    async def read_to_end(self) -> int:
        """Take all that is there; returns the last sequence."""
        while not self.at_end:
            await self.advance()
        return self._walk.head.sequence

    def go_on(self) -> None:
        """Take, from now on, what was written since the end was found."""
        self._records, self.at_end = self._walk.check(self._records_after(self._walk.head.sequence)), False


class LogLines:
    """The lines of some log files, in their order; the last one may grow meanwhile."""

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        self._files = files
        self._at = 0
        self._begun = b""
        self._counts = [0] * len(files)

    def read(self) -> Iterator[bytes]:
        """Read the complete lines that are there now; of one that is too long only the beginning."""
        while self._at < len(self._files):
            while piece := self._files[self._at].readline(MAX_LINE_BYTES + 1):
                self._begun = (self._begun + piece)[: MAX_LINE_BYTES + 1]
                if piece.endswith(b"\n"):
                    yield self._take_begun()
            if self._at + 1 == len(self._files):
                return
            if self._begun:  # nobody writes on there: without its end it is a line that was cut off
                self._begun += b"\n"
                yield self._take_begun()
            self._at += 1

    def read_rest(self) -> Iterator[bytes]:
        """Read a last line that has no end."""
        if self._begun:
            yield self._take_begun()

    def locate(self, line: int) -> tuple[int, int]:
        """Find, for a line counted over all files, the file's number and the line in it, from 1."""
        for number, count in enumerate(self._counts):
            if line <= count:
                return number, line
            line -= count
        raise ValueError("no such line was read")

    def _take_begun(self) -> bytes:
        line, self._begun = self._begun, b""
        self._counts[self._at] += 1
        return line


async def compare(records_after: RecordsAfter, walk: Walk, lines: LogLines, window: Window) -> Comparison:
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
    for happening in log.read(lines.read()):
        while not ours.at_end and ours.time is not None and ours.time <= happening.at:
            await ours.advance()
        ledger.take_vaults(happening)
        ledger.prune(happening.at)
        found.most_held = max(found.most_held, len(ledger) + log.open_requests)
    head = await ours.read_to_end()
    for happening in log.read(chain(lines.read(), lines.read_rest())):
        ledger.take_vaults(happening)
    ours.go_on()
    await ours.read_to_end()
    walk.end()
    ledger.finish(head, log.end)
    log.finish()
    found.head, found.lines, found.hidden = walk.head, log.lines, log.hidden
    return found
