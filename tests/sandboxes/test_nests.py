"""Nests: there before their sandbox, served by one run of the egress process, for one call."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from pathlib import Path

import pytest

from sandboxes.egress.addresses import TargetAddress
from sandboxes.egress.process import EgressProcess, EgressUnavailable
from tests.sandboxes.egress.conftest import UID, connect, orders_db, process, run_dir, start

__all__ = ["orders_db", "process", "run_dir", "start"]


async def kill_egress(process: EgressProcess) -> None:
    """Kill the egress process and wait until it runs again."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while not process.restarts:
            await asyncio.sleep(0.01)


async def test_is_an_empty_folder_that_only_root_changes(process: EgressProcess) -> None:
    with process.nest(UID) as nest:
        found = nest.folder.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o711)
        assert stat.S_IMODE(nest.folder.parent.stat().st_mode) == 0o700
        assert nest.contents() == []


async def test_is_gone_when_its_sandbox_has_ended(process: EgressProcess) -> None:
    with process.nest(UID) as nest:
        pass
    assert not nest.folder.exists()


async def test_gets_the_sockets_when_a_call_takes_it_and_loses_them_after_it(process: EgressProcess) -> None:
    with process.nest(UID) as nest:
        async with process.open("call-1", nest, ["orders-db"]) as egress:
            assert nest.contents() == ["orders-db"]
            (await connect(egress))[1].close()
        assert nest.folder.exists()
        assert nest.contents() == []


async def test_serves_one_call(process: EgressProcess) -> None:
    with process.nest(UID) as nest:
        async with process.open("call-1", nest, ["orders-db"]):
            with pytest.raises(EgressUnavailable, match="served another call before"):
                await process.open("call-2", nest, ["orders-db"]).__aenter__()
            assert nest.contents() == ["orders-db"]
        with pytest.raises(EgressUnavailable, match="served another call before"):
            await process.open("call-3", nest, ["orders-db"]).__aenter__()


async def test_never_has_the_name_of_an_earlier_one(process: EgressProcess) -> None:
    with process.nest(UID) as first:
        pass
    with process.nest(UID) as second:
        assert first.name != second.name


async def test_is_lost_with_the_run_of_the_egress_process_that_it_was_made_for(
    process: EgressProcess,
) -> None:
    with process.nest(UID) as nest:
        assert not nest.lost.is_set()
        await kill_egress(process)
        assert nest.lost.is_set()
        with pytest.raises(EgressUnavailable, match="that the sandbox was made for is gone"):
            await process.open("call-1", nest, ["orders-db"]).__aenter__()
    with process.nest(UID) as again:
        async with process.open("call-1", again, ["orders-db"]) as egress:
            (await connect(egress))[1].close()


async def test_is_lost_when_the_egress_process_is_stopped(run_dir: Path, orders_db: TargetAddress) -> None:
    process = EgressProcess({"orders-db": orders_db})
    await process.start(run_dir)
    with process.nest(UID) as nest:
        await process.stop()
        assert nest.lost.is_set()
    with pytest.raises(EgressUnavailable, match="started again"):
        process.nest(UID).__enter__()


async def test_cannot_be_made_where_the_folder_is_gone(process: EgressProcess, run_dir: Path) -> None:
    (run_dir / "egress").rename(run_dir / "elsewhere")
    try:
        with pytest.raises(EgressUnavailable, match="no folder for sockets can be made"):
            process.nest(UID).__enter__()
    finally:
        (run_dir / "elsewhere").rename(run_dir / "egress")
