"""The floor of fresh containers: the bare engine, asked for the very same container and nothing else.

Create, start, one call, remove: three requests of a client that checks nothing. What the driver adds
(finding the processes, the ends confirmed by the kernel, the caps) is what is measured against it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiohttp

from bench.bare_process import make_start
from sandboxes.container_init import BIRTH, BIRTH_MAGIC, CALL, CALL_MAGIC, FRAMES
from sandboxes.conversation import frame_bytes
from sandboxes.docker_driver import DockerDriver
from sandboxes.doorway import Doorway
from sandboxes.engine import API_VERSION, Engine
from sandboxes.hardening import LABEL_INSTALLATION, container_config
from sandboxes.outcome import SandboxSpec
from sandboxes.stream import Stream
from toolcrib.handler.v1 import handler_pb2

_CAP = 1 << 20


class BareEngine:
    """Makes containers by the engine's own interface."""

    def __init__(
        self, engine: Engine, make_spec: Callable[[], SandboxSpec], driver: DockerDriver, doors: Path
    ) -> None:
        self._socket_path, self._make_spec, self._doors = engine.socket_path, make_spec, doors
        self._runtime = driver.runtime
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """One container, one call."""
        spec, labels = self._make_spec(), {LABEL_INSTALLATION: "bench-floor"}
        door = Doorway(self._doors, f"door-{spec.uid}", spec.uid)
        config = container_config(spec, labels, runtime=self._runtime, door=door.folder)
        container = (await self._ask("POST", "/containers/create", config))["Id"]
        await self._ask("POST", f"/containers/{container}/start")
        stream = await Stream.over(await door.accept())
        start = frame_bytes(handler_pb2.BrokerFrame(start=make_start()))
        birth = BIRTH.pack(BIRTH_MAGIC, 30_000, _CAP, _CAP, self._runtime.birth_flags)
        await stream.send(birth + CALL.pack(CALL_MAGIC, 20_000) + start)
        await _read_result(stream)
        stream.close()
        await self._ask("DELETE", f"/containers/{container}?force=1&v=1")

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, method: str, path: str, body: object = None) -> dict[str, str]:
        if self._session is None:
            connector = aiohttp.UnixConnector(str(self._socket_path), limit=64)
            self._session = aiohttp.ClientSession(connector=connector)
        url = f"http://engine/v{API_VERSION}{path}"
        async with self._session.request(method, url, json=body) as answer:
            answer.raise_for_status()
            return dict(await answer.json(content_type=None) or {})


async def _read_result(stream: Stream) -> None:
    data = b""
    async with asyncio.timeout(30):
        while (piece := await stream.read()) is not None:
            data += piece[1] if piece[0] == FRAMES else b""
            if b"hello" in data:
                return
    raise AssertionError("the container gave no result")
