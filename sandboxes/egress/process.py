"""The broker's side of the egress process: start it, open a call's way out, and take it away again.

Rules:
1. A call reaches the targets that it was opened for and that the operator declared; anything else is refused
   before anything is made.
2. What was opened is closed on every path: connections reset, sockets removed, the nest empty, and confirmed
   so.
3. Without the process there is no way out. Calls that were open learn it through `Egress.lost`; new ones get
   `EgressUnavailable` until it runs again, which this module sees to. A nest of an earlier run stays lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from sandboxes.egress.addresses import CALL_NAME, CONTAINER_DIR, EgressLimits, TargetAddress
from sandboxes.egress.child import Child, ChildGone, ChildRefused
from sandboxes.egress.control import Configure, TargetEntry
from sandboxes.egress.records import ConnectionRecord
from sandboxes.nests import Nest, Nests
from toolcrib.handler.v1 import handler_pb2

_DEFAULT_LIMITS = EgressLimits()
_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.05


class EgressError(Exception):
    """Base of what this package raises toward the path of a call."""


class EgressUnavailable(EgressError):
    """There is no way out now, and nothing was opened. Retry."""


class TargetUnknown(EgressError):
    """A call asked for a target that the operator did not declare. Nothing was opened."""


class EgressNotClosed(EgressError):
    """The sockets of a call could not be removed; its connections are ended."""


class Egress:
    """The way out of one call.

    Attributes:
        nest: Where its sockets are: what is mounted, read-only, at /run/toolcrib in the sandbox.
        lost: Set when the egress process died under the call: nothing is reachable any more.
        connections: What the call connected to; known once it is closed, and never when `lost`.
    """

    def __init__(self, call_id: str, nest: Nest, targets: tuple[TargetAddress, ...]) -> None:
        self.call_id = call_id
        self.nest = nest
        self.lost = asyncio.Event()
        self.connections: tuple[ConnectionRecord, ...] = ()
        self._targets = targets

    @property
    def socket_dir(self) -> Path:
        """The host's folder of its sockets."""
        return self.nest.folder

    @property
    def target_names(self) -> list[str]:
        """The targets that the call may reach."""
        return [target.name for target in self._targets]

    def handler_targets(self) -> dict[str, handler_pb2.Target]:
        """Describe the targets as the handler sees them in its container."""
        return {
            target.name: handler_pb2.Target(
                socket_dir=f"{CONTAINER_DIR}/{target.name}",
                socket_path=target.socket_path,
                settings=dict(target.settings),
            )
            for target in self._targets
        }


class EgressProcess:
    """Keeps one egress process running and opens ways out in it.

    Attributes:
        restarts: How often it had to be started again.
    """

    def __init__(self, declared: Mapping[str, TargetAddress], limits: EgressLimits = _DEFAULT_LIMITS) -> None:
        """Take what the operator declared.

        Raises:
            ValueError: A target stands under another name than its own.
        """
        for name, target in declared.items():
            if name != target.name:
                raise ValueError(f"target {target.name} is declared under the name {name}")
        self.restarts = 0
        self._declared = dict(declared)
        self._limits = limits
        self._child: Child | None = None
        self._open: dict[str, tuple[Child, Egress]] = {}
        self._root = Path()
        self._supervising: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running egress process; None while there is none."""
        return self._child.pid if self._child else None

    async def start(self, run_dir: Path) -> None:
        """Start it. What an earlier run left in its folder is removed.

        Raises:
            EgressUnavailable: It does not start; the message says why.
        """
        self._root = _make_root(run_dir)
        try:
            child = await self._launch()
        except (ChildGone, ChildRefused) as error:
            raise EgressUnavailable(f"the egress process does not start: {error}") from error
        self._supervising = asyncio.create_task(self._supervise(child))

    async def stop(self) -> None:
        """End it, with every connection, and remove its folder."""
        if self._supervising is not None:
            self._supervising.cancel()
            await asyncio.wait([self._supervising])
            self._supervising = None
        child, self._child = self._child, None
        if child is not None:
            await child.end()
        if self._root.name:
            shutil.rmtree(self._root, ignore_errors=True)

    @contextmanager
    def nest(self, uid: int) -> Iterator[Nest]:
        """Hold the nest of one sandbox, from before it is made until it has ended.

        Raises:
            EgressUnavailable: The egress process is not there, or the folder cannot be made.
        """
        child = self._child
        if child is None:
            raise EgressUnavailable("the egress process is being started again")
        with ExitStack() as stack:
            try:
                nest = stack.enter_context(child.nests.make(uid))
            except OSError as error:
                raise EgressUnavailable(f"no folder for sockets can be made: {error}") from error
            yield nest

    @asynccontextmanager
    async def open(self, call_id: str, nest: Nest, targets: Iterable[str]) -> AsyncIterator[Egress]:
        """Hold a call's way out to targets, by their declared names, in the nest of its sandbox.

        Raises:
            TargetUnknown: One of them is not declared.
            EgressUnavailable: The egress process is not there, is another one than the nest was made for, or
                cannot make the sockets; or the nest served a call before.
            EgressNotClosed: At the end: something is still in the nest.
        """
        if not CALL_NAME.fullmatch(call_id):
            raise ValueError(f"call id {call_id!r} cannot name a folder")
        egress = Egress(call_id, nest, self._choose(targets))
        child = self._find_child(call_id, nest)
        self._open[call_id] = (child, egress)
        nest.used = True
        try:
            await self._open_sockets(child, egress)
            yield egress
        finally:
            await _finish(asyncio.create_task(self._close(child, egress)))

    def _choose(self, names: Iterable[str]) -> tuple[TargetAddress, ...]:
        wanted = sorted(set(names))
        for name in wanted:
            if name not in self._declared:
                known = ", ".join(sorted(self._declared)) or "none"
                raise TargetUnknown(f"target {name!r} is not declared; the operator declared: {known}")
        return tuple(self._declared[name] for name in wanted)

    def _find_child(self, call_id: str, nest: Nest) -> Child:
        child = self._child
        if child is None:
            raise EgressUnavailable("the egress process is being started again")
        if nest.lost.is_set():
            raise EgressUnavailable("the egress process that the sandbox was made for is gone")
        if call_id in self._open:
            raise EgressUnavailable(f"call {call_id} has its way out already")
        if nest.used:
            raise EgressUnavailable(f"the nest of call {call_id} served another call before")
        return child

    async def _open_sockets(self, child: Child, egress: Egress) -> None:
        try:
            await child.open_call(egress.call_id, egress.nest, egress.target_names)
        except (ChildGone, ChildRefused) as error:
            raise EgressUnavailable(f"call {egress.call_id} gets no way out: {error}") from error

    async def _close(self, child: Child, egress: Egress) -> None:
        try:
            answer = await child.close_call(egress.call_id)
            egress.connections = tuple(entry.record for entry in answer.connections)
        except ChildGone:
            await child.gone.wait()  # then its sockets are closed, and only the names are left
            egress.lost.set()
            egress.nest.clear()
        finally:
            self._open.pop(egress.call_id, None)
        if left := egress.nest.contents():
            raise EgressNotClosed(f"{egress.socket_dir}: {', '.join(left)} is still there; remove it")

    async def _launch(self) -> Child:
        child = await Child.launch(Nests(self._root), self._note_gone)
        limits = self._limits
        rules = Configure(
            seq=child.next_number(),
            root=str(self._root),
            targets=[TargetEntry(t.name, t.kind, t.host, t.port) for t in self._declared.values()],
            connections_at_once=limits.connections_at_once,
            connections_in_all=limits.connections_in_all,
            connect_timeout_seconds=limits.connect_timeout_seconds,
            buffer_bytes=limits.buffer_bytes,
        )
        try:
            await child.configure(rules)
        except BaseException:
            await child.kill("it was not configured")
            raise
        self._child = child
        return child

    def _note_gone(self, child: Child) -> None:
        if child is self._child:
            self._child = None
        for owner, egress in self._open.values():
            if owner is child:
                egress.lost.set()

    async def _supervise(self, child: Child) -> None:
        """Start it again whenever it is gone, more slowly each time that it does not stay."""
        pause = _FIRST_PAUSE_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await child.gone.wait()
            if loop.time() - began > _LONGEST_PAUSE_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            _LOG.error("the egress process (pid %d) is gone: %s; starting it again", child.pid, child.reason)
            child, pause = await self._relaunch(pause)
            self.restarts += 1
            _LOG.warning("the egress process runs again (pid %d, restart %d)", child.pid, self.restarts)

    async def _relaunch(self, pause: float) -> tuple[Child, float]:
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            try:
                return await self._launch(), pause
            except (ChildGone, ChildRefused, OSError) as error:
                _LOG.error("the egress process does not start: %s; trying again in %.1f s", error, pause)


def _make_root(run_dir: Path) -> Path:
    """Make the folder of all nests: only root may pass it on the host."""
    root = run_dir.absolute() / "egress"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.chmod(0o700)
    return root


async def _finish(task: asyncio.Task[None]) -> None:
    """Wait for a task to the end, also when the waiting one is cancelled meanwhile; then pass that on."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:
            break
    if cancelled is not None:
        with contextlib.suppress(Exception):
            task.result()
        raise cancelled
    task.result()
