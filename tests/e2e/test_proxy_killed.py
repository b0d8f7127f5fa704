"""The HTTP proxy dies in the middle of a hundred calls: what they are told, and that all goes on after it.

Real broker, OpenBao, egress process and proxy; tools are functions of ours that speak through their call's
own door. The ledger holds every answer back until the proxy is gone; half of the writes it has kept by then.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from broker.app import Hooks
from broker.dev import DevOptions
from sandboxes.outcome import AnswerSign, OutcomeKind, RawOutcome, SandboxSpec
from tests.e2e.caller import Reply, ToolCaller
from tests.e2e.lean_stack import LeanStack, UnsandboxedTool, UnsandboxedTools
from tests.e2e.stack import ROOT, Crib, CribThread
from toolcrib.handler.v1 import handler_pb2

pytestmark = [pytest.mark.openbao, pytest.mark.postgres]

LEDGER = ROOT / "tests" / "bundles" / "ledger"
LOOK, KEEP, REST = (f"ledger.v1.Ledger/{name}" for name in ("Look", "Keep", "Rest"))
EACH = 50
SECONDS = 60
GRANT = """
@id("ledger")
@targets("ledger")
permit (
  principal == Agent::"refund-desk",
  action in [
    Action::"ledger.v1.Ledger/Look", Action::"ledger.v1.Ledger/Keep", Action::"ledger.v1.Ledger/Rest"
  ],
  resource == Environment::"dev"
);
"""


class Ledger(ThreadingHTTPServer):
    """Keeps entries, and holds its answers back until `gate` opens.

    Attributes:
        kept: How often each key was kept.
        held: How many requests wait for the gate.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.gate, self.resting = threading.Event(), threading.Event()
        self.kept: Counter[str] = Counter()
        self.entries: dict[str, str] = {}
        self.held = 0
        self.lock = threading.Lock()

    def keep(self, entry: str, key: str) -> None:
        """Keep an entry once under its key."""
        with self.lock:
            self.kept[key] += key not in self.entries
            self.entries[key] = entry

    def hold(self) -> None:
        """Wait for the gate."""
        with self.lock:
            self.held += not self.gate.is_set()
        self.gate.wait(SECONDS)

    def handle_error(self, *_: object) -> None:
        """Say nothing: who asked is gone."""


class _Page(BaseHTTPRequestHandler):
    server: Ledger

    def do_GET(self) -> None:
        place, _, name = self.path.removeprefix("/").partition("/")
        if place == "kept":
            self.answer(self.server.entries.get(name, ""))
            return
        self.server.hold()
        self.answer(f"text of {name}")

    def do_PUT(self) -> None:
        parts = urlsplit(self.path)
        entry, key = parts.path.rpartition("/")[2], parse_qs(parts.query)["key"][0]
        if self.server.gate.is_set() or int(entry[1:]) % 2 == 0:
            self.server.keep(entry, key)
        self.server.hold()
        self.answer(entry)

    def answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class NestTool(UnsandboxedTool):
    """A tool that fails as a handler does whose connection breaks."""

    async def run(self, start: handler_pb2.Start, deadline: float, answer: AnswerSign) -> RawOutcome:
        """Run it."""
        try:
            return await super().run(start, deadline, answer)
        except (OSError, asyncio.IncompleteReadError):
            effect = handler_pb2.EFFECT_UNKNOWN if start.method == KEEP else handler_pb2.EFFECT_NONE
            failure = handler_pb2.Failure(code="LEDGER_LOST", message="It broke.", effect=effect)
            return RawOutcome(OutcomeKind.FAILURE, failure=failure)


class NestTools(UnsandboxedTools):
    """Gives each call's tool the folder that a container would have mounted."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(lambda _: asyncio.sleep(0, b""))
        self._ledger = ledger

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, _call_id: str) -> AsyncIterator[UnsandboxedTool]:
        """Hold one."""
        tool = NestTool(functools.partial(play, self._ledger, spec.socket_dir), spec.uid)
        try:
            yield tool
        finally:
            await tool.end()


async def play(ledger: Ledger, folder: Path | None, start: handler_pb2.Start) -> bytes:
    """Do what the bundle's tool would do in its sandbox; requests and responses have one text, field 1."""
    assert folder is not None
    method, text = start.method.rpartition("/")[2], start.request[2:].decode()
    if method == "Rest":
        await asyncio.to_thread(ledger.resting.wait, SECONDS)
        return b""
    key = start.context.idempotency_key
    line = {
        "Look": f"GET /entries/{text}",
        "Keep": f"PUT /entries/{text}?key={key}",
        "Find": f"GET /kept/{text}",
    }
    said = await ask(folder / "ledger" / "ledger.sock", line[method])
    field = b"\x0a" + bytes([len(said)]) + said
    if method == "Find":
        return b"\x08\x01\x12" + bytes([len(field)]) + field if said else b""
    return field


async def ask(door: Path, line: str) -> bytes:
    """Send one request, and give the body of its answer."""
    reader, writer = await asyncio.open_unix_connection(door)
    try:
        writer.write(f"{line} HTTP/1.1\r\nhost: ledger.example\r\ncontent-length: 0\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return await reader.readexactly(length)
    finally:
        writer.close()


class LedgerThread(CribThread):
    """Runs a stack whose tools are played here."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        options = DevOptions(
            bundles=(LEDGER,),
            tenants=("shop",),
            tenant_extra={"shop": "max_concurrent_calls = 200"},
            settings_extra=(
                "[sandboxes]\nmemory_mib = 100000\n"
                "[sandboxes.pool]\nmax_idle = 0\nmakers = 16\nmax_wait_seconds = 60\n"
                f'[targets.ledger]\nkind = "http"\nhost = "127.0.0.1"\nport = {ledger.server_port}\n'
                'origins = ["http://ledger.example"]\n'
            ),
        )
        super().__init__(folder, folder, options)
        hooks = Hooks(driver_factory=lambda _settings, _epoch: NestTools(ledger))
        self._stack = LeanStack(folder, hooks=hooks, options=options)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    server = Ledger()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.gate.set()
    server.resting.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def crib(ledger: Ledger) -> Iterator[Crib]:
    """In a folder with a short name: the tools connect by whole paths."""
    with tempfile.TemporaryDirectory(prefix="tc-") as folder:
        with LedgerThread(Path(folder) / "state", ledger) as crib:
            crib.grant(GRANT)
            yield crib
            ledger.gate.set()
            ledger.resting.set()


def wait_for(what: Any) -> None:
    until = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.02)


def kill_proxy(crib: Crib) -> None:
    """Kill it, and wait until it runs again."""
    egress = crib.stack.broker.egress
    before = egress.proxy_restarts
    assert egress.proxy_pid is not None
    os.kill(egress.proxy_pid, signal.SIGKILL)
    wait_for(lambda: egress.proxy_restarts > before and egress.proxy_pid)


def keep_in_the_end(caller: ToolCaller, number: int) -> Reply:
    """Ask for a write again, with its key, until it is known what became of it."""
    replies: list[Reply] = []

    def ask_again() -> bool:
        replies.append(caller.call(KEEP, {"entry": f"w{number}"}, key=f"k{number}", timeout=SECONDS))
        return replies[-1].reason != "IN_DOUBT"

    wait_for(ask_again)
    return replies[-1]


def test_ends_its_calls_as_the_rules_say_and_nothing_else(crib: Crib, ledger: Ledger) -> None:
    with crib.caller() as caller:
        reads = [caller.start(LOOK, {"entry": f"r{n}"}, timeout=SECONDS) for n in range(EACH)]
        writes = [caller.start(KEEP, {"entry": f"w{n}"}, key=f"k{n}", timeout=SECONDS) for n in range(EACH)]
        rest = caller.start(REST, {"entry": "x"}, timeout=SECONDS)
        wait_for(lambda: ledger.held == 2 * EACH)
        kill_proxy(crib)
        told = [caller.finish(LOOK, future) for future in reads]
        assert {(one.code, one.reason) for one in told} == {("UNAVAILABLE", "SANDBOX_UNAVAILABLE")}
        assert all(one.retry_after_seconds for one in told)
        assert {caller.finish(KEEP, future).reason for future in writes} == {"IN_DOUBT"}
        ledger.gate.set()
        ledger.resting.set()
        assert caller.finish(REST, rest).code == "OK"
        assert caller.call(LOOK, {"entry": "again"}).result == {"text": "text of again"}
        retried = [keep_in_the_end(caller, n) for n in range(EACH)]
        assert [one.result for one in retried] == [{"entry": f"w{n}"} for n in range(EACH)]
        assert [one.replayed for one in retried] == [n % 2 == 0 for n in range(EACH)]
        assert set(ledger.kept.values()) == {1}
    wait_for(lambda: crib.leftovers().keys() <= {"processes"})  # the proxy is another one now
    assert len(crib._children()) == len(crib._children_at_rest)
