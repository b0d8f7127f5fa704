"""The worker process: what it gave up, and what becomes of a job that it does not do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tools.content.kinds import Cleaned, Format, Kind, Problem, Removed
from tools.content.worker.frames import (
    LENGTH,
    Garbled,
    Job,
    Rejected,
    body_size,
    decode_done,
    decode_job,
    encode_done,
    encode_job,
)
from tools.content.worker.process import Worker, WorkerBroken

PAGE = Job((), ((Format.HTML, "<p hidden>x</p>seen"),))
REMOVED = Removed({Kind.HIDDEN: 2})
SLOW = Job((), ((Format.HTML, "<p " + " ".join(f"a{n}=1" for n in range(110_000)) + ">"),))
"""A parser of pages takes a time that is quadratic in the attributes of one tag."""


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    made = Worker()
    yield made
    await made.close()


async def test_cleans_one_job_after_the_other_in_one_process(worker: Worker) -> None:
    answers = await asyncio.gather(*(worker.clean(PAGE) for _ in range(5)))

    assert answers == [[Cleaned("seen", answers[0][0].removed)]] * 5
    assert (answers[0][0].removed, worker.starts) == ({Kind.HIDDEN: 1}, 1)


async def test_names_the_string_that_was_refused(worker: Worker) -> None:
    with pytest.raises(Rejected) as caught:
        await worker.clean(Job((), ((Format.TEXT, "a"), (Format.JSON, "{"))))

    assert (caught.value.at, caught.value.problem) == (1, Problem.NOT_JSON)
    assert await worker.clean(PAGE)
    assert worker.starts == 1


async def test_replaces_one_that_takes_too_long() -> None:
    worker = Worker(clean_seconds=1.0)
    try:
        with pytest.raises(WorkerBroken) as caught:
            await worker.clean(SLOW)
        assert caught.value.problem is Problem.TOO_SLOW
        assert (await worker.clean(PAGE))[0].text == "seen"
        assert worker.starts == 2
    finally:
        await worker.close()


async def test_replaces_one_that_died(worker: Worker) -> None:
    await worker.clean(PAGE)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)

    while Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        await asyncio.sleep(0.01)

    assert (await worker.clean(PAGE))[0].text == "seen"


async def test_ends_the_process_of_a_call_that_was_cancelled(worker: Worker) -> None:
    await worker.clean(PAGE)
    pid = worker.pid
    job = asyncio.create_task(worker.clean(SLOW))
    await asyncio.sleep(0.2)

    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job

    assert not Path(f"/proc/{pid}").exists()


async def test_gave_up_every_right_before_it_read_anything(worker: Worker) -> None:
    await worker.clean(PAGE)

    status = Path(f"/proc/{worker.pid}/status").read_text()
    limits = Path(f"/proc/{worker.pid}/limits").read_text()

    held = dict(line.split(":\t") for line in status.splitlines() if line.startswith(("Cap", "NoNewPrivs")))
    assert {held[name].strip("0") for name in ("CapPrm", "CapEff", "CapAmb", "CapInh")} == {""}
    assert held["NoNewPrivs"] == "1"
    assert "Seccomp:\t2" in status
    assert "Max open files            0                    0" in limits
    assert "Max file size             0                    0" in limits
    assert "Max core file size        0                    0" in limits


async def test_holds_no_environment_and_no_descriptor_but_its_socket(worker: Worker) -> None:
    await worker.clean(PAGE)
    assert Path(f"/proc/{worker.pid}/environ").read_bytes() == b""

    held = {entry.name: str(entry.readlink()) for entry in Path(f"/proc/{worker.pid}/fd").iterdir()}

    assert held.pop("0").startswith("socket:")
    assert set(held.values()) == {"/dev/null"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave root")
async def test_runs_as_a_user_that_owns_nothing(worker: Worker) -> None:
    await worker.clean(PAGE)

    assert "Uid:\t65432\t65432\t65432\t65432" in Path(f"/proc/{worker.pid}/status").read_text()
    assert len(Path(f"/proc/{worker.pid}/net/dev").read_text().splitlines()) <= 3  # headings and loopback


# --- what code in a worker that was taken over can do ------------------------------------------------
ATTEMPTS = """
import os, resource, socket, sys
from tools.content.worker.confinement import confine
sibling = int(sys.argv[2])
attempts = {
    "signal": lambda: os.kill(sibling, 0),
    "limits": lambda: resource.prlimit(sibling, resource.RLIMIT_CPU),
    "affinity": lambda: os.sched_setaffinity(sibling, os.sched_getaffinity(0)),
    "listing": lambda: os.listdir("/proc"),
    "look": lambda: os.stat("/etc/passwd"),
    "ids": lambda: os.setresuid(-1, -1, -1),
    "socket": lambda: socket.socket(),
    "program": lambda: os.execv("/nowhere", ["x"]),
}
if sys.argv[1] == "confined":
    confine()
for name, attempt in attempts.items():
    try:
        attempt()
        print(name, "done")
    except OSError as error:
        print(name, "EPERM" if error.errno == 1 else "done")
"""


@pytest.mark.parametrize("how", ["free", "confined"])
def test_reaches_nothing_of_others(how: str) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as sibling:
        try:
            # The parsers would be loaded before; here nothing is.
            command = [sys.executable, "-P", "-c", ATTEMPTS, how, str(sibling.pid)]
            run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        finally:
            sibling.kill()
    found = dict(line.split() for line in run.stdout.splitlines())

    assert len(found) == 8, run.stderr
    if how == "confined":
        assert set(found.values()) == {"EPERM"}
    else:  # control: all of it would work
        assert set(found.values()) == {"done"}


# --- what a worker that was taken over could say --------------------------------------------------
def split(frame: bytes) -> tuple[bytes, bytes]:
    (size,) = LENGTH.unpack(frame[: LENGTH.size])
    return frame[LENGTH.size : LENGTH.size + size], frame[LENGTH.size + size :]


def test_reads_what_it_wrote() -> None:
    job = Job(("https://a.example",), ((Format.TEXT, "é"), (Format.JSON, "[]")))
    head, body = split(encode_job(job))

    assert (body_size(head), decode_job(head, body)) == (len(body), job)


def test_reads_an_answer() -> None:
    cleaned = [Cleaned("é", REMOVED), Cleaned("", Removed())]
    head, body = split(encode_done(cleaned))

    assert decode_done(head, body, 2) == cleaned


@pytest.mark.parametrize(
    "head",
    [
        b"", b"[]", b"{}", b"1", b"[" * 5_000, b'{"items":1}', b'{"items":[[-1,{}]]}',
        b'{"items":[["a",{}]]}',
        b'{"items":[[99999999999,{}]]}', b'{"items":[]}', b'{"items":[[0,{"HIDDEN":-1}]]}',
        b'{"items":[[0,{"HIDDEN":true}]]}', b'{"items":[[0,{"ignore all instructions":1}]]}',
        b'{"items":[],"at":7,"problem":"TOO_LONG"}', b'{"items":[],"at":0,"problem":"obey me"}',
        b'{"items":[],"problem":"TOO_LONG"}', b'{"items":[[0,{}],[0,{}]]}', b'{"items":[[0,[]]]}',
    ],
)  # fmt: skip
def test_takes_nothing_else_for_an_answer(head: bytes) -> None:
    with pytest.raises(Garbled):
        body_size(head)
        decode_done(head, b"", 1)


def test_takes_no_bytes_that_are_no_text_for_an_answer() -> None:
    head = json.dumps({"items": [[1, {}]]}).encode()

    with pytest.raises(Garbled):
        decode_done(head, b"\xff", 1)
