"""MCP over streamable HTTP, behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings

from toolcrib.mcp.guard import Guard
from toolcrib.mcp.options import Address, OptionInvalid, ServeOptions
from toolcrib.mcp.token import read_token

PATH = "/mcp"
MAX_SESSIONS = 256
SESSION_IDLE_SECONDS = 1800.0
SHUTDOWN_SECONDS = 2


class HttpServer(uvicorn.Server):
    """uvicorn, but signals are its caller's: uvicorn would end the process by the signal that it got."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


def listen(address: Address) -> socket.socket:
    """Listen before anything is said about where the server is; who connects early waits.

    Raises:
        OptionInvalid: The address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address.host, address.port))
        bound.listen()
    except OSError as error:
        bound.close()
        raise OptionInvalid(
            f"{address.shown_host}:{address.port}: cannot listen ({error.strerror})"
        ) from error
    return bound


async def serve_http(
    server: Server[Any], options: ServeOptions, address: Address, stop: asyncio.Event
) -> None:
    """Serve until told to stop.

    Raises:
        OptionInvalid: The token file cannot be used, or the address cannot be bound.
    """
    token = read_token(options.token_file)
    with listen(address) as bound:
        port = bound.getsockname()[1]
        hosts = address.names(port) | frozenset(options.allow_hosts)
        app = server.streamable_http_app(
            streamable_http_path=PATH,
            session_idle_timeout=SESSION_IDLE_SECONDS,
            max_sessions=MAX_SESSIONS,
            # The guard has checked both already; the SDK's own check stands behind it.
            transport_security=TransportSecuritySettings(allowed_hosts=sorted(hosts), allowed_origins=[]),
        )
        http = HttpServer(
            uvicorn.Config(
                Guard(app, token, hosts),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="on",
                ws="none",
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )
        where = f"http://{address.shown_host}:{port}{PATH}"
        print(f"MCP at {where}; the bearer token is in {options.token_file}", file=sys.stderr, flush=True)
        await _run(http, bound, stop)


async def _run(http: HttpServer, bound: socket.socket, stop: asyncio.Event) -> None:
    serving = asyncio.create_task(http.serve(sockets=[bound]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        http.should_exit = True
        await serving
