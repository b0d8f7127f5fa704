"""Packets of a real sandbox: in its own network they go to its proxy alone, on the host to targets alone."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sandboxes.nests import HttpWish
from sandboxes.proxy.access import HttpAccess
from tests.e2e.test_http_way_out import OPEN, way_out
from tests.parts.bubblewrap import BubblewrapTool
from tests.parts.engine import Obedient, answer_of
from tests.parts.web_origin import WebOrigin, serving
from tests.sandboxes.proxy.netlab import Capture
from tools.http_rules import parse_rule

Tool = Obedient | BubblewrapTool
FORBIDDEN = "127.77.13.9"
"""Nobody else on this machine has it: what goes there is ours."""

TRY_EVERYTHING = """
import socket
def connect(host, port, kind):
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as way:
            way.settimeout(5)
            way.connect((host, port))
            way.send(b"hello")
        return "sent"
    except OSError as error:
        return type(error).__name__
hosts = ["8.8.8.8", "10.1.2.3", "169.254.169.254", "172.17.0.1", "2606:4700::1111", "fe80::1", "PLACE"]
past = [connect(host, PORT, kind) for host in hosts for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
urls = ["http://PLACE:PORT/", "http://localhost:PORT/", "http://2130706433:PORT/", "http://api.example@PLACE:PORT/"]
answer = fetch("http://api.example/here")[:1], [fetch(url)[:3] for url in urls], past
"""


@dataclass
class Packets:
    """What was seen while a tool ran."""

    sandbox: set[str]
    host: set[str]
    answer: str


@pytest.fixture(params=[pytest.param("obedient", marks=pytest.mark.engine, id="runc"), "bubblewrap_tool"])
def tool(request: pytest.FixtureRequest) -> Tool:
    found: Tool = request.getfixturevalue(request.param)
    return found


@contextmanager
def forbidden_listener() -> Iterator[int]:
    with socket.create_server((FORBIDDEN, 0)) as listener:
        yield listener.getsockname()[1]


def find_network(uid: int) -> Path:
    """Find a sandbox's network namespace by its user; what starts it may have that user in our network."""
    own = Path("/proc/self/ns/net").readlink()
    for process in Path("/proc").iterdir():
        network = process / "ns" / "net"
        try:
            if process.name.isdecimal() and process.stat().st_uid == uid and network.readlink() != own:
                return network
        except OSError:
            continue
    raise LookupError(f"no process has the uid {uid} and a network of its own")


async def run_watched(tool: Tool, origin: WebOrigin, program: str) -> Packets:
    """Run a program as a tool that may ask one target for one path, and watch both networks."""
    spec = replace(tool.spec(), has_proxy=True)
    accesses = [HttpAccess("web", (parse_rule("GET /here"),))]
    async with way_out(origin) as process:
        with process.nest(spec.uid, HttpWish()) as nest:
            async with tool.driver.create(replace(spec, socket_dir=nest.folder), "call-1") as sandbox:
                inside, outside = Capture(find_network(spec.uid)), Capture()
                inside.start()
                outside.start()
                async with process.open("call-1", nest, ["web"], accesses, 60.0):
                    outcome = await sandbox.run(tool.start(program), 50.0)
                    seen = set(inside.settle()), set(outside.settle())
                await sandbox.end()
    return Packets(*seen, answer_of(outcome))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it captures packets")
async def test_sends_packets_to_the_proxy_alone_and_these_to_targets_alone(tool: Tool) -> None:
    with serving() as origin, forbidden_listener() as port:
        program = OPEN + TRY_EVERYTHING.replace("PLACE", FORBIDDEN).replace("PORT", str(port))
        packets = await run_watched(tool, origin, program)
        assert packets.answer.startswith("('{', ['403', '403', '403', '403'], ["), packets.answer
        # What it sends to its own loopback past the proxy goes nowhere: nobody listens there.
        own = {"tcp 127.0.0.1 3128", f"tcp {FORBIDDEN} {port}", f"udp {FORBIDDEN} {port}"}
        assert {line for line in packets.sandbox if line.split()[1] != "::1"} == own
        assert f"tcp 127.0.0.1 {origin.server_port}" in packets.host
        assert not {line for line in packets.host if FORBIDDEN in line}


def test_the_capture_sees_a_forbidden_packet_where_there_is_one() -> None:
    capture = Capture()
    capture.start()
    with forbidden_listener() as port:
        socket.create_connection((FORBIDDEN, port)).close()
        assert f"tcp {FORBIDDEN} {port}" in capture.settle()
