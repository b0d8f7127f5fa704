"""The broker's side of the way out: open what a call may reach, and take it away again.

Two children do the work: the egress process carries bytes to targets of most kinds, the HTTP proxy
(sandboxes/proxy) speaks with those of kind "http". Rules:
1. A call reaches the targets that it was opened for and that the operator declared; anything else is refused
   before anything is made.
2. What was opened is closed on every path: connections reset, sockets removed, the nest empty, and confirmed
   so.
3. Without its child there is no way out. Calls that were open learn it through `Egress.lost`; new ones get
   `EgressUnavailable` until it runs again, which this module sees to. A nest of an earlier run of the egress
   process stays lost; the end of the HTTP proxy ends the calls that it served, and no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sandboxes.child import Child, ChildGone, ChildRefused
from sandboxes.egress.addresses import CALL_NAME, EgressLimits, TargetAddress
from sandboxes.egress.child import EgressChild
from sandboxes.egress.control import Configure, TargetEntry
from sandboxes.egress.records import lost_record
from sandboxes.egress.remains import PROXY_NOTE
from sandboxes.egress.way_out import (
    Egress,
    EgressError,
    EgressLost,
    EgressNotClosed,
    EgressUnavailable,
    TargetUnknown,
)
from sandboxes.keeper import Keeper, OnGone
from sandboxes.nests import HttpWish, Nest, Nests
from sandboxes.proxy.access import HttpAccess, HttpTarget
from sandboxes.proxy.authority import make_authority
from sandboxes.proxy.process import HttpProxy, ProxyCall, ProxyChild
from tools.http_rules import make_origin

__all__ = [
    "Egress",
    "EgressError",
    "EgressLost",
    "EgressNotClosed",
    "EgressProcess",
    "EgressUnavailable",
    "TargetUnknown",
]

_DEFAULT_LIMITS = EgressLimits()
LONGEST_CALL_SECONDS = 3_600.0
"""How long the HTTP proxy serves a call of which nothing else is said, at most."""


@dataclass(slots=True)
class _Opened:
    """What serves a call.

    Attributes:
        raw: The names that the egress process carries.
        proxy: The child that serves the call's HTTP targets.
        call: What it was told; None without HTTP targets.
    """

    egress: Egress
    child: EgressChild
    raw: list[str]
    proxy: ProxyChild | None = None
    call: ProxyCall | None = None

    def is_served_by(self, child: Child) -> bool:
        """Tell whether the call needs a child; the nest is the egress process's in any case."""
        return child in (self.child, self.proxy)


class EgressProcess:
    """Keeps the egress process and, where there are HTTP targets, the HTTP proxy; opens ways out in them."""

    def __init__(
        self,
        declared: Mapping[str, TargetAddress],
        limits: EgressLimits = _DEFAULT_LIMITS,
        http: Mapping[str, HttpTarget] | None = None,
    ) -> None:
        """Take what the operator declared.

        Args:
            declared: Every target, by its name.
            limits: Of each call.
            http: More about those of kind "http"; of one that is not here, its origin is its address.

        Raises:
            ValueError: A target stands under another name than its own.
        """
        for name, target in declared.items():
            if name != target.name:
                raise ValueError(f"target {target.name} is declared under the name {name}")
        self._declared = dict(declared)
        self._http = {
            target.name: (http or {}).get(target.name) or _plain(target)
            for target in declared.values()
            if target.kind == "http"
        }
        self._limits = limits
        self._keeper = Keeper("the egress process", self._launch, self._note_gone)
        self._proxy = HttpProxy(self._http, on_gone=self._note_gone) if self._http else None
        self._open: dict[str, _Opened] = {}
        self._root = Path()

    @property
    def restarts(self) -> int:
        """How often the egress process had to be started again."""
        return self._keeper.restarts

    @property
    def proxy_restarts(self) -> int:
        """How often the HTTP proxy had to be started again."""
        return self._proxy.restarts if self._proxy else 0

    @property
    def pid(self) -> int | None:
        """Process id of the running egress process; None while there is none."""
        return self._keeper.child.pid if self._keeper.child else None

    @property
    def proxy_pid(self) -> int | None:
        """Process id of the running HTTP proxy; None while there is none."""
        return self._proxy.child.pid if self._proxy and self._proxy.child else None

    async def start(self, run_dir: Path) -> None:
        """Start it. What an earlier run left in its folder is removed.

        Raises:
            EgressUnavailable: It does not start; the message says why.
        """
        self._root = _make_root(run_dir)
        await _start("the egress process", self._keeper.start())
        if self._proxy is not None:
            try:
                await _start("the HTTP proxy", self._proxy.start(run_dir / PROXY_NOTE))
            except BaseException:
                await self.stop()
                raise

    async def stop(self) -> None:
        """End it, with every connection, and remove its folder."""
        if self._proxy is not None:
            await self._proxy.stop()
        await self._keeper.stop()
        if self._root.name:
            shutil.rmtree(self._root, ignore_errors=True)
            (self._root.parent / PROXY_NOTE).unlink(missing_ok=True)

    @contextmanager
    def nest(self, uid: int, http: HttpWish | None = None) -> Iterator[Nest]:
        """Hold the nest of one sandbox, from before it is made until it has ended.

        Args:
            uid: Of the sandbox.
            http: Where its tools speak HTTP: it gets an authority of its own.

        Raises:
            EgressUnavailable: The egress process is not there, or the folder cannot be made.
        """
        child = self._keeper.child
        if child is None:
            raise EgressUnavailable("the egress process is being started again")
        authority = make_authority() if http is not None else None
        with ExitStack() as stack:
            try:
                trusted = self._trusted(http.opaque) if http is not None else ""
                nest = stack.enter_context(child.nests.make(uid, authority, trusted))
            except OSError as error:
                raise EgressUnavailable(f"no folder for sockets can be made: {error}") from error
            yield nest

    @asynccontextmanager
    async def open(
        self,
        call_id: str,
        nest: Nest,
        targets: Iterable[str],
        accesses: Sequence[HttpAccess] = (),
        seconds: float = LONGEST_CALL_SECONDS,
    ) -> AsyncIterator[Egress]:
        """Hold a call's way out to targets, by their declared names, in the nest of its sandbox.

        Args:
            call_id: Names it in the children.
            nest: Of its sandbox; it serves one call.
            targets: Names.
            accesses: What the call may do at its targets of kind "http": one for each of them.
            seconds: After these the HTTP proxy ends the call's connections by itself.

        Raises:
            TargetUnknown: One of them is not declared.
            EgressUnavailable: A child is not there, is another one than the nest was made for, or cannot make
                the sockets; or the nest served a call before; or nothing says what may be done at an HTTP
                target.
            EgressNotClosed: At the end: something is still in the nest.
        """
        if not CALL_NAME.fullmatch(call_id):
            raise ValueError(f"call id {call_id!r} cannot name a folder")
        egress = Egress(call_id, nest, self._choose(targets), {n: t.origins for n, t in self._http.items()})
        opened = self._find_children(egress, accesses, seconds)
        egress.children = (opened.child, opened.proxy) if opened.proxy else (opened.child,)
        self._open[call_id] = opened
        nest.used = True
        try:
            await self._open_sockets(opened, accesses)
            yield egress
        finally:
            await _finish(asyncio.create_task(self._close(opened)))

    def _choose(self, names: Iterable[str]) -> tuple[TargetAddress, ...]:
        wanted = sorted(set(names))
        for name in wanted:
            if name not in self._declared:
                known = ", ".join(sorted(self._declared)) or "none"
                raise TargetUnknown(f"target {name!r} is not declared; the operator declared: {known}")
        return tuple(self._declared[name] for name in wanted)

    def _trusted(self, opaque: Iterable[str]) -> str:
        """Give what a sandbox has to trust of targets whose TLS ends in it, in PEM."""
        wanted = [self._http[name].ca_pem for name in opaque if name in self._http]
        return "\n".join(pem or read_system_authorities() for pem in dict.fromkeys(wanted))

    def _find_children(self, egress: Egress, accesses: Sequence[HttpAccess], seconds: float) -> _Opened:
        child, nest = self._keeper.child, egress.nest
        if child is None:
            raise EgressUnavailable("the egress process is being started again")
        if nest.lost.is_set():
            raise EgressUnavailable("the egress process that the sandbox was made for is gone")
        if egress.call_id in self._open:
            raise EgressUnavailable(f"call {egress.call_id} has its way out already")
        if nest.used:
            raise EgressUnavailable(f"the nest of call {egress.call_id} served another call before")
        spoken = tuple(name for name in egress.target_names if name in self._http)
        if sorted(spoken) != sorted(access.target for access in accesses):
            raise EgressUnavailable(f"call {egress.call_id}: nothing says what it may do at its HTTP targets")
        opened = _Opened(egress, child, [name for name in egress.target_names if name not in spoken])
        if spoken:
            opened.proxy = self._proxy.child if self._proxy else None
            opened.call = ProxyCall(egress.call_id, spoken, seconds, egress.note)
            if opened.proxy is None:
                raise EgressUnavailable("the HTTP proxy is being started again")
        return opened

    async def _open_sockets(self, opened: _Opened, accesses: Sequence[HttpAccess]) -> None:
        egress = opened.egress
        try:
            if opened.raw or opened.call is None:
                await opened.child.open_call(egress.call_id, egress.nest, opened.raw)
            if self._proxy and opened.proxy and opened.call:
                await self._proxy.open_call(opened.proxy, opened.call, egress.nest, accesses)
        except (ChildGone, ChildRefused) as error:
            raise EgressUnavailable(f"call {egress.call_id} gets no way out: {error}") from error

    async def _close(self, opened: _Opened) -> None:
        egress = opened.egress
        try:
            await self._close_proxied(opened)
            await self._close_raw(opened)
        finally:
            self._open.pop(egress.call_id, None)
            egress.conclude()
        if left := egress.nest.contents():
            raise EgressNotClosed(f"{egress.socket_dir}: {', '.join(left)} is still there; remove it")

    async def _close_raw(self, opened: _Opened) -> None:
        egress = opened.egress
        try:
            answer = await opened.child.close_call(egress.call_id)
            egress.note(*(entry.record for entry in answer.connections))
        except ChildGone:
            await opened.child.gone.wait()  # then its sockets are closed, and only the names are left
            self._note_loss(egress, opened.child)
            egress.nest.clear()

    async def _close_proxied(self, opened: _Opened) -> None:
        if self._proxy is None or opened.proxy is None or opened.call is None:
            return
        try:
            opened.egress.uncounted += await self._proxy.close_call(
                opened.proxy, opened.call, opened.egress.nest
            )
        except ChildGone:
            await opened.proxy.gone.wait()
            self._note_loss(opened.egress, opened.proxy)

    def _note_loss(self, egress: Egress, child: Child) -> None:
        egress.lost.set()
        egress.note_loss(lost_record(datetime.now(UTC), f"its process ended: {child.reason}"))

    async def _launch(self, on_gone: OnGone) -> EgressChild:
        child = await EgressChild.launch(Nests(self._root), on_gone)
        limits = self._limits
        raw = [target for target in self._declared.values() if target.name not in self._http]
        try:
            await child.configure(
                Configure(
                    seq=child.next_number(),
                    root=str(self._root),
                    targets=[TargetEntry(t.name, t.kind, t.host, t.port) for t in raw],
                    connections_at_once=limits.connections_at_once,
                    connections_in_all=limits.connections_in_all,
                    connect_timeout_seconds=limits.connect_timeout_seconds,
                    buffer_bytes=limits.buffer_bytes,
                    max_bytes_up=limits.max_bytes_up,
                    max_bytes_down=limits.max_bytes_down,
                    connection_seconds=limits.connection_seconds,
                    idle_seconds=limits.idle_seconds,
                )
            )
        except BaseException:
            await child.kill("it was not configured")
            raise
        return child

    def _note_gone(self, child: Child) -> None:
        for opened in self._open.values():
            if opened.is_served_by(child):
                opened.egress.lost.set()


def read_system_authorities() -> str:
    """Read what this machine trusts, in PEM.

    Raises:
        OSError: It has no such file; on Debian, the package ca-certificates is missing.
    """
    paths = ssl.get_default_verify_paths()
    return Path(paths.cafile or paths.openssl_cafile).read_text()


def _plain(target: TargetAddress) -> HttpTarget:
    origin = make_origin("http", target.host, target.port)
    return HttpTarget(target.name, target.host, target.port, (origin,))


async def _start(what: str, starting: Awaitable[None]) -> None:
    try:
        await starting
    except (ChildGone, ChildRefused) as error:
        raise EgressUnavailable(f"{what} does not start: {error}") from error


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
