"""What a finished call leaves in the broker's memory: a line fitted over many calls.

    python -m bench.bench_memory [--calls 20000]

The whole path runs on SQLite, each call a keyed write with a key of its own; Vault and sandbox are the
working fakes of the tests, because what is measured is what the broker keeps.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import tempfile
import tracemalloc
from pathlib import Path
from statistics import linear_regression
from typing import Any

from broker.store.options import StoreOptions
from broker.store.sqlite import open_store
from tests.broker.bench import Bench
from tests.broker.workshop import Workshop

WARM_UP_CALLS = 2000
SAMPLES = 20


async def run(calls: int) -> float:
    """Return the bytes that stay for each finished call."""
    with tempfile.TemporaryDirectory(prefix="tc-bench-") as folder:
        store: Any = await open_store(Path(folder) / "state.db", StoreOptions(b"k" * 32, "bench"))
        shop = await Workshop.fill(store, await Bench.make(store))
        await _write(shop, 0, WARM_UP_CALLS)
        tracemalloc.start()
        sizes, step = [], calls // SAMPLES
        for sample in range(SAMPLES):
            first = WARM_UP_CALLS + sample * step
            await _write(shop, first, first + step)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        await store.close()
    return linear_regression([step * number for number in range(SAMPLES)], sizes).slope


async def _write(shop: Workshop, first: int, end: int) -> None:
    for number in range(first, end, 20):
        await asyncio.gather(*(shop.path.answer(shop.draft(f"k{one}")) for one in range(number, number + 20)))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    calls = parser.parse_args().calls
    print(f"{asyncio.run(run(calls)):.0f} bytes a finished call, fitted over {calls} calls")
    return 0


if __name__ == "__main__":
    sys.exit(main())
