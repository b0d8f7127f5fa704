"""Sandboxes without the Docker Engine, for development: bubblewrap, cgroups of our own, folders for images.

    driver = BubblewrapDriver(folders, installation, epoch)
    await driver.start()
    await driver.reap()
    async with driver.create(spec, call_id) as sandbox:
        ...

It keeps the same promises as the Docker drivers, by fewer layers: docs/runtimes.md says which are missing. A
sandbox is known by its cgroup, `toolcrib-<installation>-<epoch>/bwrap-<digits>`, which outlives a killed
broker.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar, TypeVarTuple

from sandboxes.bubblewrap_check import BubblewrapInfo, check_bubblewrap
from sandboxes.bubblewrap_launch import Launched, Order, launch
from sandboxes.bubblewrap_measures import MEASURES, Measure, settings_for
from sandboxes.bubblewrap_sandbox import BubblewrapSandbox
from sandboxes.bubblewrap_stage import staged_threads, try_stage
from sandboxes.cgroups import Cgroups, Group, find_cgroups
from sandboxes.finish import finish
from sandboxes.folders import Folders
from sandboxes.hardening import ENTRYPOINT, SOCKET_FOLDER
from sandboxes.image_content import BUNDLE_FOLDER
from sandboxes.outcome import EngineUnfit, SandboxError, SandboxSpec, SandboxUnavailable
from sandboxes.uids import allocate_uid

_CONTAINER_ID = re.compile(r"bwrap-[0-9a-f]{32}")
_THREADS = 8

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class BubblewrapDriver:
    """Makes sandboxes with bwrap, for one installation and epoch."""

    name = "bubblewrap"
    overhead_mib = 1  # init and bwrap count inside the limit; the kernel's namespaces do not

    def __init__(
        self,
        folders: Folders,
        installation: str,
        epoch: int,
        *,
        measures: Sequence[Measure] = MEASURES,
        lacking: Collection[str] = (),
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        """Prepare a driver; nothing is started yet.

        Args:
            folders: The images.
            installation: Id of this installation; two on one host do not touch each other.
            epoch: Grows with each start of the broker.
            measures: All; others only in tests that show what a measure is good for.
            lacking: Names of measures to leave out, in such tests only.
            clock: UTC.

        Raises:
            ValueError: A name in `lacking` is no measure's.
        """
        unknown = set(lacking) - {measure.name for measure in measures}
        if unknown:
            raise ValueError(f"no such measure: {', '.join(sorted(unknown))}")
        if lacking:
            logger.warning("bubblewrap runs without %s", ", ".join(sorted(lacking)))
        self._folders, self._installation, self._epoch = folders, installation, epoch
        self._measures = tuple(measure for measure in measures if measure.name not in lacking)
        self._clock = clock
        self._threads = staged_threads(_THREADS)
        self._live: dict[str, BubblewrapSandbox] = {}
        self._owed: set[str] = set()
        self._found: Cgroups | None = None
        self._closed = False

    async def start(self) -> BubblewrapInfo:
        """Make sure that this host can keep what the driver promises.

        Raises:
            SandboxError: It cannot; the message says what to do.
        """
        info = await asyncio.to_thread(check_bubblewrap, self._cgroups())
        try:
            await self._do(try_stage)
        except (BrokenExecutor, OSError) as error:
            raise EngineUnfit(
                f"mounts for sandboxes cannot be made here ({error}): the broker needs CAP_SYS_ADMIN, and a"
                " kernel with overlayfs"
            ) from error
        return info

    async def close(self) -> None:
        """End every sandbox that is left, and let the threads go; safe to call again."""
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(*(self._end(sandbox) for sandbox in list(self._live.values())))
        if self._found is not None:
            await self._do(self._found.remove_empty, self._installation)
        self._threads.shutdown()

    def allocate_uid(self) -> int:
        """Give a user id that no other sandbox has."""
        return allocate_uid()

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[BubblewrapSandbox]:
        """Make a sandbox and take it away again, on every path.

        Args:
            spec: What is wanted.
            call_id: For the log only.

        Raises:
            SandboxUnavailable: It could not be made; no handler ran.
        """
        if self._closed:
            raise SandboxUnavailable("the driver is closed")
        container_id = f"bwrap-{uuid.uuid4().hex}"
        sandbox = BubblewrapSandbox(spec, container_id, self._threads, self._clock)
        self._live[container_id] = sandbox
        logger.debug("sandbox %s is made for %s", container_id, call_id)
        try:
            await sandbox.make(lambda: self._launch(spec, container_id))
            yield sandbox
        finally:
            await finish(self._end(sandbox))

    def knows(self, container_id: str) -> bool:
        """Tell whether an id has the shape of those that this driver gives."""
        return _CONTAINER_ID.fullmatch(container_id) is not None

    async def reap(self) -> list[str]:
        """End what earlier epochs of this installation left, and what could not be ended before.

        Returns:
            The ids of what is gone now.
        """
        owed = list(self._owed)
        gone = [name for name in owed if await self._end(self._live[name])]
        for group in await self._do(self._groups):
            if group.epoch < self._epoch and await self._do(group.end):
                gone.append(group.name)
        await self._do(self._cgroups().remove_empty, self._installation)
        return gone

    async def leftovers(self) -> list[str]:
        """List what is there of this installation, whatever its epoch."""
        return [group.name for group in await self._do(self._groups)]

    async def end_container(self, container_id: str) -> bool:
        """End what a record of ours names, whichever epoch made it.

        Returns:
            True when no process of it is left.

        Raises:
            SandboxUnavailable: It is not this installation's.
        """
        if (sandbox := self._live.get(container_id)) is not None:
            return await self._end(sandbox)
        for group in await self._do(self._cgroups().find):
            if group.name != container_id or not self.knows(container_id):
                continue
            if group.installation != self._installation:
                raise SandboxUnavailable(f"sandbox {container_id[:12]} belongs to another installation")
            return await self._do(group.end)
        return True

    def _cgroups(self) -> Cgroups:
        if self._found is None:
            self._found = find_cgroups()
        return self._found

    def _groups(self) -> list[Group]:
        """Find the groups of this installation that are bubblewraps: others may share its folders."""
        return [group for group in self._cgroups().find(self._installation) if self.knows(group.name)]

    def _launch(self, spec: SandboxSpec, container_id: str) -> tuple[Launched, Group]:
        """Start a sandbox. Blocks.

        Raises:
            SandboxUnavailable: It could not be started; nothing is left.
        """
        settings = settings_for(spec, self._measures)
        try:
            image = self._folders.find(spec.image_id)
            folders = {} if image.bundle is None else {f"/{BUNDLE_FOLDER}": image.bundle}
            if spec.socket_dir is not None:
                folders[SOCKET_FOLDER] = spec.socket_dir
            command = (*ENTRYPOINT, *spec.command)
            shared = frozenset({"/", f"/{BUNDLE_FOLDER}"})
            order = Order(image.root, folders, command, shared=shared)
            group = self._cgroups().make(self._installation, self._epoch, container_id, settings.ceiling())
        except (SandboxError, OSError) as error:
            raise SandboxUnavailable(str(error)) from error
        return launch(order, settings, group), group

    async def _end(self, sandbox: BubblewrapSandbox) -> bool:
        """End a sandbox; one whose end is not confirmed stays known and is ended again by `reap`."""
        if not await sandbox.end():
            logger.warning("sandbox %s: its end is not confirmed", sandbox.container_id)
            self._owed.add(sandbox.container_id)
            return False
        self._owed.discard(sandbox.container_id)
        self._live.pop(sandbox.container_id, None)
        return True

    async def _do(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
