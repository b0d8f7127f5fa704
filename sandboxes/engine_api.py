"""What the path of a call asks of the Docker Engine: few requests, asynchronous, over its unix socket.

The engine's own client is synchronous and costs a thread and several milliseconds of processor a request; it
stays for what an operator or a set-up does (`engine`, `images`). ADR 0013.

    EngineNotFound       the engine knows no such container
    EngineStalled        the engine did not answer in time, or is gone: what was asked may still happen
    EngineAway           nobody listens on its socket: what was asked does not happen
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import aiohttp

from sandboxes.engine import API_VERSION, Engine
from sandboxes.outcome import SandboxUnavailable

_CONNECTIONS = 32
_REMOVE_TRIES = 4
_NOT_FOUND = 404
_FIRST_ERROR = 300


class EngineNotFound(SandboxUnavailable):
    """The engine knows no such container or image."""


class EngineStalled(SandboxUnavailable):
    """The engine did not answer in time, or is gone; what was asked may still happen."""


class EngineAway(EngineStalled):
    """Nobody listens on the engine's socket: what was asked does not happen."""


class EngineApi:
    """Requests to one engine. Opened at the first request; `close` it."""

    def __init__(self, engine: Engine) -> None:
        self._socket_path = str(engine.socket_path)
        self._timeout = aiohttp.ClientTimeout(total=engine.timeout_seconds)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def create(self, config: dict[str, Any], name: str) -> str:
        """Create a container; gives its id."""
        made = await self._settle("POST", f"/containers/create?name={name}", config)
        return str(made["Id"])

    async def start(self, container: str) -> None:
        """Start a container."""
        await self._settle("POST", f"/containers/{container}/start")

    async def inspect(self, container: str) -> dict[str, Any]:
        """Give what the engine knows of a container.

        Raises:
            EngineNotFound: There is no such container.
        """
        return dict(await self._ask("GET", f"/containers/{container}/json"))

    async def wait(self, container: str) -> dict[str, Any]:
        """Wait until a container does not run, and give what the engine knows of it.

        Raises:
            EngineNotFound: There is no such container any more.
        """
        await self._ask("POST", f"/containers/{container}/wait")
        return await self.inspect(container)

    async def remove(self, container: str) -> None:
        """Kill and remove a container, and make sure that the engine has forgotten it.

        Raises:
            EngineStalled: The engine does not answer.
            SandboxUnavailable: It is still there.
        """
        for attempt in range(_REMOVE_TRIES):
            try:
                await self._ask("DELETE", f"/containers/{container}?force=1&v=1")
                await self.inspect(container)
            except EngineNotFound:
                return
            except EngineStalled:  # the next try would only keep the call waiting
                raise
            except SandboxUnavailable:
                if attempt == _REMOVE_TRIES - 1:
                    raise
            await asyncio.sleep(0.05 * 4**attempt)
        raise SandboxUnavailable("the engine does not remove the container")

    async def list(self, labels: list[str]) -> list[dict[str, Any]]:
        """List the containers, running or not, that carry all the labels ("key=value")."""
        filters = json.dumps({"label": labels})
        return list(await self._ask("GET", "/containers/json", query={"all": "1", "filters": filters}))

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _settle(self, method: str, path: str, body: object = None) -> Any:
        """Make a request that makes something; when cancelled, wait for it, so that its effect is known."""
        work = asyncio.ensure_future(self._ask(method, path, body))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            while not work.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([work])
            # What was cancelled has to know whether the effect is unknown.
            if not work.cancelled() and isinstance(fault := work.exception(), EngineStalled):
                raise asyncio.CancelledError from fault
            raise

    async def _ask(
        self, method: str, path: str, body: object = None, query: dict[str, str] | None = None
    ) -> Any:
        """Make a request.

        Raises:
            EngineNotFound: The engine answered 404.
            EngineStalled: It does not answer.
            SandboxUnavailable: It refused.
        """
        if self._closed:
            raise SandboxUnavailable("the driver is closed")
        url = f"http://engine/v{API_VERSION}{path}"
        try:
            async with self._open().request(method, url, json=body, params=query) as answer:
                text = await answer.text()
        except aiohttp.ClientConnectorError as error:
            raise EngineAway(f"the engine does not answer: {error.strerror}") from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise EngineStalled(f"the engine does not answer: {type(error).__name__}") from error
        if answer.status < _FIRST_ERROR:
            return json.loads(text) if text else {}
        said = _message(text)
        if answer.status == _NOT_FOUND:
            raise EngineNotFound(f"the engine does not know it: {said}")
        raise SandboxUnavailable(f"the engine refused: {said}")

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.UnixConnector(self._socket_path, limit=_CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        return self._session


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:300]
