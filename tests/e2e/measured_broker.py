"""A broker in a process of its own that tells how much memory it holds. For tests only.

    python -m tests.e2e.measured_broker CONFIG

Prints its address when it listens, and the bytes that are allocated for each line that it is given.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.app import Broker
from broker.settings import read_settings
from tests.e2e.broker_process import BrokerProcess
from tests.e2e.stack import ROOT


class MeasuredBroker(BrokerProcess):
    """The process as a test sees it."""

    def measure(self) -> int:
        """Ask how many bytes are allocated in it."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        asked.write("\n")
        asked.flush()
        return int(answers.readline())


@contextmanager
def start_measured_broker(config: Path) -> Iterator[MeasuredBroker]:
    """Start one."""
    command = [sys.executable, "-P", "-m", "tests.e2e.measured_broker", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        config.with_name("broker.log").open("w") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=environment,
        ) as process,
    ):
        try:
            yield MeasuredBroker(process)
            process.terminate()
            process.wait(60)
        finally:
            process.kill()


async def run(config: Path) -> None:
    """Run a broker until SIGTERM."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    async with Broker(read_settings(config)) as broker:
        tracemalloc.start()
        print(broker.address, flush=True)
        loop.add_reader(sys.stdin, _tell)
        await stop.wait()


def _tell() -> None:
    if sys.stdin.readline():
        gc.collect()
        print(tracemalloc.get_traced_memory()[0], flush=True)


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
