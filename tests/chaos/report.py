"""The verdict: what the callers were told, beside what the targets counted and what the audit says.

duplicates        effects of one key beyond the first
lost              a key that was answered SUCCEEDED and has no effect
unreported        a key with an effect that its caller was never told of: answered FAILED, or not at all
contradictions    one key, two different answers; or an answer that is not the effect's
wrongly resolved  resolved as happened without an effect of that call, or as not happened with one
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from broker.audit import Broken, verify
from broker.keys import read_key_file
from broker.settings import read_settings
from broker.store.options import StoreOptions
from broker.store.sqlite import open_store
from tests.chaos.clients import FAILED, IN_DOUBT, NEEDS_HUMAN, OPEN, SUCCEEDED
from tests.chaos.killer import POINTS
from tests.chaos.supervisor import Toll
from tests.chaos.targets import KINDS

COLUMNS = (
    ("writes", "writes"),
    ("effects", "effects"),
    ("dupl.", "duplicates"),
    ("lost", "lost"),
    ("unrep.", "unreported"),
    ("contr.", "contradictions"),
    ("doubt", "in_doubt"),
    ("resolv.", "resolved"),
    ("wrong", "wrongly_resolved"),
    ("human", "needs_human"),
)


@dataclass
class Line:
    """The numbers of one target.

    Attributes:
        failed: Answered with a definite error, and without an effect.
    """

    writes: int = 0
    effects: int = 0
    sent: int = 0
    duplicates: int = 0
    lost: int = 0
    unreported: int = 0
    contradictions: int = 0
    failed: int = 0
    in_doubt: int = 0
    resolved: int = 0
    wrongly_resolved: int = 0
    needs_human: int = 0
    docker: int = 0

    def __add__(self, other: Line) -> Line:
        theirs = asdict(other)
        return Line(**{name: value + theirs[name] for name, value in asdict(self).items()})


@dataclass(frozen=True)
class Resolved:
    """One resolution as the audit has it.

    Attributes:
        calls: The call in doubt and those that the broker made about it: an effect of any is its effect.
    """

    call_id: str
    method: str
    outcome: str
    calls: frozenset[str]


@dataclass(frozen=True)
class Report:
    """What a run found."""

    lines: Mapping[str, Line]
    answers: Mapping[str, int]
    oddities: tuple[str, ...]
    toll: Toll = field(default_factory=Toll)
    storm_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def total(self) -> Line:
        """All targets together."""
        return sum(self.lines.values(), Line())

    @property
    def broken_promises(self) -> list[str]:
        """What must not be, in words; empty when all promises were kept."""
        total = self.total
        names = (
            "duplicates",
            "lost",
            "unreported",
            "contradictions",
            "failed",
            "wrongly_resolved",
            "in_doubt",
        )
        broken = [
            f"{name.replace('_', ' ')}: {getattr(total, name)}" for name in names if getattr(total, name)
        ]
        human = total.needs_human - self.lines["blind"].needs_human
        return broken + ([f"handed to a person although it can be found out: {human}"] if human else [])

    def with_toll(self, toll: Toll, storm_seconds: float, seconds: float) -> Report:
        """Add what became of the brokers."""
        return replace(self, toll=toll, storm_seconds=storm_seconds, seconds=seconds)

    def table(self) -> str:
        """The table, 80 columns wide at most."""
        rows = [("target", *(title for title, _ in COLUMNS))]
        for name, line in [*self.lines.items(), ("total", self.total)]:
            rows.append((name, *(str(getattr(line, attribute)) for _, attribute in COLUMNS)))
        widths = [max(len(title) + 1, 7) for title, _ in COLUMNS]
        return "\n".join(row[0].ljust(8) + "".join(map(str.rjust, row[1:], widths)) for row in rows)

    def summary(self) -> str:
        """Kills and times in a few lines."""
        hits, starts = self.toll.hits, sorted(self.toll.starts)
        at_points = [hits[point, method] for point in POINTS for method in self._methods()]
        median = starts[len(starts) // 2] if starts else 0.0
        return (
            f"{self.toll.kills} kills: {sum(at_points)} at {len(POINTS)} failure points "
            f"(each point at each target {min(at_points)} to {max(at_points)} times), "
            f"{self.toll.kills - sum(at_points)} at random\n"
            f"{self.total.docker} writes through real sandboxes; a broker listens {median:.2f} s after the "
            f"death before it in the median, {starts[-1] if starts else 0:.2f} s at most\n"
            f"{self.seconds:.0f} s in all, {self.storm_seconds:.0f} s of them under kills"
        )

    def to_json(self, **more: object) -> str:
        """All of it for machines."""
        facts = {
            **more,
            "lines": {name: asdict(line) for name, line in self.lines.items()},
            "total": asdict(self.total),
            "broken_promises": self.broken_promises,
            "answers": dict(self.answers),
            "oddities": self.oddities,
            "kills": {f"{point} {method}".strip(): n for (point, method), n in self.toll.hits.items()},
            "seconds": round(self.seconds, 1),
        }
        return json.dumps(facts, indent=1)

    @staticmethod
    def _methods() -> Iterable[str]:
        return (f"chaos.v1.Chaos/Write{kind.capitalize()}" for kind in KINDS)


def judge(found: Mapping[str, Any], counts: Mapping[str, Any], audit: list[Resolved] | None) -> Report:
    """Compare answers, counters and audit.

    Args:
        found: What the callers wrote down.
        counts: What each target counted.
        audit: Every resolution; None where the audit was thrown away.
    """
    lines = {kind: Line() for kind in KINDS}
    oddities: list[str] = []
    numbers: dict[str, list[int]] = defaultdict(list)
    callers: set[str] = set()
    for kind in KINDS:
        lines[kind].sent = counts[kind]["sent"]
        lines[kind].effects = len(counts[kind]["effects"])
        for number, effect in enumerate(counts[kind]["effects"], start=1):
            numbers[effect["mark"]].append(number)
            callers.add(effect["call_id"])
    for write in found["writes"]:
        _judge_write(write, numbers[write["mark"]], lines[write["kind"]], oddities)
    for resolved in audit or ():
        _judge_resolution(resolved, callers, lines, oddities)
    return Report(lines, Counter(found["answers"]), tuple(oddities))


def _judge_write(write: Mapping[str, Any], effects: list[int], line: Line, oddities: list[str]) -> None:
    state, told = write["state"], set(write["numbers"])
    line.writes += 1
    line.docker += write["tenant"] == "dock"
    line.duplicates += max(0, len(effects) - 1)
    line.lost += state == SUCCEEDED and not effects
    line.unreported += state in (FAILED, OPEN) and bool(effects)
    line.failed += state == FAILED and not effects
    line.in_doubt += state in (IN_DOUBT, OPEN)
    line.needs_human += state == NEEDS_HUMAN
    contradicts = (
        len(told) > 1 or (bool(effects) and not told <= set(effects)) or write["reason"][:5] == "after"
    )
    line.contradictions += contradicts
    if (
        contradicts
        or len(effects) > 1
        or state in (FAILED, OPEN, IN_DOUBT)
        or (state == SUCCEEDED and not effects)
    ):
        oddities.append(
            f"{write['mark']} {write['kind']} {state} {write['reason']} told {told} effects {effects}"
        )


def _judge_resolution(
    resolved: Resolved, callers: set[str], lines: Mapping[str, Line], oddities: list[str]
) -> None:
    line = lines[resolved.method.rpartition("/Write")[2].lower()]
    if resolved.outcome == NEEDS_HUMAN:
        return
    line.resolved += 1
    happened = bool(resolved.calls & callers)
    if happened != (resolved.outcome == SUCCEEDED):
        line.wrongly_resolved += 1
        oddities.append(f"{resolved.call_id} {resolved.method} wrongly resolved as {resolved.outcome}")


async def read_audit(folder: Path) -> list[Resolved]:
    """Read every resolution from the audit of a broker that has ended, and verify the chain.

    Raises:
        RuntimeError: The chain is broken.
    """
    settings = read_settings(folder / "toolcrib.toml")
    keys = read_key_file(settings.state.key_file)
    store = await open_store(settings.state.path, StoreOptions(keys.audit_key, keys.audit_key_id))
    try:
        verdict = await verify(store.audit_records(), {keys.audit_key_id: keys.audit_key})
        if isinstance(verdict, Broken):
            raise RuntimeError(f"the audit chain is broken: {verdict}")
        events = [json.loads(record.payload) async for record in store.audit_records()]
    finally:
        await store.close()
    about: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if "resolves" in event.get("details", {}):
            about[event["details"]["resolves"]].add(event["call_id"])
    errands = set().union(*about.values())
    return [
        Resolved(
            event["call_id"],
            event["details"]["method"],
            event["details"]["is"],
            frozenset({event["call_id"], *about[event["call_id"]]}),
        )
        for event in events
        if event["kind"] == "call.resolved" and event["call_id"] not in errands
    ]
