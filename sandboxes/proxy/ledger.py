"""What one call did over HTTP: told to the broker as each exchange ends, up to a number, and then counted."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sandboxes.egress.records import MAX_KEPT, ConnectionEntry, Outcome
from tools.http_rules import Verdict

OnEntry = Callable[[ConnectionEntry], None]


def now_micros() -> int:
    """Give the time in microseconds since 1970."""
    return time.time_ns() // 1000


@dataclass(slots=True)
class Line:
    """One exchange or tunnel while it runs; `ConnectionEntry` says what its fields are."""

    target: str = ""
    address: str = ""
    opened_micros: int = field(default_factory=now_micros)
    closed_micros: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    outcome: Outcome = Outcome.ENDED
    detail: str = ""
    method: str = ""
    status: int = 0
    verdict: Verdict | None = None
    injected: str = ""
    stripped: int = 0
    request_sha256: str = ""
    response_sha256: str = ""

    def entry(self) -> ConnectionEntry:
        """Write it down, once it has ended."""
        rule = self.verdict.rule if self.verdict else None
        grant_rule = self.verdict.grant_rule if self.verdict else None
        return ConnectionEntry(
            target=self.target,
            address=self.address,
            opened_micros=self.opened_micros,
            closed_micros=max(self.opened_micros, self.closed_micros),
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            outcome=str(self.outcome),
            detail=self.detail.encode("ascii", "backslashreplace").decode()[:500],
            method=self.method,
            path_template=rule.path if rule else "",
            status=self.status,
            rule=rule.text if rule else "",
            grant_rule=grant_rule.text if grant_rule else "",
            injected=self.injected,
            stripped=self.stripped,
            request_sha256=self.request_sha256,
            response_sha256=self.response_sha256,
        )


class Ledger:
    """The records of one call.

    Attributes:
        uncounted: How many there were beyond those that were told.
    """

    def __init__(self, on_entry: OnEntry) -> None:
        self.uncounted = 0
        self._told = 0
        self._on_entry = on_entry

    def note(self, line: Line) -> None:
        """Tell of one that ended, or count it: in the loop's next turn, so that no answer waits for it."""
        # What was refused takes half at most: it must not hide what is reached after it.
        if self._told >= (MAX_KEPT if line.verdict or line.address else MAX_KEPT // 2):
            self.uncounted += 1
            return
        self._told += 1
        line.closed_micros = now_micros()
        asyncio.get_running_loop().call_soon(lambda: self._on_entry(line.entry()))


class Digest:
    """SHA-256 of a body, where the operator asks for it."""

    def __init__(self, wanted: bool) -> None:
        self._hash = hashlib.sha256() if wanted else None

    def feed(self, data: bytes) -> None:
        """Take a piece."""
        if self._hash is not None:
            self._hash.update(data)

    def finish(self) -> str:
        """Give it in hex; empty where it is not wanted."""
        return "" if self._hash is None else self._hash.hexdigest()
