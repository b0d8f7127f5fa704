"""What a store costs beside a smaller one: its start by what lies in it, memory by what went through.

    python -m bench.bench_store [--rounds 20] [--records 100000] [--calls 20000]

A start is everything that a starting broker asks of its store: open, what is unfinished, what is owed, what
is in doubt, which tenants there are, one claim; and the clean close. The floor is a start with 1,000 records.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench.measure import Pacing, Subject, measure
from broker.model import BudgetLimit, CallRecord, CallState, Charge, LeaseRecord
from broker.store.call_table import add_leases, book, insert_call, take_key
from broker.store.cipher import KeptCall
from broker.store.database import connect
from broker.store.options import StoreOptions
from broker.store.protocol import Store
from broker.store.records import AuditEvent, ClaimScope
from broker.store.registry_tables import append_audit
from broker.store.sqlite import open_store
from tools.contract import Effect

SMALL = 1_000
MAX_RATIO = 1.5
MAX_BYTES_A_CALL = 1_000
STARTED = datetime(2026, 1, 1, tzinfo=UTC)
OPTIONS = StoreOptions(b"a key of the bench, 32 bytes long", "k1")


def make_call(number: int) -> CallRecord:
    """Make a write of the usual size."""
    return CallRecord(
        call_id=f"c{number:012}",
        tenant=f"tenant{number % 10}",
        environment="prod",
        agent="desk",
        subject="ann",
        method="shop.v1.Orders/IssueRefund",
        tool_version="1.0.0",
        effect=Effect.WRITE,
        key=f"key-{number:08}",
        fingerprint="f" * 64,
        attempt=1,
        epoch=1,
        state=CallState.RESERVED,
        started=STARTED,
        request=bytes(200),
    )


def scope_of(call: CallRecord) -> ClaimScope:
    """Name a call's key."""
    return ClaimScope(call.tenant, call.environment, call.agent, call.method, call.key)


def event_of(call: CallRecord, kind: str) -> AuditEvent:
    """Make a call's audit event."""
    return AuditEvent(kind, call.tenant, call.environment, STARTED, call.call_id, "spiffe://bench/desk")


async def fill(path: Path, records: int) -> None:
    """Write ended calls with all that belongs to them, as the store would, in one commit."""
    await (await open_store(path, OPTIONS)).close()
    with closing(connect(path, writes=True)) as connection:
        connection.execute("BEGIN")
        for number in range(records):
            _write_ended(connection, number)
        connection.execute("COMMIT")


def _write_ended(connection: sqlite3.Connection, number: int) -> None:
    call = replace(make_call(number), state=CallState.SUCCEEDED, ended=STARTED)
    lease = LeaseRecord(f"l{number}", f"a{number}", "orders", f"v{number}", STARTED, confirmed_dead=STARTED)
    insert_call(connection, KeptCall(call), 1)
    add_leases(connection, replace(call, leases=(lease,)))
    take_key(connection, scope_of(call), call, STARTED, 1)
    book(connection, call, ("refunds", "calls"), 1, STARTED)
    for kind in ("call.reserved", "call.succeeded"):
        append_audit(connection, event_of(call, kind), OPTIONS)


async def start(path: Path) -> None:
    """Start on a store as a broker does, and stop."""
    store = await open_store(path, OPTIONS)
    left = [await store.unfinished(), await store.owed_leases(), await store.in_doubt()]
    assert not any(left), "the bench's calls have all ended"
    await store.tenants()
    await store.claim(scope_of(make_call(10**9)), "f", "c")
    await store.close()


async def measure_starts(folder: Path, options: argparse.Namespace) -> bool:
    """Measure starts beside each other.

    Returns:
        True when the large store starts fast enough.
    """
    sizes = (SMALL, options.records)
    paths = {size: folder / f"{size}.db" for size in sizes}
    for size, path in paths.items():
        await fill(path, size)
    names = {size: f"start with {size:,} records" for size in sizes}
    subjects = [
        Subject(names[size], partial(start, paths[size]), names[SMALL], calls=3, dropped=1) for size in sizes
    ]
    report = await measure("store", subjects, Pacing(rounds=options.rounds))
    print(report.table())
    print(f"written: {report.write()}")
    ratio = next(row.ratio for row in report.rows if row.name == names[options.records])
    print(f"ratio {ratio:.2f}, at most {MAX_RATIO} is meant")
    return ratio <= MAX_RATIO


async def one_call(store: Store, number: int) -> None:
    """Take one write through the store, from its claim to the end of its lease, and ask for it again."""
    call, scope = make_call(number), scope_of(make_call(number))
    await store.claim(scope, call.fingerprint, call.call_id)
    charge = Charge("refunds", BudgetLimit("calls", 10**9, 60), 1)
    await store.reserve(call, scope, [charge], event_of(call, "call.reserved"))
    lease = LeaseRecord(f"l{number}", f"a{number}", "orders", f"v{number}", STARTED)
    await store.dispatch(call.call_id, [lease])
    waiting = asyncio.create_task(store.wait_for_change(call.call_id, 60))
    ended = replace(call, state=CallState.SUCCEEDED, ended=STARTED, result=bytes(200))
    await store.complete(ended, event_of(call, "call.succeeded"))
    await store.lease_ended(lease.lease_id, STARTED)
    await waiting
    await store.claim(scope, call.fingerprint, "retry")


async def measure_memory(folder: Path, calls: int) -> bool:
    """Fit the process's memory over finished calls; the first quarter warms up.

    Returns:
        True when finished calls leave little enough.
    """
    store = await open_store(folder / "memory.db", OPTIONS)
    seen: list[tuple[int, int]] = []
    for first in range(0, calls, 200):
        for number in range(first, first + 200, 50):
            await asyncio.gather(*(one_call(store, number + more) for more in range(50)))
        if first >= calls // 4:
            seen.append((first + 200, read_memory()))
        await store.beat()
    await store.close()
    slope = fit(seen)
    print(
        f"memory: {slope:.0f} bytes a finished call over {calls:,} calls; "
        f"less than {MAX_BYTES_A_CALL:,} is meant"
    )
    return slope < MAX_BYTES_A_CALL


def read_memory() -> int:
    """Read what the process holds in memory now, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def fit(seen: Sequence[tuple[int, int]]) -> float:
    """Fit a line and return its slope."""
    calls, held = zip(*seen, strict=True)
    return statistics.linear_regression(calls, held).slope


async def run(options: argparse.Namespace) -> bool:
    """Measure both.

    Returns:
        True when both are as they are meant to be.
    """
    with tempfile.TemporaryDirectory(prefix="tc-bench-") as folder:
        starts = await measure_starts(Path(folder), options)
        return await measure_memory(Path(folder), options.calls) and starts


def main() -> int:
    """Read the arguments and run.

    Returns:
        0, or 1 when something is more than it is meant to be.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="bursts of each subject (default 20)")
    parser.add_argument("--records", type=int, default=100_000, help="in the large store (default 100,000)")
    parser.add_argument("--calls", type=int, default=20_000, help="for the memory (default 20,000)")
    return 0 if asyncio.run(run(parser.parse_args())) else 1


if __name__ == "__main__":
    sys.exit(main())
