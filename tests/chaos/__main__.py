"""`python -m tests.chaos`: writes under SIGKILL, and what the counter outside says.

python -m tests.chaos --writes 10000 --docker-writes 500 --kills 300
python -m tests.chaos --short
python -m tests.chaos --short --control journal-off     duplicates must show
python -m tests.chaos --short --control no-fence        a wrong resolution must show
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sandboxes.engine import Engine, find_engine
from tests.chaos.controls import CONTROLS
from tests.chaos.report import Report
from tests.chaos.run import Machine, Orders, run
from tests.chaos.targets import ROOT

STATE = ROOT / ".toolcrib"
SHORT = {"writes": 1500, "docker_writes": 0, "kills": 40}


def parse() -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--writes", type=int, default=10_000)
    parser.add_argument("--docker-writes", type=int, default=500)
    parser.add_argument("--kills", type=int, default=320)
    parser.add_argument("--callers", type=int, default=24)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--short", action="store_true", help=f"{SHORT}")
    parser.add_argument("--control", choices=CONTROLS, default="")
    parser.add_argument("--json", type=Path, default=STATE / "chaos.json", help="where the result goes")
    parser.add_argument("--keep", type=Path, default=None, help="folder to work in and to leave")
    options = parser.parse_args()
    if options.short:
        vars(options).update(SHORT)
    return options


def main() -> int:
    """Run and judge.

    Returns:
        1 when a promise is broken; with a control, when none is.
    """
    options = parse()
    if options.keep and options.keep.exists() and any(options.keep.iterdir()):
        print(f"error: {options.keep} is not empty", file=sys.stderr)
        return 2
    seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
    print(f"seed {seed}", flush=True)
    orders = Orders(
        options.writes, options.kills, seed, options.docker_writes, options.callers, options.control
    )
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tc-chaos-")))
        engine = stack.enter_context(open_engine(folder / "engine")) if orders.docker_writes else None
        machine = Machine(folder.resolve(), engine, STATE / "cache", lambda text: print(text, flush=True))
        report = asyncio.run(run(orders, machine))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(report.to_json(seed=seed, control=orders.control))
    print(f"\n{report.table()}\n\n{report.summary()}\nwritten: {options.json}")
    return conclude(report, orders)


def conclude(report: Report, orders: Orders) -> int:
    """Say whether the run showed what it is for."""
    broken = report.broken_promises
    for promise in broken:
        print(f"broken: {promise}")
    for oddity in report.oddities[:20]:
        print(f"  {oddity}")
    if not orders.control:
        print("every promise was kept" if not broken else f"again with --seed {orders.seed}")
        return 1 if broken else 0
    shown = report.total.duplicates if orders.control == "journal-off" else report.total.wrongly_resolved
    print(f"the control {orders.control} {'shows what it should' if shown else 'shows nothing'}")
    return 0 if shown else 1


@contextmanager
def open_engine(folder: Path) -> Iterator[Engine]:
    """Hold the engine that is there, or one of our own."""
    engine = find_engine(folder, os.environ.get("DOCKER_HOST") or None, STATE / "tests")
    try:
        yield engine
    finally:
        engine.stop()


if __name__ == "__main__":
    sys.exit(main())
