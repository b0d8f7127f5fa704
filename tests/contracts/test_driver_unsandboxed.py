"""The chaos suite's driver of plain processes, as far as it claims the contract: it contains nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.process_driver import IMAGE, UnsandboxedDriver
from tests.contracts.driver_clauses import CHECKERS, read_clauses
from tests.contracts.driver_trial import HANDLER, DriverFactory
from tests.e2e.stack import ROOT

CLAIMED = ("D4", "D5", "S1", "S2")
UNCLAIMED = frozenset(read_clauses()) - set(CLAIMED)

# The trial's handler, in the shape that the process engine loads.
MODULE = """
class Trial:
    def run(self, frames):
        os.dup2(frames._source, 3)
        os.dup2(frames._sink, 4)
        work()

handler = Trial()
"""


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[DriverFactory]:
    (tmp_path / "handler.py").write_text(HANDLER + MODULE)
    socket_path = tmp_path / "p.sock"
    command = [sys.executable, "-P", "-m", "tests.chaos.process_engine", str(socket_path), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as engine:
        try:
            async with asyncio.timeout(20):
                while not socket_path.exists():
                    await asyncio.sleep(0.05)
            yield DriverFactory(
                "unsandboxed", lambda *place: UnsandboxedDriver(socket_path, *place), IMAGE, UNCLAIMED
            )
            await asyncio.sleep(0.05)  # for the last connections to close
        finally:
            engine.kill()


@pytest.mark.parametrize("clause", CLAIMED)
async def test_keeps_what_it_claims(processes: DriverFactory, clause: str) -> None:
    await CHECKERS[clause](processes)
