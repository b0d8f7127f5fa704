"""Measure subjects beside their floors, so that a number means the same on another machine and day.

Absolute times move by a factor of two between minutes on a shared machine. So:
1. Floor and subject are interleaved in one run, in an order that is shuffled each round; what counts is the
   ratio within a round.
2. Each floor is measured twice under two names (the A/A pair). How far its ratio is from 1.00 is the error.
3. Everybody has the same pacing: bursts of calls, and before each a busy wait, because after some idleness
   even the barest call takes several times as long. The first calls of a burst are dropped.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import platform
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("grpcio", "protobuf", "uvloop")

Stages = Mapping[str, float]
Settle = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that can be called again and again.

    Attributes:
        name: Up to 34 characters, for the table.
        call: One call; it may return the seconds that each of its stages took.
        against: Name of the subject that is its floor; its own name for one that has none.
        calls: Calls in a burst that count.
        dropped: Calls before them that do not.
        prepare: Makes ready what a burst of so many calls needs; not timed.
    """

    name: str
    call: Callable[[], Awaitable[Stages | None]]
    against: str
    calls: int = 20
    dropped: int = 3
    prepare: Callable[[int], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Pacing:
    """How a run goes.

    Attributes:
        rounds: Bursts of each subject.
        busy_wait_ms: Before each burst.
        seed: Of the shuffle.
    """

    rounds: int = 30
    busy_wait_ms: float = 4.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """What came out for one subject: milliseconds over all calls, and the ratio to its floor.

    Attributes:
        ratio: Median over the rounds of burst median / the floor's burst median; low and high its quartiles.
        stages: Median milliseconds by stage, for a subject that tells them.
        bursts: Median milliseconds of each burst.
    """

    name: str
    against: str
    calls: int
    median_ms: float
    p95_ms: float
    p99_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    stages: Mapping[str, float]
    bursts: Sequence[float]


@dataclass(frozen=True, slots=True)
class Report:
    """One run."""

    name: str
    taken: str
    machine: Mapping[str, object]
    pacing: Pacing
    rows: Sequence[Row]

    def table(self) -> str:
        """Lay the rows out within 80 columns, then the stages."""
        lines = [f"{'':38}{'median':>10}{'p99':>10}{'ratio':>8}  quartiles"]
        for row in self.rows:
            spread = f"{row.ratio_low:.2f}-{row.ratio_high:.2f}"
            lines.append(
                f"{row.name[:38]:38}{row.median_ms:7.2f} ms{row.p99_ms:7.2f} ms{row.ratio:8.2f}  {spread}"
            )
        for row in self.rows:
            if row.name != row.against:
                lines.append(f"  {row.name}: ratio to {row.against}")
            lines += [f"    {stage:34}{ms:9.3f} ms" for stage, ms in row.stages.items()]
        return "\n".join(lines)

    def with_stages(self, name: str, seconds: Stages) -> Report:
        """Add what the stages of one subject took, where they are known only afterwards."""
        stages = {stage: took * 1000 for stage, took in seconds.items()}
        rows = [replace(row, stages=stages) if row.name == name else row for row in self.rows]
        return replace(self, rows=rows)

    def write(self, folder: Path = RESULTS) -> Path:
        """Write it as JSON, named by what was measured and when."""
        folder.mkdir(exist_ok=True)
        path = folder / f"{self.name}-{self.taken.replace(':', '').replace('-', '')}.json"
        path.write_text(json.dumps({"schema": 1, **asdict(self)}, indent=1) + "\n")
        return path


@dataclass(slots=True)
class Samples:
    """What was measured of one subject: seconds of each call, the median of each burst, seconds by stage."""

    seconds: list[float] = field(default_factory=list)
    bursts: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


async def measure(
    name: str, subjects: Sequence[Subject], pacing: Pacing, settle: Settle | None = None
) -> Report:
    """Measure subjects and an A/A pair of each that is a floor.

    Args:
        name: Of the run.
        subjects: In any order.
        pacing: Everybody's.
        settle: Waits after each call, whoever's, until nothing goes on that an earlier one has begun. Then
            everybody waits busily, and is measured by itself. Without it the calls of a burst follow at once.

    Raises:
        ValueError: A subject's floor is not among them.
    """
    everybody = with_pairs(subjects)
    samples = {subject.name: Samples() for subject in everybody}
    shuffle = random.Random(pacing.seed)
    for _ in range(pacing.rounds):
        for subject in shuffle.sample(everybody, len(everybody)):
            if subject.prepare is not None:
                await subject.prepare(subject.dropped + subject.calls)
            _wait_busily(pacing.busy_wait_ms / 1000)
            await _burst(subject, samples[subject.name], partial(_rest, pacing, settle) if settle else None)
    return make_report(name, everybody, samples, pacing)


def make_report(
    name: str, everybody: Sequence[Subject], samples: Mapping[str, Samples], pacing: Pacing
) -> Report:
    """Make the report of one run of what was measured; each subject has as many bursts as its floor."""
    rows = [_row(subject, samples) for subject in everybody]
    taken = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Report(name, taken, _machine(), pacing, rows)


def with_pairs(subjects: Sequence[Subject]) -> list[Subject]:
    """Add to each floor the same once more, under another name.

    Raises:
        ValueError: A subject's floor is not among them, or two have one name.
    """
    names = {subject.name for subject in subjects}
    floors = {subject.against for subject in subjects}
    if len(names) != len(subjects) or not floors <= names:
        raise ValueError(f"names must differ and floors be measured; missing: {sorted(floors - names)}")
    everybody = []
    for subject in subjects:
        everybody.append(subject)
        if subject.name in floors:
            everybody.append(replace(subject, name=f"{subject.name} (again)", against=subject.name))
    return everybody


async def _rest(pacing: Pacing, settle: Settle) -> None:
    await settle()
    _wait_busily(pacing.busy_wait_ms / 1000)


async def _burst(subject: Subject, samples: Samples, rest: Settle | None) -> None:
    for _ in range(subject.dropped):
        await subject.call()
        if rest:
            await rest()
    took = []
    for _ in range(subject.calls):
        began = time.perf_counter()
        stages = await subject.call()
        took.append(time.perf_counter() - began)
        if rest:
            await rest()
        for stage, seconds in (stages or {}).items():
            samples.stages[stage].append(seconds)
    samples.seconds += took
    samples.bursts.append(statistics.median(took))


def _wait_busily(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def _row(subject: Subject, samples: Mapping[str, Samples]) -> Row:
    mine, floor = samples[subject.name], samples[subject.against]
    ratios = [one / other for one, other in zip(mine.bursts, floor.bursts, strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return Row(
        name=subject.name,
        against=subject.against,
        calls=len(mine.seconds),
        median_ms=statistics.median(mine.seconds) * 1000,
        p95_ms=_quantile(mine.seconds, 0.95) * 1000,
        p99_ms=_quantile(mine.seconds, 0.99) * 1000,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        stages={stage: statistics.median(took) * 1000 for stage, took in mine.stages.items()},
        bursts=[burst * 1000 for burst in mine.bursts],
    )


def _quantile(seconds: Sequence[float], share: float) -> float:
    return sorted(seconds)[int(len(seconds) * share)]


def _machine() -> dict[str, object]:
    return {
        "python": sys.version.split()[0],
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "loop": type(asyncio.get_running_loop()).__module__,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
