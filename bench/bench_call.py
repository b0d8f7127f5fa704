"""What a call costs beside the barest thing that could stand in its place.

    python -m bench.bench_call [--rounds 30] [--without-docker]

Floors: a bare grpc.aio unary echo over mTLS (for a call's stages), `docker run` with the same hardening (for
the whole cold call), an append with fdatasync (for what must be durable).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench import plot
from bench.brokered import WHOLE, open_broker
from bench.docker_run import docker_run
from bench.echo import open_mutual_echo, open_plain_echo
from bench.measure import Pacing, Report, Subject, measure
from sandboxes.engine import Engine, EngineMissing
from sandboxes.images import build_base

STATE = Path(__file__).parents[1] / ".toolcrib"


@asynccontextmanager
async def open_floors(folder: Path) -> AsyncIterator[list[Subject]]:
    """Hold everything light that a call is compared with."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_mutual_echo(folder)),
            await stack.enter_async_context(open_plain_echo()),
            stack.enter_context(_Journal(folder / "journal")).subject(),
        ]


async def measure_all(folder: Path, options: argparse.Namespace) -> Report:
    """Measure the floors and, beside them on the same engine, a broker's calls."""
    async with AsyncExitStack() as stack:
        subjects = await stack.enter_async_context(open_floors(folder))
        if options.without_docker:
            return await measure("call", subjects, Pacing(rounds=options.rounds))
        callers, engine_url = await stack.enter_async_context(open_broker(folder, STATE / "cache"))
        engine = Engine(engine_url)
        stack.callback(engine.close)
        subjects += [docker_run(engine_url, build_base(engine, STATE / "cache")), *callers.subjects()]
        report = await measure("call", subjects, Pacing(rounds=options.rounds), callers.settle)
        return report.with_stages(WHOLE, await callers.read_stages())


class _Journal:
    """A file that is appended to durably."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def subject(self) -> Subject:
        """One append of a record's size."""

        async def call() -> None:
            self._file.write(bytes(400))
            os.fdatasync(self._file.fileno())

        return Subject("append + fdatasync", call, "append + fdatasync")


async def run(options: argparse.Namespace) -> None:
    """Measure, print the table and write the JSON."""
    with tempfile.TemporaryDirectory(prefix="tc-bench-") as folder:
        report = await measure_all(Path(folder), options)
    print(report.table())
    written = report.write()
    print(f"written: {written}, {plot.write(written).name}")


def main() -> int:
    """Read the arguments and run.

    Returns:
        0, or 1 when a part is missing.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="bursts of each subject (default 30)")
    parser.add_argument("--without-docker", action="store_true", help="the light floors only")
    try:
        asyncio.run(run(parser.parse_args()))
    except EngineMissing as error:
        print(f"error: {error}\nTo do without: --without-docker", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
