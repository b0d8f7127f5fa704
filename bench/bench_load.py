"""What a broker does under load: an open loop below and above the rate at which sandboxes are made.

    python -m bench.bench_load [--seconds 60]

1. The refill: how many sandboxes a second the broker serves when eight callers never stop (a closed loop).
2. At 0.7 of that rate calls come at random times, whether earlier ones were answered or not: how many find a
   warm sandbox, and how long they take.
3. At twice that rate, by one tenant, while another one calls now and then: what is refused, how quickly, how
   long the accepted take, and what the other tenant notices.
4. The rate of calls that need no sandbox and of warm ones at 1, 2, 8 and 32 callers.

How long a call took is counted from when it was due, not from when it was sent: a client that falls behind
does not hide a wait.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc
import uvloop

from bench.brokered import Callers, open_broker
from bench.measure import RESULTS

STATE = Path(__file__).parents[1] / ".toolcrib"
SETTINGS = """
[sandboxes.pool]
max_idle = 48
max_wait_seconds = 0.05
"""
CALLERS = (1, 2, 8, 32)


@dataclass(slots=True)
class Tally:
    """What became of the calls of one loop; seconds each."""

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    retry_after: int = 0
    other: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, object]:
        """For table and JSON; milliseconds."""
        return {
            "accepted": len(self.accepted),
            "p50_ms": _quantile(self.accepted, 0.5),
            "p99_ms": _quantile(self.accepted, 0.99),
            "refused": len(self.refused),
            "refused_p50_ms": _quantile(self.refused, 0.5),
            "refused_p99_ms": _quantile(self.refused, 0.99),
            "refused_max_ms": _quantile(self.refused, 1.0),
            "refused_with_retry_info": self.retry_after,
            "other": dict(self.other),
        }


async def attempt(say: Callable[[], Awaitable[None]], due: float, tally: Tally) -> None:
    """One call; its time counts from when it was due, a refusal's from when it was sent."""
    sent = time.perf_counter()
    try:
        await say()
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            tally.refused.append(time.perf_counter() - sent)
            tally.retry_after += _has_retry_info(error)
        else:
            tally.other[f"{error.code().name}: {error.details()}"[:120]] += 1
    else:
        tally.accepted.append(time.perf_counter() - due)


async def open_loop(say: Callable[[], Awaitable[None]], rate: float, seconds: float, seed: int) -> Tally:
    """Call at random times, so many a second on average, whatever is still running."""
    tally, chance, tasks = Tally(), random.Random(seed), set()
    due = time.perf_counter()
    until = due + seconds
    while due < until:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(attempt(say, due, tally))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += chance.expovariate(rate)
    if tasks:
        await asyncio.wait(tasks, timeout=30)
    return tally


async def closed_loop(say: Callable[[], Awaitable[None]], callers: int, seconds: float) -> float:
    """Calls a second that were answered, by callers that each wait for their answer; a refused one pauses."""
    until, tally = time.perf_counter() + seconds, Tally()

    async def caller() -> None:
        while time.perf_counter() < until:
            before = len(tally.refused)
            await attempt(say, time.perf_counter(), tally)
            if len(tally.refused) > before:
                await asyncio.sleep(0.05)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    assert not tally.other, tally.other
    return len(tally.accepted) / (time.perf_counter() - began)


async def run_all(callers: Callers, seconds: float) -> dict[str, object]:
    """Every part, one after the other."""
    found: dict[str, object] = {}
    await closed_loop(callers.say, 8, 8)  # the pool learns what is asked for
    refill = await closed_loop(callers.say, 8, 20)
    found["refill_per_second"] = refill
    await asyncio.sleep(5)
    before = (await callers.broker.ask())["taken"]
    below = await open_loop(callers.say, 0.7 * refill, seconds, seed=1)
    after = (await callers.broker.ask())["taken"]
    taken = {name: after.get(name, 0) - before.get(name, 0) for name in ("warm", "cold")}
    found["open loop, 0.7 x"] = {**below.summary(), **taken}
    await asyncio.sleep(10)
    alone = await open_loop(lambda: callers.say("rival"), 1.0, 20, seed=2)
    found["another tenant alone"] = alone.summary()
    above, beside = await asyncio.gather(
        open_loop(callers.say, 2 * refill, seconds, seed=3),
        open_loop(lambda: callers.say("rival"), 1.0, seconds, seed=4),
    )
    found["open loop, 2 x"] = above.summary()
    found["another tenant beside it"] = beside.summary()
    await asyncio.sleep(5)
    found["closed loop, calls a second"] = {
        str(count): await closed_loop(callers.say, count, 10) for count in CALLERS
    }
    return found


def _has_retry_info(error: grpc.aio.AioRpcError) -> int:
    trailers = error.trailing_metadata() or ()
    return int(any(key == "grpc-status-details-bin" and b"RetryInfo" in value for key, value in trailers))


def _quantile(seconds: list[float], share: float) -> float:
    ordered = sorted(seconds)
    return 1000 * ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


async def run(options: argparse.Namespace) -> None:
    """Measure, print and write the JSON."""
    with tempfile.TemporaryDirectory(prefix="tc-bench-") as folder:
        async with open_broker(Path(folder), STATE / "cache", SETTINGS) as (callers, _):
            found = await run_all(callers, options.seconds)
    print(json.dumps(found, indent=1))
    taken = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    path = RESULTS / f"load-{taken.replace(':', '').replace('-', '')}.json"
    path.write_text(json.dumps({"schema": 1, "taken": taken, **found}, indent=1) + "\n")
    print(f"written: {path}")


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each open loop (default 60)")
    uvloop.run(run(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
