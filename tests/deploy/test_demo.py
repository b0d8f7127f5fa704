"""The demo's own parts: its report is plain and narrow, and its search for leftovers sees a leak."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.demo.agent_process import Outcome
from deploy.demo.leftovers import find_files, find_processes, mark_children
from deploy.demo.report import WIDTH, Report
from toolcrib.v1 import broker_pb2

# Starts a process that outlives it and prints its id: what a leaked server looks like.
SLIP_AWAY = (
    "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
    " start_new_session=True, stdout=subprocess.DEVNULL).pid)"
)


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TOOLCRIB_DEMO_RUN", "replaced")
    return mark_children()


def make_record() -> broker_pb2.Call:
    record = broker_pb2.Call(grant_id="desk-looks-orders-up")
    for stage in ("authenticate", "validate", "claim", "authorize", "gate", "approve", "reserve", "mint"):
        record.stages.add(stage=stage, duration_micros=12_345)
    lease = record.leases.add(credential="orders_read", username="v-token-shop-orde-" + "x" * 45)
    lease.minted.FromMilliseconds(1_000)
    record.sandboxes.add(container_id="c" * 64).made.FromMilliseconds(1_500)
    return record


def tell(outcome: Outcome, record: broker_pb2.Call | None) -> str:
    out = io.StringIO()
    Report(out).call("a call", outcome, record)
    return out.getvalue()


def test_sees_a_child_that_still_runs(mark: str) -> None:
    with subprocess.Popen(["/bin/sleep", "60"], env={}) as child:
        found = find_processes(mark)
        child.kill()
    assert f"{child.pid} sleep" in found


def test_sees_a_process_that_slipped_away(mark: str) -> None:
    pid = int(subprocess.check_output([sys.executable, "-c", SLIP_AWAY]))
    found = find_processes(mark)
    os.kill(pid, signal.SIGKILL)
    assert str(pid) in {line.split()[0] for line in found}


def test_finds_no_process_where_none_was_started(mark: str) -> None:
    before = set(find_processes(mark))  # other tests' servers are children of this process, too
    subprocess.run(["/bin/true"], check=True)
    assert set(find_processes(mark)) - before == set()


def test_sees_a_file_and_a_socket(tmp_path: Path) -> None:
    (tmp_path / "call").mkdir()
    (tmp_path / "call" / "left").touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "call" / "socket"))
        assert find_files(tmp_path) == [str(tmp_path / "call" / name) for name in ("left", "socket")]


def test_finds_no_file_where_there_is_no_folder(tmp_path: Path) -> None:
    assert find_files(tmp_path / "gone") == []


def test_writes_80_columns_and_no_escapes() -> None:
    text = tell(Outcome("step", "shop.v1.Orders/LookupOrder", "OK", 12.0), make_record())
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "\x1b" not in text


def test_never_parts_a_stage_from_its_time() -> None:
    text = tell(Outcome("step", "shop.v1.Orders/LookupOrder", "OK", 12.0), make_record())
    assert len(re.findall(r"[a-z]+\s12\.3", text)) == 8
    assert not re.search(r"[a-z]\n\s+12\.3", text)


def test_says_when_a_login_or_a_container_is_not_gone() -> None:
    text = tell(Outcome("step", "shop.v1.Orders/LookupOrder", "OK", 12.0), make_record())
    assert "STILL OWED" in text
    assert "STILL THERE" in text


def test_names_reason_and_violations() -> None:
    violations = [{"field": "order_id", "description": "no such form"}]
    outcome = Outcome("s", "m", "INVALID_ARGUMENT", 1.0, "REQUEST_INVALID", "no", violations=violations)
    text = tell(outcome, None)
    assert "INVALID_ARGUMENT REQUEST_INVALID" in text
    assert "order_id: no such form" in text


def test_counts_what_does_not_hold() -> None:
    report = Report(io.StringIO())
    report.expect("this", True)
    report.expect("that", False)
    report.left_over({"containers": ["abc"], "leases": []})
    assert (report.checks, report.failures) == (3, 2)


async def test_says_what_is_going_on_without_a_terminal() -> None:
    out = io.StringIO()
    report = Report(out)
    async with report.progress("Starting"):
        report.step("OpenBao")
        await asyncio.sleep(0)
    assert out.getvalue().splitlines()[:2] == ["Starting …", "  OpenBao"]
