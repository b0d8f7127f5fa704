"""Sandboxes on the Docker Engine: made for one call, by image id, and gone after it.

    driver = DockerDriver(engine, installation, epoch)
    await driver.start()
    await driver.reap()
    spec = SandboxSpec(image_id, command, limits, socket_dir, driver.allocate_uid())
    async with driver.create(spec, call_id) as sandbox:
        outcome = await sandbox.run(start, deadline_seconds)
    sandbox.gone  # when the end was confirmed

The labels of a container are its installation and the epoch of the broker that made it, nothing about the
call. The reaper removes what carries this installation and another epoch, nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from sandboxes.conversation import StreamBroken
from sandboxes.docker_sandbox import DockerSandbox
from sandboxes.engine import Engine, EngineInfo, EngineMissing
from sandboxes.engine_calls import EngineCalls, EngineNotFound
from sandboxes.hardening import LABEL_EPOCH, LABEL_INSTALLATION, MEASURES, Measure, container_config
from sandboxes.outcome import SandboxSpec, SandboxUnavailable
from sandboxes.processes import kill_processes

__all__ = ["DockerDriver", "DockerSandbox"]

_FIRST_UID = 100_000_000  # beyond every user and every subordinate range that distributions hand out
_UIDS = 1_900_000_000
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_.-]")

logger = logging.getLogger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class DockerDriver:
    """Makes sandboxes on one engine, for one installation and epoch."""

    def __init__(
        self,
        engine: Engine,
        installation: str,
        epoch: int,
        *,
        measures: Sequence[Measure] = MEASURES,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        """Prepare a driver; nothing is sent yet.

        Args:
            engine: Where the containers run.
            installation: Id of this installation; two on one engine do not touch each other.
            epoch: Grows with each start of the broker.
            measures: All; fewer only in tests that show what a measure is good for.
            clock: UTC.
        """
        self._engine, self._installation, self._epoch = engine, installation, epoch
        self._measures, self._clock = tuple(measures), clock
        self._calls = EngineCalls(engine)
        self._next_uid = secrets.randbelow(_UIDS)
        self._live: dict[str, DockerSandbox] = {}
        self._owed: set[str] = set()

    async def start(self) -> EngineInfo:
        """Make sure that the engine is there and fit.

        Raises:
            EngineMissing: It does not answer.
            EngineUnfit: It cannot keep what the hardening promises.
        """
        return await self._calls.run(self._engine.check)

    async def ping(self) -> EngineInfo:
        """Ask the engine what it is, with the problems that it has.

        Raises:
            SandboxUnavailable: It does not answer.
        """
        try:
            return await self._calls.run(self._engine.info)
        except EngineMissing as error:
            raise SandboxUnavailable(str(error)) from error

    async def close(self) -> None:
        """End every sandbox that is left, and let the threads go."""
        for sandbox in list(self._live.values()):
            await self._end(sandbox)
        self._calls.close()

    def allocate_uid(self) -> int:
        """Give a user id that no other sandbox has."""
        self._next_uid = (self._next_uid + 1) % _UIDS
        return _FIRST_UID + self._next_uid

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[DockerSandbox]:
        """Make a sandbox and take it away again, on every path.

        Args:
            spec: What is wanted.
            call_id: For the container's name only.

        Raises:
            SandboxUnavailable: It could not be made; no handler ran.
        """
        name = f"toolcrib-{_NOT_IN_NAMES.sub('-', call_id)[:64]}-{spec.uid}"
        sandbox = DockerSandbox(self._calls, spec, name, self._clock)
        self._live[name] = sandbox
        labels = {LABEL_INSTALLATION: self._installation, LABEL_EPOCH: str(self._epoch)}
        try:
            config = container_config(spec, labels, self._measures)
            try:
                await sandbox.make(config, self._engine.socket_path)
            except StreamBroken as error:
                raise SandboxUnavailable(str(error)) from error
            yield sandbox
        finally:
            await _finish(self._end(sandbox))

    async def reap(self) -> list[str]:
        """Remove containers of this installation that another epoch made, and what is owed.

        Returns:
            The ids of the containers that are gone now.

        Raises:
            SandboxUnavailable: The engine does not answer.
        """
        for name in list(self._owed):
            self._owed.discard(name)
            await self._end(self._live[name])
        gone = []
        for found in await self._calls.list([f"{LABEL_INSTALLATION}={self._installation}"]):
            if found["Labels"].get(LABEL_EPOCH) == str(self._epoch):
                continue
            await self._calls.remove(found["Id"])
            gone.append(str(found["Id"]))
        return gone

    async def leftovers(self) -> list[str]:
        """List the containers of this installation, whatever their epoch and state.

        Raises:
            SandboxUnavailable: The engine does not answer.
        """
        found = await self._calls.list([f"{LABEL_INSTALLATION}={self._installation}"])
        return [str(container["Id"]) for container in found]

    async def end_container(self, container_id: str) -> bool:
        """End a container that a record of ours names, after a crash of broker or engine.

        An engine that was killed may have forgotten containers whose processes go on, so these are looked
        for by their cgroup and killed as well.

        Returns:
            True when neither the container nor a process of it is left.

        Raises:
            SandboxUnavailable: The engine does not answer, or the container is not this installation's.
        """
        try:
            labels = await self._calls.labels(container_id)
            if labels.get(LABEL_INSTALLATION) != self._installation:
                raise SandboxUnavailable(f"container {container_id[:12]} belongs to another installation")
            await self._calls.remove(container_id)
        except EngineNotFound:
            logger.debug("container %s is not known to the engine any more", container_id[:12])
        return await asyncio.to_thread(kill_processes, container_id)

    async def _end(self, sandbox: DockerSandbox) -> None:
        """End a sandbox; one whose end is not confirmed stays known and is ended again by `reap`."""
        if await sandbox.end():
            self._live.pop(sandbox.name, None)
        else:
            self._owed.add(sandbox.name)


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Do something to its end, even while cancelled; the cancellation goes on afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
