"""Sandboxes on the Docker Engine: made for one call, by image id, and gone after it.

    driver = DockerDriver(engine, installation, epoch)
    await driver.start()
    await driver.reap()
    spec = SandboxSpec(image_id, command, limits, socket_dir, driver.allocate_uid())
    async with driver.create(spec, call_id) as sandbox:
        outcome = await sandbox.run(start, deadline_seconds, answer_sign)
    sandbox.gone  # since when nothing of it is left

The labels of a container are its installation and the epoch of the broker that made it, nothing about the
call; its cgroups say the same, for an engine that forgot its containers. The reaper ends what carries this
installation and an earlier epoch, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sandboxes.docker_sandbox import DockerSandbox
from sandboxes.doorway import Doorway
from sandboxes.engine import Engine, EngineInfo, EngineMissing
from sandboxes.engine_api import EngineApi, EngineNotFound
from sandboxes.finish import finish
from sandboxes.hardening import LABEL_EPOCH, LABEL_INSTALLATION, MEASURES, Measure, container_config
from sandboxes.outcome import EngineUnfit, SandboxSpec, SandboxUnavailable
from sandboxes.processes import kill_processes
from sandboxes.reaper import Reaper, cgroup_parent
from sandboxes.runtimes import RUNC, Runtime
from sandboxes.uids import allocate_uid

__all__ = ["DockerDriver", "DockerSandbox"]

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_.-]")
_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
_BASE_OVERHEAD_MIB = 12  # the shim; init counts within the limit
_REMOVE_SECONDS = 20.0
_WATCH_SECONDS = 1.0
_UNDERTAKERS = 2
"""Containers that are removed at once: the dead must not take the processors from the living."""

logger = logging.getLogger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class DockerDriver:
    """Makes sandboxes on one engine by one runtime, for one installation and epoch."""

    def __init__(
        self,
        engine: Engine,
        installation: str,
        epoch: int,
        *,
        runtime: Runtime = RUNC,
        measures: Sequence[Measure] = MEASURES,
        doors: Path | None = None,
    ) -> None:
        """Prepare a driver; nothing is sent yet.

        Args:
            engine: Where the containers run.
            installation: Id of this installation; two on one engine do not touch each other.
            epoch: Grows with each start of the broker.
            runtime: What runs them.
            measures: All; fewer only in tests that show what a measure is good for.
            doors: Where the sockets are through which inits come; taken away with `close`.
        """
        self._engine, self._installation, self._epoch = engine, installation, epoch
        self.runtime, self._measures = runtime, tuple(measures)
        self._api = EngineApi(engine)
        self._live: dict[str, DockerSandbox] = {}
        self._owed: set[str] = set()
        self._removing: set[asyncio.Task[None]] = set()
        self._undertakers = asyncio.Semaphore(_UNDERTAKERS)
        self._cgroup_parent = ""
        self._doors = doors
        self._watching: asyncio.Task[None] | None = None
        self._reaper = Reaper(installation, epoch)

    @property
    def name(self) -> str:
        """What settings and people call it."""
        return self.runtime.name

    @property
    def overhead_mib(self) -> int:
        """Memory that a sandbox takes beside its limit."""
        return self.runtime.overhead_mib + _BASE_OVERHEAD_MIB

    async def start(self) -> EngineInfo:
        """Make sure that the engine is there and fit.

        Raises:
            EngineMissing: It does not answer.
            EngineUnfit: It cannot keep what the hardening promises, or does not have the runtime.
        """
        info = await asyncio.to_thread(self._engine.check)
        if self.runtime.runtime not in info.runtimes:
            raise EngineUnfit(f"the engine has no runtime {self.runtime.runtime}; see docs/runtimes.md")
        try:
            self._cgroup_parent = cgroup_parent(self._installation, self._epoch, info.cgroup_driver)
        except ValueError as error:
            raise EngineUnfit(str(error)) from error
        self._watching = asyncio.create_task(self._watch_engine(), name=f"watch of {self.name}")
        return info

    async def ping(self) -> EngineInfo:
        """Ask the engine what it is, with the problems that it has.

        Raises:
            SandboxUnavailable: It does not answer.
        """
        try:
            return await asyncio.to_thread(self._engine.info)
        except EngineMissing as error:
            raise SandboxUnavailable(str(error)) from error

    async def close(self) -> None:
        """End every sandbox that is left, and let the connections go."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        for sandbox in list(self._live.values()):
            await self._end(sandbox)
        await self._settle()
        for removing in self._removing:  # an engine that stalls: the next epoch removes them
            removing.cancel()
        await asyncio.gather(*self._removing, return_exceptions=True)
        await self._api.close()
        if self._doors is not None:
            shutil.rmtree(self._doors, ignore_errors=True)
            with contextlib.suppress(OSError):  # others have theirs in it
                self._doors.parent.rmdir()
        await asyncio.to_thread(self._reaper.remove_own)

    def allocate_uid(self) -> int:
        """Give a user id that no other sandbox has."""
        return allocate_uid()

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
        sandbox = DockerSandbox(self._api, spec, name, _utc_now)
        self._live[name] = sandbox
        labels = {LABEL_INSTALLATION: self._installation, LABEL_EPOCH: str(self._epoch)}
        try:
            with self._open_door(sandbox) as door:
                config = container_config(
                    spec, labels, self._measures, self.runtime, self._cgroup_parent, door.folder
                )
                await sandbox.make(config, door, self.runtime)
            yield sandbox
        finally:
            await finish(self._end(sandbox))

    @contextmanager
    def _open_door(self, sandbox: DockerSandbox) -> Iterator[Doorway]:
        """Hold the socket through which init comes.

        Raises:
            SandboxUnavailable: It cannot be made.
        """
        try:
            if self._doors is None:
                self._doors = Path(tempfile.mkdtemp(prefix="toolcrib-doors-"))
            self._doors.mkdir(mode=0o700, parents=True, exist_ok=True)
            has_identity = any(measure.name == "identity" for measure in self._measures)
            door = Doorway(self._doors, sandbox.name, sandbox.uid if has_identity else 0)
        except OSError as error:
            raise SandboxUnavailable(f"no socket can be made for a sandbox: {error.strerror}") from error
        try:
            yield door
        finally:
            door.close()

    def knows(self, container_id: str) -> bool:
        """Tell whether an id has the shape of those that the engine gives."""
        return _CONTAINER_ID.fullmatch(container_id) is not None

    async def reap(self) -> list[str]:
        """End what earlier epochs of this installation left, and what is owed.

        By cgroup, and by label: an engine that was killed may have forgotten what still runs. A later epoch's
        is left alone: a broker that was stopped for a while may wake up behind the one that took over.

        Returns:
            The ids of the containers that are gone now.

        Raises:
            SandboxUnavailable: The engine does not answer.
        """
        gone = await asyncio.to_thread(self._reaper.reap)  # first: no engine can hold that up
        for name in list(self._owed):
            self._owed.discard(name)
            if (sandbox := self._live.get(name)) is not None:  # else it was removed meanwhile
                await self._end(sandbox)
        for found in await self._api.list([f"{LABEL_INSTALLATION}={self._installation}"]):
            epoch = found["Labels"].get(LABEL_EPOCH, "")
            if epoch.isdecimal() and int(epoch) >= self._epoch:
                continue
            await self._api.remove(found["Id"])
            gone.append(str(found["Id"]))
        return sorted(set(gone))

    async def leftovers(self) -> list[str]:
        """List the containers of this installation, whatever their epoch and state.

        Raises:
            SandboxUnavailable: The engine does not answer.
        """
        await self._settle()
        found = await self._api.list([f"{LABEL_INSTALLATION}={self._installation}"])
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
            labels = (await self._api.inspect(container_id))["Config"]["Labels"] or {}
            if labels.get(LABEL_INSTALLATION) != self._installation:
                raise SandboxUnavailable(f"container {container_id[:12]} belongs to another installation")
            await self._api.remove(container_id)
        except EngineNotFound:
            logger.debug("container %s is not known to the engine any more", container_id[:12])
        return await asyncio.to_thread(kill_processes, container_id)

    async def _watch_engine(self) -> None:
        """End what waits for a call when the engine is dead: its next one would not know of it.

        What serves a call goes on to its end: we speak with it and end it without the engine.
        """
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                _, writer = await asyncio.open_unix_connection(str(self._engine.socket_path))
                writer.close()
            except OSError:
                for sandbox in [one for one in self._live.values() if one.is_alive]:
                    await sandbox.end()

    async def _end(self, sandbox: DockerSandbox) -> None:
        """End a sandbox; one whose end is not confirmed stays known and is ended again by `reap`.

        The engine's removal of one that is dead is not waited for: nothing of it can act any more.
        """
        if not await sandbox.end():
            logger.warning("sandbox %s: its end is owed", sandbox.name)
            self._owed.add(sandbox.name)
            return
        removing = asyncio.create_task(self._remove(sandbox), name=f"remove {sandbox.name}")
        self._removing.add(removing)
        removing.add_done_callback(self._removing.discard)

    async def _remove(self, sandbox: DockerSandbox) -> None:
        async with self._undertakers:
            removed = await sandbox.remove()
        if removed:
            self._live.pop(sandbox.name, None)
            self._owed.discard(sandbox.name)
        else:
            logger.warning("sandbox %s: it is dead, its removal is owed", sandbox.name)
            self._owed.add(sandbox.name)

    async def _settle(self) -> None:
        """Wait until the engine has removed what is dead."""
        if self._removing:
            await asyncio.wait(list(self._removing), timeout=_REMOVE_SECONDS)
