"""The short form of the proof, and its controls: without what is claimed to help, the damage shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.report import Report
from tests.chaos.run import Machine, Orders, run
from tests.parts import without

SEED = 20


async def carry_out(orders: Orders, folder: Path) -> Report:
    if without("openbao"):
        pytest.skip("needs openbao")
    return await run(orders, Machine(folder / "stage", say=print))


async def test_keeps_every_promise_under_kills(tmp_path: Path) -> None:
    report = await carry_out(Orders(writes=720, kills=24, seed=SEED), tmp_path)
    print(report.table(), report.summary(), sep="\n")
    assert report.broken_promises == [], report.oddities
    assert report.toll.kills >= 24
    assert report.total.resolved > 0


async def test_writes_twice_without_the_journal(tmp_path: Path) -> None:
    report = await carry_out(Orders(writes=240, kills=8, seed=SEED, control="journal-off"), tmp_path)
    assert report.total.duplicates > 0


async def test_resolves_wrongly_without_the_fence(tmp_path: Path) -> None:
    report = await carry_out(Orders(writes=240, kills=8, seed=SEED, control="no-fence"), tmp_path)
    assert report.lines["late"].wrongly_resolved > 0
