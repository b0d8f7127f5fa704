"""The egress process's life: what it may, what it leaves, what happens when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandboxes.egress.addresses import TargetAddress, TargetInvalid
from sandboxes.egress.child import spawn
from sandboxes.egress.control import ANSWERS, Configure, decode, encode
from sandboxes.egress.messages import Done
from sandboxes.egress.process import (
    Egress,
    EgressProcess,
    EgressUnavailable,
    TargetUnknown,
)
from sandboxes.egress.records import ConnectionRecord, Outcome, lost_record
from sandboxes.nests import Nest
from tests.sandboxes.egress.conftest import UID, Start, connect, listening, open_way_out, socket_path

NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def test_refuses_an_unknown_target_before_anything_opens(process: EgressProcess, run_dir: Path) -> None:
    with pytest.raises(TargetUnknown, match="'other-db' is not declared; the operator declared: orders-db"):
        async with open_way_out(process, "call-1", UID, ["orders-db", "other-db"]):
            pass
    assert list((run_dir / "egress").iterdir()) == []


async def test_opens_only_the_targets_of_the_call(start: Start, orders_db: TargetAddress) -> None:
    async with listening("other-db") as other:
        process = await start(orders_db, other)
        async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
            assert [folder.name for folder in egress.socket_dir.iterdir()] == ["orders-db"]


async def test_opens_an_empty_folder_for_no_targets(process: EgressProcess) -> None:
    async with open_way_out(process, "call-1", UID, []) as egress:
        assert list(egress.socket_dir.iterdir()) == []


async def test_gives_the_socket_to_the_container_and_the_folders_to_root(egress: Egress) -> None:
    door = socket_path(egress).lstat()
    assert (door.st_uid, stat.S_IMODE(door.st_mode)) == (UID, 0o600)
    for folder in (egress.socket_dir, egress.socket_dir / "orders-db"):
        assert (folder.stat().st_uid, stat.S_IMODE(folder.stat().st_mode)) == (0, 0o711)
    assert stat.S_IMODE(egress.socket_dir.parent.stat().st_mode) == 0o700


async def test_tells_the_handler_where_its_targets_are(egress: Egress) -> None:
    target = egress.handler_targets()["orders-db"]
    assert target.socket_dir == "/run/toolcrib/orders-db"
    assert target.socket_path == "/run/toolcrib/orders-db/.s.PGSQL.5432"
    assert dict(target.settings) == {"database": "shop"}


async def test_leaves_nothing_of_a_closed_call(process: EgressProcess) -> None:
    async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
        reader, writer = await connect(egress)
        writer.write(b"hello")
        await reader.readexactly(5)
    assert await reader.read(-1) == b""
    assert not egress.socket_dir.exists()
    assert [record.outcome for record in egress.connections] == [Outcome.ABORTED]
    writer.close()


async def test_resets_the_targets_connection_at_the_close(start: Start) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(100):
                writer.write(b"heard")
            ended.set_result("end")
        except ConnectionResetError:
            ended.set_result("reset")

    async with listening("orders-db", listen) as target:
        process = await start(target)
        async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
            reader, writer = await connect(egress)
            writer.write(b"hello")
            await reader.readexactly(5)
        assert await ended == "reset"
        writer.close()


async def test_has_on_record_that_its_process_died_whatever_that_had_told(
    orders_db: TargetAddress,
) -> None:
    egress = Egress("call-1", Nest(Path("/run"), UID), (orders_db,))
    told = ConnectionRecord("orders-db", "", NOW, NOW, 0, 0, Outcome.LOST)
    egress.note(*[replace(told, outcome=Outcome.ENDED)] * 300, told)
    egress.note_loss(lost_record(NOW, "it was killed"))
    egress.conclude()
    assert (len(egress.connections), egress.uncounted) == (256, 46)
    assert [one.detail for one in egress.connections if one.outcome is Outcome.LOST] == ["it was killed"]


@pytest.mark.parametrize(("target", "noted"), [("orders-db", "orders-db"), ("", ""), ("payroll-db", "")])
async def test_takes_no_name_from_a_child_that_is_no_target_of_the_call(
    orders_db: TargetAddress, target: str, noted: str
) -> None:
    egress = Egress("call-1", Nest(Path("/run"), UID), (orders_db,))
    egress.note(ConnectionRecord(target, "", NOW, NOW, 0, 0, Outcome.ENDED))
    egress.conclude()
    assert [one.target for one in egress.connections] == [noted]


async def test_closes_a_call_whose_task_is_cancelled(process: EgressProcess) -> None:
    opened = asyncio.Event()

    async def hold() -> None:
        async with open_way_out(process, "call-1", UID, ["orders-db"]):
            opened.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await opened.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # a second one, while it closes
    await asyncio.wait([task])
    assert task.cancelled()
    async with open_way_out(process, "call-1", UID, ["orders-db"]):
        pass


async def test_leaves_nothing_of_a_call_cancelled_while_it_opens(
    process: EgressProcess, run_dir: Path
) -> None:
    async def hold() -> None:
        async with open_way_out(process, "call-1", UID, ["orders-db"]):
            pass

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert list((run_dir / "egress").iterdir()) == []


async def test_refuses_the_same_call_twice(process: EgressProcess, egress: Egress) -> None:
    with pytest.raises(EgressUnavailable, match="call-1 has its way out already"):
        async with open_way_out(process, "call-1", UID, ["orders-db"]):
            pass
    assert socket_path(egress).exists()


@pytest.mark.parametrize("call_id", ["", "..", "../x", "a/b", "x" * 200])
async def test_refuses_a_call_id_that_is_no_folder_name(process: EgressProcess, call_id: str) -> None:
    with pytest.raises(ValueError, match="cannot name a folder"):
        async with open_way_out(process, call_id, UID, ["orders-db"]):
            pass


async def test_removes_what_a_dead_run_left(start: Start, orders_db: TargetAddress, run_dir: Path) -> None:
    stale = run_dir / "egress" / "call-0" / "orders-db"
    stale.mkdir(parents=True)
    (stale / ".s.PGSQL.5432").touch()
    (run_dir / "egress" / "file").touch()
    await start(orders_db)
    assert list((run_dir / "egress").iterdir()) == []


async def test_refuses_a_folder_that_another_process_works_in(
    process: EgressProcess, egress: Egress, orders_db: TargetAddress, run_dir: Path
) -> None:
    second = EgressProcess({"orders-db": orders_db})
    with pytest.raises(EgressUnavailable, match="in use by another egress process"):
        await second.start(run_dir)
    assert socket_path(egress).exists()


async def test_gives_the_child_nothing_of_the_brokers(process: EgressProcess) -> None:
    assert process.pid is not None
    assert Path(f"/proc/{process.pid}/environ").read_bytes() == b""
    assert os.getsid(process.pid) == process.pid
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert "CapEff:\t0000000000000001" in status
    assert "NoNewPrivs:\t1" in status


async def test_gives_the_child_no_open_file_of_the_brokers(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "canary").open("w") as canary:
        os.set_inheritable(canary.fileno(), True)
        process = await start()
        links = [str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
    assert str(tmp_path / "canary") not in links
    assert len([link for link in links if link.startswith("socket:")]) <= 3  # control, the loop's own pair


async def test_tells_open_calls_and_starts_again_when_the_child_dies(
    process: EgressProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
        reader, writer = await connect(egress)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await egress.lost.wait()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
        with pytest.raises(EgressUnavailable, match="being started again"):
            async with open_way_out(process, "call-2", UID, ["orders-db"]):
                pass
    assert not egress.socket_dir.exists()
    assert [record.outcome for record in egress.connections] == [Outcome.LOST]
    await _until_running(process)
    async with open_way_out(process, "call-3", UID, ["orders-db"]) as again:
        (await connect(again))[1].close()
    assert process.restarts == 1
    assert "ended with code -9; starting it again" in caplog.text
    assert "runs again" in caplog.text


async def test_survives_the_signal_that_drains_the_broker(process: EgressProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    async with open_way_out(process, "call-1", UID, ["orders-db"]):
        pass
    assert process.restarts == 0


async def test_kills_a_child_that_does_not_answer(
    process: EgressProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxes.child.ANSWER_SECONDS", 0.2)
    stuck = process.pid
    assert stuck is not None
    os.kill(stuck, signal.SIGSTOP)
    with pytest.raises(EgressUnavailable, match=r"no answer to open within 0\.2 s"):
        async with open_way_out(process, "call-1", UID, ["orders-db"]):
            pass
    assert not _is_there(stuck)


async def test_ends_open_calls_when_it_is_stopped(start: Start, orders_db: TargetAddress) -> None:
    process = await start(orders_db)
    async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
        pid = process.pid
        await process.stop()
        assert egress.lost.is_set()
    assert pid is not None and not _is_there(pid)


async def test_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        asker = threading.Thread(target=lambda: started.append(spawn(theirs)))
        asker.start()
        asker.join()
        (process,) = started
        rules = Configure(0, str(tmp_path), [], 1, 1, 1, 4096, 1, 1, 1, 1)
        await asyncio.to_thread(ours.sendall, encode(rules))
        assert decode((await asyncio.to_thread(ours.recv, 1000))[4:], ANSWERS) == Done(0)
    with process:
        assert await asyncio.to_thread(process.wait, 5) == 0


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
async def test_dies_with_the_broker(run_dir: Path, sent: signal.Signals) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from sandboxes.egress.process import EgressProcess\n"
        "async def main():\n"
        "    process = EgressProcess({})\n"
        "    await process.start(pathlib.Path(sys.argv[1]))\n"
        "    print(process.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    broker = subprocess.Popen([sys.executable, "-c", script, str(run_dir)], stdout=subprocess.PIPE)
    with broker:
        assert broker.stdout is not None
        child = int(await asyncio.to_thread(broker.stdout.readline))
        assert _is_there(child)
        broker.send_signal(sent)
    async with asyncio.timeout(10):
        while _is_there(child):
            await asyncio.sleep(0.02)


async def test_does_nothing_when_a_person_starts_it() -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-P", "-m", "sandboxes.egress"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "the broker starts this process" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Orders"}, "a-z, 0-9"),
        ({"kind": "gopher"}, "is not one of"),
        ({"host": "no host"}, "no host name"),
        ({"name": "a" * 44, "kind": "ssh"}, "use a shorter name"),
        ({"port": 0}, "1-65535"),
        ({"port": True}, "1-65535"),
    ],
)
def test_refuses_an_ill_formed_target(change: dict[str, object], message: str) -> None:
    fields: dict[str, object] = {"name": "orders-db", "kind": "postgresql", "host": "db", "port": 5432}
    with pytest.raises(TargetInvalid, match=message):
        TargetAddress(**(fields | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("postgresql", ".s.PGSQL.5432"), *((kind, "t.sock") for kind in ("smtp", "ldap", "ssh", "tls"))],
)
async def test_opens_a_socket_for_each_kind_of_target(start: Start, kind: str, name: str) -> None:
    async with listening("t", kind=kind) as target:
        process = await start(target)
        async with open_way_out(process, "call-1", UID, ["t"]) as egress:
            assert egress.handler_targets()["t"].socket_path == f"/run/toolcrib/t/{name}"
            reader, writer = await connect(egress, "t", kind)
            writer.write(b"hello")
            assert await reader.read(5) == b"hello"
            writer.close()


def test_refuses_a_target_under_another_name() -> None:
    target = TargetAddress("orders-db", "postgresql", "127.0.0.1", 5432)
    with pytest.raises(ValueError, match="declared under the name other"):
        EgressProcess({"other": target})


async def _until_running(process: EgressProcess) -> None:
    async with asyncio.timeout(10):
        while process.restarts == 0:
            await asyncio.sleep(0.02)


def _is_there(pid: int) -> bool:
    """True for a process that runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
