"""The egress process of a broker that was stopped is found by its lock, and ended."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sandboxes.egress import remains
from sandboxes.egress.process import EgressProcess
from sandboxes.egress.remains import end_remains


async def test_ends_the_process_that_works_in_a_folder(tmp_path: Path) -> None:
    egress = EgressProcess({})
    await egress.start(tmp_path / "old")
    child = egress._keeper.child
    assert child is not None
    egress._keeper._keeping.cancel()  # type: ignore[union-attr]  # a stopped broker starts nothing again
    assert end_remains(tmp_path / "old")
    await child.gone.wait()
    assert not (tmp_path / "old").exists()
    await egress.stop()


def test_removes_a_folder_in_which_nobody_works(tmp_path: Path) -> None:
    (tmp_path / "old" / "egress" / "c1").mkdir(parents=True)
    assert end_remains(tmp_path / "old")
    assert not (tmp_path / "old").exists()


def test_finds_nothing_where_nothing_is(tmp_path: Path) -> None:
    assert end_remains(tmp_path / "old")


def test_kills_nobody_else_who_holds_the_lock(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(remains, "_PATIENCE_SECONDS", 0.05)
    (tmp_path / "old" / "egress").mkdir(parents=True)
    descriptor = os.open(tmp_path / "old" / "egress", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert not end_remains(tmp_path / "old")
        assert (tmp_path / "old").exists()
    finally:
        os.close(descriptor)
