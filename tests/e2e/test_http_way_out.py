"""HTTP out of real sandboxes: an ordinary client by HTTP_PROXY, plain and https, and sockets."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxes.docker_driver import DockerDriver
from sandboxes.egress.addresses import TargetAddress
from sandboxes.egress.process import Egress, EgressProcess
from sandboxes.egress.records import Outcome
from sandboxes.nests import HttpWish
from sandboxes.proxy.access import HttpAccess
from sandboxes.runtimes import RUNSC
from tests.parts.bubblewrap import BubblewrapTool
from tests.parts.engine import COMMAND, Obedient, answer_of
from tests.parts.web_origin import WebOrigin, serving
from tools.http_rules import parse_rule

Tool = Obedient | BubblewrapTool
DRIVERS = [
    pytest.param("obedient", marks=pytest.mark.engine, id="runc"),
    pytest.param("runsc_tool", marks=pytest.mark.engine, id="runsc"),
    pytest.param("bubblewrap_tool", id="bubblewrap"),
]
OPEN = """
import urllib.request, urllib.error
def fetch(url, data=None):
    try:
        with urllib.request.urlopen(url, data, timeout=20) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.headers['toolcrib-egress']} {error.read().decode()}"
"""
CONNECT_EARLY = """
import builtins, runpy, socket
try:
    builtins.early = socket.create_connection(("127.0.0.1", 3128), 20)
except OSError as error:
    builtins.early = error
runpy.run_module("handler", run_name="__main__")
"""
EARLY = ("python3", "-c", CONNECT_EARLY)
USE_EARLY = """
early.sendall(b"GET http://api.example/here HTTP/1.1\\r\\nHost: api.example\\r\\n\\r\\n")
answer = early.recv(15).decode()
"""
SOCKET = """
from toolcrib.handler.http_target import HttpRequest, send
answer = send(context.targets["web"], HttpRequest("GET", "/there", "api.example"), 20.0).body.decode()
"""
LOOK_AT_RELAY = """
import os
def attempt(path):
    try:
        open(path, "rb").read(1)
        return "open"
    except OSError as error:
        return error.strerror
others = [pid for pid in os.listdir("/proc") if pid.isdecimal() and int(pid) not in (1, os.getpid())]
told = {pid: open(f"/proc/{pid}/stat").read().split()[3] for pid in others}
relays = [pid for pid, parent in told.items() if parent == "1"]
answer = [attempt(f"/proc/{pid}/{name}") for pid in relays for name in ("mem", "environ", "fd/3")]
"""


@pytest.fixture
async def runsc_tool(obedient: Obedient) -> AsyncIterator[Obedient]:
    driver = DockerDriver(obedient.engine, obedient.installation, 2, runtime=RUNSC)
    yield replace(obedient, driver=driver)
    await driver.close()


@pytest.fixture(params=DRIVERS)
def tool(request: pytest.FixtureRequest) -> Tool:
    found: Tool = request.getfixturevalue(request.param)
    return found


@asynccontextmanager
async def way_out(*origins: WebOrigin) -> AsyncIterator[EgressProcess]:
    """An egress process that knows servers as "web", "web-1", …"""
    names = [f"web-{number}" if number else "web" for number in range(len(origins))]
    http = {name: origin.target(name) for name, origin in zip(names, origins, strict=True)}
    declared = {name: TargetAddress(name, "http", one.host, one.port) for name, one in http.items()}
    with tempfile.TemporaryDirectory(prefix="tc-") as folder:
        process = EgressProcess(declared, http=http)
        try:
            await process.start(Path(folder))
            yield process
        finally:
            await process.stop()


async def run(
    tool: Tool,
    process: EgressProcess,
    program: str,
    rule: str = "GET /{path:rest}",
    relayed: bool = False,
    command: Sequence[str] = COMMAND,
) -> tuple[str, Egress]:
    """Run a program as a tool that may ask for what one rule allows, of every target.

    Args:
        relayed: Init carries the connections, also where the proxy could take them itself.
        command: Of the handler.
    """
    names = list(process._http)
    accesses = [HttpAccess(name, (parse_rule(rule),)) for name in names]
    spec = replace(tool.spec(command=command), has_proxy=True)
    with process.nest(spec.uid, HttpWish()) as nest:
        spec = replace(spec, socket_dir=nest.folder, take_door=None if relayed else nest.keep_door)
        async with tool.driver.create(spec, "call-1") as sandbox:
            async with process.open("call-1", nest, names, accesses, 60.0) as egress:
                start = tool.start(program)
                for name, target in egress.handler_targets().items():
                    start.targets[name].CopyFrom(target)
                outcome = await sandbox.run(start, 50.0)
                await sandbox.end()
    return answer_of(outcome), egress


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_lets_an_ordinary_client_through(tool: Tool, tls: bool) -> None:
    with serving(tls=tls) as origin:
        async with way_out(origin) as process:
            url = f"{origin.target('web').origins[0]}/here?no"
            answer, egress = await run(tool, process, f"{OPEN}\nanswer = fetch({url!r})", "GET /here?*")
    assert json.loads(answer)["path"] == "/here?no"
    assert json.loads(answer)["headers"]["host"] == "api.example"
    assert [(one.target, one.status, one.outcome) for one in egress.connections] == [
        ("web", 200, Outcome.ENDED)
    ]


async def test_lets_it_through_the_relay_where_the_proxy_cannot_listen_inside(tool: Tool) -> None:
    with serving() as origin:
        async with way_out(origin) as process:
            program = f"{OPEN}\nanswer = fetch('http://api.example/here')"
            answer, egress = await run(tool, process, program, relayed=True)
    assert json.loads(answer)["path"] == "/here"
    assert [one.outcome for one in egress.connections] == [Outcome.ENDED]


@pytest.mark.parametrize("tool", DRIVERS[:1] + DRIVERS[2:], indirect=True)
async def test_needs_no_process_inside_where_the_proxy_listens_there_itself(tool: Tool) -> None:
    with serving() as origin:
        async with way_out(origin) as process:
            relays = f"{LOOK_AT_RELAY}\nanswer = len(relays)"
            found = [(await run(tool, process, relays, relayed=relayed))[0] for relayed in (False, True)]
    assert found == ["0", "1"]


async def test_lets_a_connection_wait_that_was_made_before_the_call(bubblewrap_tool: BubblewrapTool) -> None:
    with serving() as origin:
        async with way_out(origin) as process:
            answer, _ = await run(bubblewrap_tool, process, USE_EARLY, command=EARLY)
    assert answer == "HTTP/1.1 200 OK"


async def test_takes_requests_at_the_targets_own_socket(bubblewrap_tool: BubblewrapTool) -> None:
    with serving() as origin:
        async with way_out(origin) as process:
            answer, egress = await run(bubblewrap_tool, process, SOCKET)
    assert json.loads(answer)["path"] == "/there"
    assert len(egress.connections) == 1


async def test_refuses_what_no_rule_allows_and_asks_nobody(bubblewrap_tool: BubblewrapTool) -> None:
    with serving() as origin:
        async with way_out(origin) as process:
            program = (
                f"{OPEN}\nanswer = fetch('http://api.example/secret'), fetch('http://other.example/here')"
            )
            answer, egress = await run(bubblewrap_tool, process, program, "GET /here")
            assert origin.asked == []
    assert "403 PATH toolcrib: " in answer
    assert "403 TARGET toolcrib: " in answer
    assert {one.outcome for one in egress.connections} == {Outcome.REFUSED}


async def test_keeps_the_relay_closed_to_the_handler(tool: Tool) -> None:
    with serving() as origin:
        async with way_out(origin) as process:
            answer, _ = await run(tool, process, LOOK_AT_RELAY, relayed=True)
    has_proc = tool.driver.name != "docker-runsc"
    assert answer == str(["Permission denied"] * 3 * has_proc)


async def test_finds_each_target_by_its_own_url(bubblewrap_tool: BubblewrapTool) -> None:
    with ExitStack() as stack:
        plain, closed = stack.enter_context(serving()), stack.enter_context(serving("b.example", tls=True))
        async with way_out(plain, closed) as process:
            program = f"{OPEN}\nfetch('http://api.example/a'); answer = fetch('https://b.example/b')"
            await run(bubblewrap_tool, process, program)
        assert (plain.asked, closed.asked) == (["GET /a"], ["GET /b"])
