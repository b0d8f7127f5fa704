"""Sandboxes that are plain processes: the Docker driver's interface without a container, for tests only.

Nothing is contained: this driver is fast, and its processes survive a killed broker as orphaned containers
do. `UnsandboxedDriver` says so in its name. `EitherDriver` gives each call the driver of its image.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from broker.outlast import outlast
from sandboxes.conversation import (
    Dialogue,
    FramesInvalid,
    OutputTooLarge,
    Transcript,
    cancel_bytes,
    frame_bytes,
)
from sandboxes.docker_driver import DockerDriver
from sandboxes.egress.addresses import CONTAINER_DIR
from sandboxes.outcome import AnswerSign, OutcomeKind, RawOutcome, SandboxSpec, SandboxUnavailable
from tests.chaos.process_engine import PREFIX
from toolcrib.handler.v1 import handler_pb2

IMAGE = "sha256:" + "c4a05" + "0" * 59
"""The image id of a version whose handlers run as plain processes."""
STDOUT = 1


class UnsandboxedProcess:
    """A handler's process and the conversation with it."""

    def __init__(self, spec: SandboxSpec, engine: ProcessCalls) -> None:
        self._spec, self._engine = spec, engine
        self.container_id = ""
        self.image_id, self.uid = spec.image_id, spec.uid
        self.made = datetime.now(UTC)
        self.gone: datetime | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._cancelled = False

    async def make(self, labels: dict[str, str]) -> None:
        """Fork the process; it waits for its Start frame."""
        self.container_id, self._streams = await self._engine.create(labels)

    async def run(self, start: handler_pb2.Start, deadline_seconds: float, answer: AnswerSign) -> RawOutcome:
        """Hold the conversation."""
        assert self._streams is not None, "the driver makes the process first"
        reader, writer = self._streams
        for (
            target
        ) in start.targets.values():  # nothing is mounted here: the way out lies where the host has it
            target.socket_dir = self._outside(target.socket_dir)
            target.socket_path = self._outside(target.socket_path)
        writer.write(frame_bytes(handler_pb2.BrokerFrame(start=start)))
        transcript = Transcript(self._spec.limits.output_kib * 1024, 1024)

        async def send(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        try:
            async with asyncio.timeout(deadline_seconds):
                frame = await _converse(reader, Dialogue(transcript, send, answer))
        except TimeoutError:
            return RawOutcome(OutcomeKind.TIMED_OUT, detail="the deadline came before a result")
        except (FramesInvalid, OutputTooLarge, OSError) as error:
            return RawOutcome(OutcomeKind.CRASHED, detail=str(error))
        if frame is None:
            return RawOutcome(OutcomeKind.CRASHED, detail="the process ended without a result")
        if frame.HasField("result"):
            return RawOutcome(OutcomeKind.RESULT, response=frame.result.response)
        return RawOutcome(OutcomeKind.FAILURE, failure=frame.failure, detail=frame.failure.code)

    def cancel(self, reason: str) -> None:
        """Tell the handler that it may stop early; only the first is sent."""
        if self._cancelled:
            return
        self._cancelled = True
        if self._streams is not None and not self._streams[1].transport.is_closing():
            self._streams[1].write(cancel_bytes(reason))

    @property
    def is_alive(self) -> bool:
        """Until it ended."""
        return self.gone is None

    def cpu_seconds(self) -> float | None:
        """Nobody counts it."""
        return None

    async def warm_up(self, patience_seconds: float) -> None:
        """The handler is loaded before its process is forked."""

    def _outside(self, path: str) -> str:
        return path.replace(CONTAINER_DIR, str(self._spec.socket_dir), 1)

    async def end(self) -> bool:
        """Close the stream and kill the process."""
        if self._streams is not None:
            self._streams[1].transport.abort()
        if self.container_id and self.gone is None:
            await self._engine.end(self.container_id)
            self.gone = datetime.now(UTC)
        return True


class ProcessCalls:
    """Requests to the process engine."""

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path

    async def create(
        self, labels: dict[str, str]
    ) -> tuple[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Fork a handler; its id, and the streams to it."""
        made, streams = await self._ask({"op": "create", "labels": labels})
        return str(made["id"]), streams

    async def list(self) -> dict[str, dict[str, str]]:
        """Labels of every process, by id."""
        said, streams = await self._ask({"op": "list"})
        streams[1].close()
        processes: dict[str, dict[str, str]] = said["processes"]
        return processes

    async def end(self, container_id: str) -> None:
        """Kill a process; returns when it is gone."""
        _, streams = await self._ask({"op": "end", "id": container_id})
        streams[1].close()

    async def _ask(
        self, request: dict[str, Any]
    ) -> tuple[dict[str, Any], tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket_path))
            writer.write(json.dumps(request).encode() + b"\n")
            said = json.loads(await reader.readline())
        except (OSError, ValueError) as error:
            raise SandboxUnavailable(f"the process engine does not answer: {error}") from error
        return said, (reader, writer)


class UnsandboxedDriver:
    """Runs handlers as plain processes, for one installation and epoch."""

    name, overhead_mib = "processes", 0

    def __init__(self, socket_path: Path, installation: str, epoch: int) -> None:
        self._calls = ProcessCalls(socket_path)
        self._labels = {"installation": installation, "epoch": str(epoch)}
        self._uids = itertools.count(100_000_000)

    async def start(self) -> None:
        """Make sure that the engine answers."""
        await self._calls.list()

    async def close(self) -> None:
        """Nothing is held."""

    def allocate_uid(self) -> int:
        """A number that no other sandbox of this run has."""
        return next(self._uids)

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[UnsandboxedProcess]:
        """Hold one process."""
        process = UnsandboxedProcess(spec, self._calls)
        try:
            await outlast(process.make(self._labels))
            yield process
        finally:
            await outlast(process.end())

    async def reap(self) -> list[str]:
        """End the processes of this installation's other epochs."""
        old = [
            name for name, labels in (await self._own()).items() if labels["epoch"] != self._labels["epoch"]
        ]
        for name in old:
            await self._calls.end(name)
        return old

    def knows(self, container_id: str) -> bool:
        """Its ids begin so."""
        return container_id.startswith(PREFIX)

    async def leftovers(self) -> list[str]:
        """The processes of this installation."""
        return list(await self._own())

    async def end_container(self, container_id: str) -> bool:
        """End one process by its id."""
        await self._calls.end(container_id)
        return True

    async def _own(self) -> dict[str, dict[str, str]]:
        installation = self._labels["installation"]
        found = await self._calls.list()
        return {name: labels for name, labels in found.items() if labels["installation"] == installation}


class EitherDriver:
    """The Docker driver for real images, plain processes for `IMAGE`."""

    name = "either"

    def __init__(self, processes: UnsandboxedDriver, docker: DockerDriver) -> None:
        self._processes, self._docker = processes, docker
        self.overhead_mib = docker.overhead_mib

    def knows(self, container_id: str) -> bool:
        """What one of the two knows."""
        return self._processes.knows(container_id) or self._docker.knows(container_id)

    async def start(self) -> None:
        """Start both."""
        await self._processes.start()
        await self._docker.start()

    async def close(self) -> None:
        """Close both."""
        await self._processes.close()
        await self._docker.close()

    def allocate_uid(self) -> int:
        """A user id that no other sandbox has."""
        return self._docker.allocate_uid()

    def create(self, spec: SandboxSpec, call_id: str) -> AbstractAsyncContextManager[Any]:
        """Hold one sandbox of the kind that the image asks for."""
        return (self._processes if spec.image_id == IMAGE else self._docker).create(spec, call_id)

    async def reap(self) -> list[str]:
        """End what other epochs left."""
        return [*await self._processes.reap(), *await self._docker.reap()]

    async def leftovers(self) -> list[str]:
        """What is there of this installation."""
        return [*await self._processes.leftovers(), *await self._docker.leftovers()]

    async def end_container(self, container_id: str) -> bool:
        """End one sandbox by the id that the record has."""
        if self._processes.knows(container_id):
            return await self._processes.end_container(container_id)
        return await self._docker.end_container(container_id)


async def _converse(reader: asyncio.StreamReader, dialogue: Dialogue) -> handler_pb2.HandlerFrame | None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            if (frame := await dialogue.take(STDOUT, data)) is not None:
                return frame
    return None
