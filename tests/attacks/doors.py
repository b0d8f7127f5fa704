"""What an attacker knocks at: sockets of the host's, of another call, of a network that a resident plays.

Behind each door somebody says hello; only who hears that got through.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from sandboxes.hardening import Measure
from sandboxes.outcome import SandboxSpec
from tests.attacks.arena import Attack, Ground, Verdict

KNOCK = """
import socket
def hear(door):
    if door.recv(5) != b"hello":
        raise OSError(errno.EPIPE, "nobody answered")

def knock(path):
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(5)
        door.connect(path)
        hear(door)

def dial(address, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as door:
        door.settimeout(2)
        door.connect(address)
        door.send(b"knock")
        hear(door)
"""


@asynccontextmanager
async def two_nests(ground: Ground) -> AsyncIterator[Mapping[str, Any]]:
    """The socket folders of two calls, with somebody who answers behind each door."""
    with tempfile.TemporaryDirectory(prefix="toolcrib-nests-") as folder:
        Path(folder).chmod(0o755)
        async with AsyncExitStack() as stack:
            for place in ("own/orders-db", "other/orders-db", "other/billing"):
                path = Path(folder, place, "door.sock")
                path.parent.mkdir(parents=True)
                path.parent.chmod(0o777)  # so that only what mounts it keeps a sandbox from changing it
                await stack.enter_async_context(await asyncio.start_unix_server(_greet, path))
                path.chmod(0o666)
            yield {"nests": folder}


async def in_own_nest(attack: Attack, ground: Ground) -> Verdict:
    """Judge an attack from a sandbox that has the folder "own" of `two_nests`."""
    spec = {**attack.spec, "socket_dir": Path(ground.values["nests"], "own")}
    alone = replace(attack, judge=None, host=lambda _: nullcontext(ground.values), spec=spec)
    return await alone.try_on(ground)


def _mount_all_nests(spec: SandboxSpec) -> list[dict[str, Any]]:
    assert spec.socket_dir is not None
    nests = str(spec.socket_dir.parent)
    return [{"Type": "bind", "Source": nests, "Target": nests, "ReadOnly": False}]


ALL_NESTS = Measure("all-nests", "HostConfig.Mounts", _mount_all_nests, "nothing")
"""Weakens: every call's folder is there and may be changed, as when one folder served all."""

HOST_NETWORK = Measure("host-network", "HostConfig.NetworkMode", lambda spec: "host", "nothing")
"""Weakens: the host's own network."""


@asynccontextmanager
async def host_doors(ground: Ground) -> AsyncIterator[Mapping[str, Any]]:
    """What listens on the host: loopback of both kinds, every interface, and an abstract socket."""
    name = f"toolcrib-host-{ground.obedient.installation}"
    async with AsyncExitStack() as stack:
        every = await stack.enter_async_context(await asyncio.start_server(_greet, "0.0.0.0", 0))
        port = every.sockets[0].getsockname()[1]
        six = await stack.enter_async_context(
            await asyncio.start_server(_greet, "::", port, family=socket.AF_INET6)
        )
        assert six.is_serving()
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind("\0" + name)
        await stack.enter_async_context(await asyncio.start_unix_server(_greet, sock=abstract))
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(_Echo, ("0.0.0.0", port))
        stack.callback(transport.close)
        yield {"port": port, "abstract": name, **_addresses()}


class _Echo(asyncio.DatagramProtocol):
    """Says hello to whatever comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: Any) -> None:
        """Answer."""
        self._transport.sendto(b"hello", address)


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say hello to whoever comes, and wait until they leave."""
    writer.write(b"hello")
    try:
        await reader.read()
    except ConnectionError:
        return
    finally:
        writer.close()


def _addresses() -> dict[str, list[Any]]:
    """The host's own addresses: of version 4, and of version 6 with their interfaces."""
    four = {line.split()[-1] for line in _local_routes()}
    six = []
    for line in Path("/proc/net/if_inet6").read_text().splitlines():
        digits, index, *_, name = line.split()
        address = ":".join(digits[place : place + 4] for place in range(0, 32, 4))
        if name != "lo":
            six.append((address, int(index, 16)))
    return {"four": sorted(four), "six": six}


def _local_routes() -> list[str]:
    lines = Path("/proc/net/fib_trie").read_text().splitlines()
    pairs = itertools.pairwise(lines)
    hosts = [first for first, second in pairs if "host LOCAL" in second]
    return [line for line in hosts if not line.split()[-1].startswith("127.")]
