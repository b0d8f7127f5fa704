"""The HTTP proxy's life beside the egress process: what it gets, what it leaves, what its death means."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from credentials.injection import Form, Injection
from sandboxes import child as child_module
from sandboxes.egress.addresses import TargetAddress
from sandboxes.egress.process import Egress, EgressProcess, EgressUnavailable
from sandboxes.egress.records import MAX_KEPT, Outcome
from sandboxes.egress.remains import end_remains
from sandboxes.nests import HttpWish, Nest
from sandboxes.proxy.access import HttpAccess, HttpCaps, HttpTarget
from tests.parts.web_origin import WebOrigin, serving
from tests.sandboxes.egress.conftest import connect, listening
from tools.http_rules import parse_rule

LONG = pytest.mark.skipif(not os.environ.get("TOOLCRIB_LONG"), reason="takes a minute")
UID = 123_457
ANY = (parse_rule("GET /{path:rest}"), parse_rule("GET /"))
ACCESS = HttpAccess("web", ANY)


@pytest.fixture
def origin() -> Iterator[WebOrigin]:
    with serving() as server:
        yield server


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tc-") as folder:
        yield Path(folder)


def declare(origin: WebOrigin, *more: TargetAddress) -> EgressProcess:
    http = {"web": origin.target("web")}
    web = TargetAddress("web", "http", "127.0.0.1", origin.server_port)
    return EgressProcess({target.name: target for target in (web, *more)}, http=http)


@asynccontextmanager
async def started(process: EgressProcess, run_dir: Path) -> AsyncIterator[EgressProcess]:
    try:
        await process.start(run_dir)
        yield process
    finally:
        await process.stop()
    assert list(run_dir.iterdir()) == []


@pytest.fixture
async def process(origin: WebOrigin, run_dir: Path) -> AsyncIterator[EgressProcess]:
    async with started(declare(origin), run_dir) as running:
        yield running


@asynccontextmanager
async def opened(process: EgressProcess, *accesses: HttpAccess, call: str = "c1") -> AsyncIterator[Egress]:
    names = [access.target for access in accesses]
    with process.nest(UID, HttpWish()) as nest:
        async with process.open(call, nest, names, accesses, 60.0) as egress:
            yield egress


async def ask(egress: Egress, path: str = "/x", door: str = "web/web.sock") -> bytes:
    """Send a GET for api.example, and give all of the answer."""
    reader, writer = await asyncio.open_unix_connection(egress.socket_dir / door)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: api.example\r\nconnection: close\r\n\r\n".encode())
    try:
        return await reader.read(-1)
    finally:
        writer.close()


async def kill_proxy(process: EgressProcess) -> None:
    """Kill it and wait until it runs again."""
    before, pid = process.proxy_restarts, process.proxy_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        while process.proxy_restarts == before or process.proxy_pid is None:
            await asyncio.sleep(0.01)


async def test_serves_a_calls_doors_and_tells_each_exchange(process: EgressProcess) -> None:
    async with opened(process, ACCESS) as egress:
        assert b'"path": "/x"' in await ask(egress)
        assert b'"path": "/y"' in await ask(egress, "http://api.example/y", ".proxy/s")
        assert egress.nest.contents() == [".proxy", "web"]
    assert [(one.target, one.method, one.status) for one in egress.connections] == [("web", "GET", 200)] * 2
    assert egress.nest.contents() == []


async def test_gives_doors_to_the_sandbox_and_folders_to_root(process: EgressProcess) -> None:
    async with opened(process, ACCESS) as egress:
        for name in (".proxy/s", "web/web.sock"):
            door = (egress.socket_dir / name).lstat()
            assert (door.st_uid, stat.S_IMODE(door.st_mode)) == (UID, 0o600)
            folder = (egress.socket_dir / name).parent.stat()
            assert (folder.st_uid, stat.S_IMODE(folder.st_mode)) == (0, 0o711)


async def test_shows_what_a_sandbox_trusts_from_its_birth_and_never_the_key(process: EgressProcess) -> None:
    with process.nest(UID, HttpWish()) as nest:
        file = nest.folder / ".ca" / "ca.pem"
        assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (0, 0o644)
        assert "PRIVATE" not in file.read_text()
        assert [path.name for path in nest.folder.rglob("*")] == [".ca", "ca.pem"]
    with process.nest(UID) as plain:
        assert list(plain.folder.iterdir()) == []


def test_hands_the_key_over_once(tmp_path: Path) -> None:
    from sandboxes.proxy.authority import make_authority

    nest = Nest(tmp_path, UID, authority := make_authority())
    assert nest.take_authority() == (authority.certificate_pem, authority.key_pem)
    assert nest.take_authority() == ("", "")


async def test_trusts_what_opaque_targets_show(origin: WebOrigin, run_dir: Path) -> None:
    web = TargetAddress("web", "http", "127.0.0.1", origin.server_port)
    opaque = HttpTarget("web", "127.0.0.1", origin.server_port, ("https://api.example",), "-- DECLARED --")
    async with started(EgressProcess({"web": web}, http={"web": opaque}), run_dir) as process:
        with process.nest(UID, HttpWish(opaque=("web",))) as nest:
            assert (nest.folder / ".ca" / "ca.pem").read_text().endswith("-- DECLARED --")


@pytest.mark.parametrize("accesses", [(), (HttpAccess("other", ANY),), (ACCESS, ACCESS)])
async def test_opens_nothing_without_a_word_on_what_may_be_done(
    process: EgressProcess, accesses: tuple[HttpAccess, ...]
) -> None:
    with process.nest(UID, HttpWish()) as nest, pytest.raises(EgressUnavailable, match="nothing says"):
        await process.open("c1", nest, ["web"], accesses).__aenter__()


async def test_leaves_nothing_of_a_call_that_cannot_be_opened(process: EgressProcess) -> None:
    huge = Injection("key", Form.BEARER, {"token": "x" * 200_000})
    with process.nest(UID, HttpWish()) as nest:
        with pytest.raises(EgressUnavailable) as caught:
            await process.open("c1", nest, ["web"], [HttpAccess("web", ANY, injection=huge)]).__aenter__()
        assert nest.contents() == []
    assert "xxx" not in str(caught.value)
    async with opened(process, ACCESS) as egress:
        assert b'"path": "/x"' in await ask(egress)


async def test_opens_raw_and_http_doors_of_one_call(origin: WebOrigin, run_dir: Path) -> None:
    async with listening("orders-db") as orders, started(declare(origin, orders), run_dir) as process:
        with process.nest(UID, HttpWish()) as nest:
            async with process.open("c1", nest, ["orders-db", "web"], [ACCESS], 60.0) as egress:
                reader, writer = await connect(egress)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                assert b'"path": "/x"' in await ask(egress)
                writer.close()
    assert sorted(one.target for one in egress.connections) == ["orders-db", "web"]


async def test_ends_what_is_open_when_the_call_closes(process: EgressProcess) -> None:
    async with opened(process, ACCESS) as egress:
        reader, writer = await asyncio.open_unix_connection(egress.socket_dir / "web" / "web.sock")
        writer.write(b"GET /x HTTP/1.1\r\nhost: api.")
    with suppress(ConnectionError):
        assert await reader.read(-1) == b""
    writer.close()
    with pytest.raises(FileNotFoundError):
        await asyncio.open_unix_connection(egress.socket_dir / "web" / "web.sock")


async def test_ends_connections_that_came_just_before_the_call_closed(process: EgressProcess) -> None:
    """Also those whose first step was not taken: what is cancelled before that closes nothing by itself."""
    for _ in range(20):
        async with opened(process, ACCESS) as egress:
            door = egress.socket_dir / "web" / "web.sock"
            clients = [await asyncio.open_unix_connection(door) for _ in range(6)]
        for reader, writer in clients:
            with suppress(ConnectionError):
                async with asyncio.timeout(30):
                    assert await reader.read(-1) == b""
            writer.close()


async def test_keeps_a_bounded_record(process: EgressProcess) -> None:
    many = HttpAccess("web", ANY)
    async with opened(process, many) as egress:
        for _ in range(20):
            await asyncio.gather(*(ask(egress, "/%2e%2e/x") for _ in range(16)), return_exceptions=True)
    assert len(egress.connections) == MAX_KEPT // 2, "refusals leave room for what is not refused"
    assert len(egress.connections) + egress.uncounted >= 300


async def test_has_on_record_what_a_tool_did_after_many_refusals(process: EgressProcess) -> None:
    async with opened(process, HttpAccess("web", ANY, caps=HttpCaps(requests=1_000))) as egress:
        reader, writer = await asyncio.open_unix_connection(egress.socket_dir / "web" / "web.sock")
        for path in [*["/%2e%2e/x"] * (MAX_KEPT + 1), "/what-it-came-for"]:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: api.example\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        writer.close()
    assert (egress.connections[-1].status, egress.connections[-1].outcome) == (200, Outcome.ENDED)


async def test_ends_the_calls_that_it_served_and_no_others(origin: WebOrigin, run_dir: Path) -> None:
    async with listening("orders-db") as orders, started(declare(origin, orders), run_dir) as process:
        with process.nest(UID) as nest:
            async with process.open("raw", nest, ["orders-db"]) as raw, opened(process, ACCESS) as served:
                await ask(served)
                while not served._told:  # it is told once the answer has left
                    await asyncio.sleep(0.01)
                await kill_proxy(process)
                assert (served.lost.is_set(), served.is_broken) == (True, True)
                assert (raw.lost.is_set(), raw.is_broken) == (False, False)
                (await connect(raw))[1].close()
        async with opened(process, ACCESS, call="c2") as egress:
            assert b'"path": "/x"' in await ask(egress)
    assert [one.outcome for one in served.connections] == [Outcome.ENDED, Outcome.LOST]
    assert process.restarts == 0


async def test_keeps_sandboxes_that_wait_when_it_dies(process: EgressProcess) -> None:
    with process.nest(UID, HttpWish()) as nest:
        await kill_proxy(process)
        async with process.open("c1", nest, ["web"], [ACCESS], 60.0) as egress:
            assert b'"path": "/x"' in await ask(egress)


async def test_knows_that_it_ends_before_anybody_was_told(process: EgressProcess) -> None:
    async with opened(process, ACCESS) as egress:
        reader, writer = await asyncio.open_unix_connection(egress.socket_dir / "web" / "web.sock")
        writer.write(b"GET")
        await asyncio.sleep(0.05)
        assert process.proxy_pid is not None
        assert not egress.is_broken
        os.kill(process.proxy_pid, signal.SIGKILL)
        with suppress(ConnectionError):
            await reader.read(-1)
        assert egress.is_broken
        writer.close()


async def test_replaces_one_that_says_nothing_any_more(
    process: EgressProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "ANSWER_SECONDS", 0.3)
    before, pid = process.proxy_restarts, process.proxy_pid
    assert pid is not None
    async with opened(process, ACCESS) as served:
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(EgressUnavailable, match="no answer to open"):
            async with opened(process, ACCESS, call="c2"):
                pass
        async with asyncio.timeout(20):
            await served.lost.wait()
            while process.proxy_restarts == before or process.proxy_pid is None:
                await asyncio.sleep(0.01)
    monkeypatch.undo()
    async with opened(process, ACCESS, call="c3") as egress:
        assert b'"path": "/x"' in await ask(egress)


def count_descriptors(pid: int | None) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.parametrize("long", [40, pytest.param(2_000, marks=LONG)])
async def test_leaves_nothing_of_calls_that_end_or_are_cancelled(process: EgressProcess, long: int) -> None:
    async def use(number: int) -> None:
        async with opened(process, ACCESS, call=f"c{number}") as egress:
            await ask(egress, door=("web/web.sock", ".proxy/s")[number % 2])

    pids = (os.getpid(), process.proxy_pid, process.pid)
    await use(0)
    before = [count_descriptors(pid) for pid in pids]
    for first in range(1, long, 8):
        calls = [asyncio.create_task(use(first + more)) for more in range(8)]
        asyncio.get_running_loop().call_later(0.001 * (first % 9), calls[first % 8].cancel)
        await asyncio.gather(*calls, return_exceptions=True)
    async with asyncio.timeout(20):
        while any(count_descriptors(pid) > most for pid, most in zip(pids, before, strict=True)):
            await asyncio.sleep(0.01)
    assert (process._open, process.proxy_restarts) == ({}, 0)
    assert list((process._root).iterdir()) == []


async def test_is_ended_by_whoever_takes_over(origin: WebOrigin, run_dir: Path) -> None:
    process = declare(origin)
    await process.start(run_dir / "old")
    assert process._proxy is not None and process._proxy.child is not None
    child = process._proxy.child
    for keeper in (process._keeper, process._proxy._keeper):
        assert keeper._keeping is not None
        keeper._keeping.cancel()  # a stopped broker starts nothing again
    assert await asyncio.to_thread(end_remains, run_dir / "old")
    await child.gone.wait()
    assert not (run_dir / "old").exists()
    await process.stop()


def test_kills_nobody_by_a_number_that_was_given_again(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "proxy").write_text(f"another-boot {os.getpid()} 1")
    assert end_remains(tmp_path / "old")
