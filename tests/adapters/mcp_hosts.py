"""MCP hosts for tests: the SDK's own client, at a server in a process of its own, over each transport.

A server costs a second or two to start, so each kind of it is started once and kept. What is kept lives in a
thread with a loop of its own, as each test has another loop.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters, types
from mcp.client.streamable_http import streamable_http_client

from tests.adapters.contract import Ask, Offered
from toolcrib.adapters import ToolSpec, key_of
from toolcrib.mcp.calls import KEY

URL = re.compile(r"http://\S+/mcp")
SERVER = ("-P", "-W", "error", "-m", "toolcrib.mcp")
Connect = Callable[[], AbstractAsyncContextManager[Client]]


class Server:
    """A server process that speaks HTTP."""

    def __init__(self, profile: Path, token_file: Path, *options: str) -> None:
        self.token_file = token_file
        command = [sys.executable, *SERVER, "--profile", str(profile), "--transport", "http"]
        command += ["--listen", "127.0.0.1:0", "--http-token-file", str(token_file), *options]
        # A file takes what is said at any length. A pipe that nobody reads stops the server when it is full.
        self._log = token_file.with_name(f"{token_file.name}.log")
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=log, stdout=subprocess.PIPE, text=True
            )
        self.url = self._wait_for_url()

    def _wait_for_url(self) -> str:
        """Wait for its line, whatever a library says before it."""
        while not (found := URL.search(self.said)):
            if self.process.poll() is not None:
                raise AssertionError(self.said)
            time.sleep(0.02)
        return found[0]

    @property
    def said(self) -> str:
        """What it has said on stderr."""
        return self._log.read_text()

    @property
    def token(self) -> str:
        return self.token_file.read_text().strip()

    @asynccontextmanager
    async def connect(self, mode: str = "auto", **options: Any) -> AsyncIterator[Client]:
        """Connect as a host that has the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
            async with Client(
                streamable_http_client(self.url, http_client=http), mode=mode, **options
            ) as client:
                yield client

    def stop(self) -> int:
        """End it as a service manager does; its exit code."""
        self.process.terminate()
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        return self.process.returncode


def stdio_parameters(profile: Path, *options: str) -> StdioServerParameters:
    """How a host starts the server over stdio."""
    return StdioServerParameters(command=sys.executable, args=[*SERVER, "--profile", str(profile), *options])


class Hosts:
    """Hosts that are kept, in a loop of their own."""

    def __init__(self, profile: Path, folder: Path) -> None:
        self.profile, self._folder = profile, folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hosts", daemon=True)
        self._thread.start()
        self._servers: dict[Sequence[str], Server] = {}
        self._clients: dict[Any, tuple[Client, asyncio.Event, asyncio.Task[None]]] = {}

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the hosts' loop; who waits for it may be cancelled."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def server(self, *options: str) -> Server:
        """The HTTP server with these options."""
        if options not in self._servers:
            token_file = self._folder / f"token-{len(self._servers)}"
            self._servers[options] = Server(self.profile, token_file, *options)
        return self._servers[options]

    async def stdio(self, mode: str, *options: str) -> Client:
        """The host of the stdio server with these options; only within `run`."""
        parameters = stdio_parameters(self.profile, *options)
        return await self._keep((mode, *options), lambda: Client(parameters, mode=mode))

    async def http(self, mode: str, *options: str) -> Client:
        """The host of the HTTP server with these options; only within `run`."""
        server = await asyncio.to_thread(self.server, *options)
        return await self._keep(("http", mode, *options), lambda: server.connect(mode))

    async def _keep(self, name: Any, connect: Connect) -> Client:
        if name not in self._clients:
            ready: asyncio.Future[Client] = self._loop.create_future()
            ending = asyncio.Event()
            task = asyncio.create_task(_hold(connect, ready, ending))
            self._clients[name] = await ready, ending, task
        return self._clients[name][0]

    async def _close(self) -> None:
        for _, ending, task in self._clients.values():
            ending.set()
            await task

    def close(self) -> None:
        """End all of them."""
        try:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(60)
        finally:  # a server that is left holds the streams of the tests, and who reads those waits for it
            for server in self._servers.values():
                server.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


async def _hold(connect: Connect, ready: asyncio.Future[Client], ending: asyncio.Event) -> None:
    """Enter and leave a client in one task, as its cancel scopes want it."""
    try:
        async with connect() as client:
            ready.set_result(client)
            await ending.wait()
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)


class HostDriver:
    """Lets a host ask for what the test says, as its model would."""

    def __init__(self, hosts: Hosts, transport: str, mode: str, options: Sequence[str]) -> None:
        self._hosts, self._transport, self._mode, self._options = hosts, transport, mode, tuple(options)

    async def run(
        self, _specs: Sequence[ToolSpec], turns: Sequence[Sequence[Ask]], conversation: str
    ) -> list[str]:
        async def ask_all() -> list[str]:
            client = await self._connect()
            texts: list[str] = []
            for turn in turns:
                results = await asyncio.gather(*(ask_host(client, ask, conversation) for ask in turn))
                texts += map(read_text, results)
            return texts

        return list(await self._hosts.run(ask_all()))

    async def offer(self, _specs: Sequence[ToolSpec]) -> list[Offered]:
        async def look() -> list[Offered]:
            listed = await (await self._connect()).list_tools()
            return [Offered(tool.name, tool.description or "", tool.input_schema) for tool in listed.tools]

        return list(await self._hosts.run(look()))

    async def _connect(self) -> Client:
        connect = self._hosts.stdio if self._transport == "stdio" else self._hosts.http
        return await connect(self._mode, *self._options)


async def ask_host(client: Client, ask: Ask, conversation: str) -> types.CallToolResult:
    """Call a tool under a key that the host makes of its own ids."""
    meta: Any = {KEY: key_of(conversation, ask.id)}
    return await client.call_tool(ask.tool, ask.arguments, meta=meta)


def read_text(result: types.CallToolResult) -> str:
    """Read what a model gets: text and structure say the same."""
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    said: Mapping[str, Any] = json.loads(content.text)
    assert result.structured_content == said
    assert result.is_error == ("error" in said)
    return content.text
