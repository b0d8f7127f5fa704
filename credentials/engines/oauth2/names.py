"""Looks up authorization servers' names, in threads that nobody else needs.

A name server that stalls holds a thread for half a minute, long after the request was given up. The event
loop's own threads are few, and the broker's store works in them: one server's name must not stop every call.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

THREADS = 4
"""For one name; others are looked up meanwhile."""

_threads: dict[str, ThreadPoolExecutor] = {}


class Names(AbstractResolver):
    """Resolves for one request. Names are those that operators gave to roles: they are few."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Give a name's addresses.

        Raises:
            OSError: It has none.
        """
        if host not in _threads:
            _threads[host] = ThreadPoolExecutor(THREADS, thread_name_prefix="oauth2-names")
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(_threads[host], _look_up, host, port, family)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=protocol, flags=numeric)
            for kind, protocol, address in found
        ]

    async def close(self) -> None:
        """Nothing: the threads stay for the next."""


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[tuple[int, int, str]]:
    """Give each address with its family and protocol."""
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [(kind, protocol, str(address[0])) for kind, _, protocol, _, address in found]
