"""Attack: a tool sends data out, or reaches what listens on the host, over a network of its own making."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sandboxes.hardening import Measure
from tests.parts.engine import Obedient

pytestmark = pytest.mark.engine

CONNECT = """
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=2).close()
    answer = "connected"
except OSError as error:
    answer = type(error).__name__
"""

INTERFACES = "import os; answer = sorted(os.listdir('/sys/class/net'))"
RAW = """
import socket
answer = []
raw, algorithms = socket.SOCK_RAW, socket.SOCK_SEQPACKET
for wanted in ((socket.AF_PACKET, raw), (socket.AF_NETLINK, raw), (socket.AF_INET, raw, 1), (38, algorithms)):
    try:
        socket.socket(*wanted).close()
        answer.append("open")
    except OSError as error:
        answer.append(type(error).__name__)
"""

HOST_NETWORK = Measure("host-network", "HostConfig.NetworkMode", lambda spec: "host", "nothing")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Something that listens on the host's loopback."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_cannot_reach_the_host(obedient: Obedient, port: int) -> None:
    assert await obedient.answer(CONNECT.format(port=port)) == "ConnectionRefusedError"


async def test_reaches_the_host_with_its_network(obedient: Obedient, port: int) -> None:
    program = CONNECT.format(port=port)
    assert await obedient.answer_unprotected(program, "no-network", instead=[HOST_NETWORK]) == "connected"


async def test_has_a_loopback_of_its_own_only(obedient: Obedient) -> None:
    assert await obedient.answer(INTERFACES) == "['lo']"


async def test_cannot_open_other_families(obedient: Obedient) -> None:
    assert await obedient.answer(RAW) == str(["PermissionError"] * 4)


async def test_opens_other_families_without_our_seccomp(obedient: Obedient) -> None:
    assert "open" in await obedient.answer_unprotected(RAW, "seccomp")


async def test_learns_no_resolver(obedient: Obedient) -> None:
    program = "import pathlib\nanswer = pathlib.Path('/etc/resolv.conf').read_text()"
    assert await obedient.answer(program) == ""
