"""The proxy's process: what it gave up, when it ends, and what it forgets."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from credentials.injection import Form, Injection
from sandboxes.child import ChildRefused
from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.channel import make_pair
from sandboxes.proxy.confinement import UNPRIVILEGED_UID
from sandboxes.proxy.control import OpenCall
from tests.sandboxes.proxy.doors import (
    OK,
    PATIENCE_SECONDS,
    answering,
    opening,
    permit,
    proxying,
    read_all,
    running,
    serving,
)

GET = b"GET /a HTTP/1.1\r\nHost: pages.example\r\nConnection: close\r\n\r\n"
SECRET = "tok-" + "0f1e2d3c4b5a6978" * 250
TARGET = HttpTarget("pages", "127.0.0.1", 80, ("http://pages.example",))


def status(pid: int, name: str) -> list[str]:
    found = re.search(rf"^{name}:[ \t]*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return found[1].split()


def search_memory(pid: int, wanted: bytes) -> bool:
    """Tell whether a process has these bytes anywhere in its memory; root may read it."""
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if line.split()[1].startswith("rw"):
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                memory.seek(start)
                if wanted in memory.read(end - start):
                    return True
    return False


async def test_is_a_user_of_its_own_without_any_right() -> None:
    async with running() as child:
        assert set(status(child.pid, "Uid")) == set(status(child.pid, "Gid")) == {str(UNPRIVILEGED_UID)}
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status(child.pid, name)[0], 16) == 0
        assert status(child.pid, "NoNewPrivs") == ["1"]
        assert status(child.pid, "Groups") == []


async def test_shows_its_memory_to_nobody_of_its_user() -> None:
    async with running() as child:
        assert Path(f"/proc/{child.pid}/mem").stat().st_uid == 0  # what is dumpable is its user's
        limits = Path(f"/proc/{child.pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits)
        assert not re.search(r"Max address space +unlimited", limits)
        environment = Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0")
        assert {word.partition(b"=")[0] for word in environment if word} == {
            b"PYTHONMALLOC",
            b"GLIBC_TUNABLES",
        }


def test_loads_nothing_that_it_does_not_need() -> None:
    code = "import sys, sandboxes.proxy.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"cryptography", "sandboxes"} <= loaded
    assert loaded.isdisjoint(
        {"broker", "toolcrib", "hvac", "docker", "requests", "google", "grpc", "yaml", "pydantic", "h11"}
    )


async def test_has_no_file_of_the_brokers() -> None:
    async with running(TARGET) as child:
        links = {str(one.readlink()) for one in Path(f"/proc/{child.pid}/fd").iterdir()}
        assert all(re.match(r"socket:|pipe:|anon_inode:|/dev/null", link) for link in links), links


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_goes_on_when_everybody_is_told_to_end(number: signal.Signals) -> None:
    async with serving(answering(OK)) as target, proxying(target) as doors:
        os.kill(doors.pid, number)
        assert b"200 OK" in await doors.say(GET, "pages")


def test_says_who_starts_it() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sandboxes.proxy"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        text=True,
    )
    assert (done.returncode, "the broker starts this process" in done.stderr) == (2, True)


@pytest.mark.parametrize("said", [b"x", b'{"op":"close","seq":1,"call":"c"}', b""])
def test_ends_when_it_is_told_what_is_no_message(said: bytes) -> None:
    ours, theirs = make_pair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sandboxes.proxy"], stdin=theirs.fileno(), stderr=-1
        )
        theirs.close()
        if said:
            ours.send(said)
        else:
            ours.shutdown(socket.SHUT_RDWR)
        _, words = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == (2 if said else 0)
    assert b"Traceback" not in words


async def test_refuses_a_call_of_a_target_that_is_not_declared() -> None:
    async with running(TARGET) as child:
        with pytest.raises(ChildRefused, match="target other is not declared"):
            async with opening(child, permit(target="other")):
                pass
        async with opening(child, permit()) as doors:
            assert b"CONNECT" in await doors.say(GET, "pages")  # it goes on with other calls


async def test_refuses_a_credential_that_can_never_be_added() -> None:
    injection = Injection("api", Form.BEARER, {"token": "a\r\nX-More: b"})
    async with running(TARGET) as child:
        with pytest.raises(ChildRefused) as caught:
            async with opening(child, permit(injection=injection)):
                pass
        assert "X-More" not in str(caught.value)


async def test_forgets_a_calls_secret_when_it_is_closed() -> None:
    injection = Injection("api", Form.BEARER, {"token": SECRET})
    async with serving(answering(OK)) as target, running(target.declare()) as child:
        async with opening(child, permit(injection=injection)) as doors:
            assert b"200 OK" in await doors.say(GET, "pages")
            assert search_memory(child.pid, SECRET.encode())
        assert not search_memory(child.pid, SECRET.encode())


async def test_ends_a_call_by_itself_that_nobody_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = OpenCall.__init__

    def hurry(self: OpenCall, **values: object) -> None:
        made(self, **{**values, "milliseconds": 300})  # type: ignore[arg-type]

    monkeypatch.setattr(OpenCall, "__init__", hurry)
    async with serving(answering(OK)) as target, proxying(target) as doors:
        reader, writer = await doors.connect("pages")
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await read_all(reader) == b""
        writer.close()
        assert (await doors.close()).uncounted == 0
