"""A broker in a process of its own that stops or kills itself at a stage boundary. For tests only.

    python -m tests.e2e.broker_process CONFIG STAGE METHOD-ENDING SIGNAL

Prints its address when it listens. The signal hits the process itself when a call passes the stage.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.app import Broker, Hooks
from broker.settings import read_settings
from tests.e2e.stack import ROOT


class BrokerProcess:
    """The process as a test sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.address = process.stdout.readline().strip()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_hit(self) -> None:
        """Wait until its own signal hit it."""
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def end(self) -> int:
        """Ask it to end, and wait for it."""
        self._process.terminate()
        return self._process.wait(30)


@contextmanager
def start_broker(config: Path, stage: str, hit: signal.Signals) -> Iterator[BrokerProcess]:
    """Start a broker that hits itself once, when a call passes `stage`."""
    command = [sys.executable, "-P", "-m", "tests.e2e.broker_process", str(config), stage, str(int(hit))]
    log = config.with_name(f"broker-{stage}.log").open("w")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, env=environment
    ) as process:
        try:
            yield BrokerProcess(process)
        finally:
            process.kill()
            log.close()


async def run(config: Path, stage: str, hit: int) -> None:
    """Run a broker until SIGTERM."""
    pending = [stage]

    async def boundary(passed: str, _call_id: str) -> None:
        if passed in pending:
            pending.clear()
            os.kill(os.getpid(), hit)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Broker(read_settings(config), Hooks(boundary=boundary)) as broker:
        print(broker.address, flush=True)
        await stop.wait()


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO)
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
