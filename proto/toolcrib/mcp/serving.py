"""An MCP server from start to end: the client, the list of tools, a transport, and the ways to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any, cast

from mcp.server.stdio import stdio_server

from toolcrib.adapters.tool_calls import Terms
from toolcrib.client import AsyncClient, ProfileInvalid, ToolcribError
from toolcrib.mcp.calls import Calls
from toolcrib.mcp.catalogue import READ_SECONDS, Catalogue
from toolcrib.mcp.http import serve_http
from toolcrib.mcp.options import OptionInvalid, ServeOptions
from toolcrib.mcp.server import ToolServer
from toolcrib.mcp.stdio import take_standard_streams

logger = logging.getLogger(__name__)


def run(options: ServeOptions) -> None:
    """Serve until stdin closes (stdio) or SIGTERM or SIGINT comes. Logs go to stderr.

    Raises:
        OptionInvalid: The profile, the token file or the address cannot be used.
        ToolcribError: The broker refused to list the tools, or cannot be reached.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    asyncio.run(serve(options))


async def serve(options: ServeOptions) -> None:
    """The same, in an event loop."""
    options.check()
    stop = _stop_on_signals()
    try:
        client = AsyncClient.from_profile(options.profile)
    except ProfileInvalid as error:
        raise OptionInvalid(str(error)) from error
    async with client:
        read_seconds = min(READ_SECONDS, options.timeout_seconds)
        catalogue = Catalogue(client, options.tools, read_seconds=read_seconds)
        if await _run_until(stop, catalogue.refresh()):
            await _serve_tools(
                ToolServer(catalogue, Calls(client, _terms(options))), catalogue, options, stop
            )


async def _serve_tools(
    tools: ToolServer, catalogue: Catalogue, options: ServeOptions, stop: asyncio.Event
) -> None:
    if not catalogue.count:
        logger.warning("no tool is offered: none is usable, or --tools names none")
    async with _watching(catalogue, tools, options.refresh_seconds):
        if options.http is None:
            await _serve_stdio(tools, stop)
        else:
            await serve_http(tools.server, options, options.http, stop)


def _terms(options: ServeOptions) -> Terms:
    return Terms(
        workflow=options.workflow or None,
        environment=options.environment or None,
        timeout=options.timeout_seconds,
    )


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _serve_stdio(tools: ToolServer, stop: asyncio.Event) -> None:
    if sys.stdin.isatty():
        print("this speaks MCP on stdin and stdout: let an MCP host start it", file=sys.stderr, flush=True)
    async with take_standard_streams() as (lines, wire):
        await _run_until(stop, _serve_lines(tools, lines, wire))


async def _run_until(stop: asyncio.Event, work: Coroutine[Any, Any, Any]) -> bool:
    """Do something until it ends or the server is told to stop; False when it was stopped."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.wait({working, stopping})
    if working.cancelled():
        return False
    working.result()
    return True


async def _serve_lines(tools: ToolServer, lines: Any, wire: Any) -> None:
    """Serve one host; the SDK reads lines and writes texts, which is all that it asks of a file."""
    try:
        async with stdio_server(stdin=cast(Any, lines), stdout=cast(Any, wire)) as (reading, writing):
            await tools.server.run(reading, writing, tools.server.create_initialization_options())
    except* BrokenPipeError:
        logger.info("the host is gone")


@contextlib.asynccontextmanager
async def _watching(catalogue: Catalogue, tools: ToolServer, seconds: float) -> AsyncIterator[None]:
    """Read the list of tools again from time to time, and tell the hosts when it is another one."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                if await catalogue.refresh():
                    await tools.tell_change()
            except ToolcribError as error:
                logger.warning("the list of tools could not be read again: %s", error.reason)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
