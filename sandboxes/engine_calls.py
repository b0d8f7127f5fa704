"""The few calls to the engine that the path of a call needs, with their limits in time and threads.

The engine's client is synchronous, so the calls run in two bounded pools: one to make sandboxes, one to end
them, so that an engine that stalls while making cannot keep the ends waiting.

    EngineNotFound       the engine knows no such container
    EngineStalled        the engine did not answer in time: what was asked may still happen
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import docker.errors
import requests

from sandboxes.engine import Engine
from sandboxes.outcome import SandboxUnavailable

Value = TypeVar("Value")

_THREADS = 12
_QUEUE_SECONDS = 5.0  # the most that a call may wait for a thread
_REMOVE_TRIES = 4


class EngineNotFound(SandboxUnavailable):
    """The engine knows no such container or image."""


class EngineStalled(SandboxUnavailable):
    """The engine did not answer in time, or is gone; what was asked may still happen."""


class EngineCalls:
    """Asynchronous calls to one engine."""

    def __init__(self, engine: Engine) -> None:
        self._client = engine.client
        self._patience_seconds = engine.timeout_seconds + _QUEUE_SECONDS
        self._closed = False
        self._making = ThreadPoolExecutor(_THREADS, "sandbox-make")
        self._ending = ThreadPoolExecutor(_THREADS, "sandbox-end")

    async def create(self, config: dict[str, Any], name: str) -> str:
        """Create a container; gives its id."""
        create = partial(self._client.create_container_from_config, config, name)
        return str((await self._settle(create))["Id"])

    async def start(self, container: str) -> None:
        """Start a container."""
        await self._settle(partial(self._client.start, container))

    async def state(self, container: str) -> dict[str, Any]:
        """Give the engine's `State` of a container.

        Raises:
            EngineNotFound: There is no such container.
        """
        found = await self._run(self._ending, partial(self._client.inspect_container, container))
        return dict(found["State"])

    async def labels(self, container: str) -> dict[str, str]:
        """Give the labels of a container."""
        found = await self._run(self._ending, partial(self._client.inspect_container, container))
        return dict(found["Config"]["Labels"] or {})

    async def remove(self, container: str) -> None:
        """Kill and remove a container, and make sure that the engine has forgotten it.

        Raises:
            EngineStalled: The engine does not answer.
            SandboxUnavailable: It is still there.
        """
        remove = partial(self._client.remove_container, container, v=True, force=True)
        for attempt in range(_REMOVE_TRIES):
            try:
                await self._run(self._ending, remove)
                await self.state(container)
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
        listing = partial(self._client.containers, all=True, filters={"label": labels})
        return list(await self._run(self._ending, listing))

    async def run(self, function: Callable[[], Value]) -> Value:
        """Run something else that asks the engine."""
        return await self._run(self._ending, function)

    def close(self) -> None:
        """Let the threads go."""
        self._closed = True
        self._making.shutdown(wait=False, cancel_futures=True)
        self._ending.shutdown(wait=False, cancel_futures=True)

    async def _settle(self, function: Callable[[], Value]) -> Value:
        """Run a call that makes something; when cancelled, wait for it, so that its effect is known."""
        work = asyncio.ensure_future(self._run(self._making, function))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()
            raise

    async def _run(self, pool: ThreadPoolExecutor, function: Callable[[], Value]) -> Value:
        """Run a call in a pool.

        Raises:
            EngineNotFound: The engine answered 404.
            EngineStalled: It does not answer.
            SandboxUnavailable: It refused.
        """
        if self._closed:
            raise SandboxUnavailable("the driver is closed")
        work = asyncio.get_running_loop().run_in_executor(pool, function)
        try:
            return await asyncio.wait_for(work, self._patience_seconds)
        except docker.errors.NotFound as error:
            raise EngineNotFound(f"the engine does not know it: {error.explanation}") from error
        except docker.errors.APIError as error:
            raise SandboxUnavailable(f"the engine refused: {error.explanation or error}") from error
        except (requests.RequestException, docker.errors.DockerException, OSError) as error:
            raise EngineStalled(f"the engine does not answer: {type(error).__name__}") from error
