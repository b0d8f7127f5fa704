"""Drivers that break one promise each: thin covers over a driver that keeps it. D1 to D7 are here.

`VIOLATORS` names for each clause those that its checker has to find.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from sandboxes.outcome import SandboxSpec, SandboxUnavailable
from tests.contracts.fake_driver import IMAGE, FakeDriver, FakeSandbox

Violate = Callable[[FakeDriver], Any]


class SandboxCover:
    """A sandbox that does what the covered one does."""

    def __init__(self, inner: FakeSandbox) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class DriverCover:
    """A driver that does what the covered one does."""

    cover: Callable[[FakeSandbox], Any] = SandboxCover

    def __init__(self, inner: FakeDriver) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def change(self, spec: SandboxSpec) -> SandboxSpec:
        """What is really made when `spec` is asked for."""
        return spec

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[Any]:
        async with self.inner.create(self.change(spec), call_id) as sandbox:
            yield self.cover(sandbox)

    async def leak(self, spec: SandboxSpec, call_id: str) -> FakeSandbox:
        """Make one that nobody ends."""
        held = self.inner.create(replace(spec, image_id=IMAGE), call_id)
        sandbox = await held.__aenter__()
        self.inner.engine.leaked.append(held)
        return sandbox


def sandboxes(cover: Callable[[FakeSandbox], Any]) -> Violate:
    """Make a driver whose sandboxes break a promise."""
    return type(cover.__name__, (DriverCover,), {"cover": staticmethod(cover)})


class LeaksWhenItRefuses(DriverCover):
    """`create` raises, and leaves what it had made."""

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[Any]:
        if spec.image_id != IMAGE:
            await self.leak(spec, call_id)
        async with self.inner.create(spec, call_id) as sandbox:
            yield sandbox


class GivesDeadSandbox(DriverCover):
    """`create` gives a sandbox that has ended."""

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[Any]:
        async with self.inner.create(spec, call_id) as sandbox:
            await sandbox.end()
            yield sandbox


class TakesAnyImage(DriverCover):
    """`create` takes another image where it does not have the one that was asked for."""

    def change(self, spec: SandboxSpec) -> SandboxSpec:
        return replace(spec, image_id=IMAGE)


class LeavesRunning(DriverCover):
    """Leaving `create` ends nothing."""

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[Any]:
        yield await self.leak(spec, call_id)


class LeavesRunningWhenCancelled(DriverCover):
    """Only an end that nobody hurries is an end."""

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[Any]:
        sandbox = await self.leak(spec, call_id)
        try:
            yield sandbox
        except asyncio.CancelledError:
            raise
        except BaseException:
            await self.inner.finish(sandbox)
            raise
        await self.inner.finish(sandbox)


class EndsLater(DriverCover):
    """Leaving `create` only begins the end."""

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[Any]:
        sandbox = await self.leak(spec, call_id)
        try:
            yield sandbox
        finally:
            asyncio.get_running_loop().call_later(0.3, lambda: asyncio.ensure_future(sandbox.end()))


class GivesUidTwice(DriverCover):
    """`allocate_uid` gives the same number to two."""

    def allocate_uid(self) -> int:
        return self.inner.allocate_uid() // 2 * 2


class StartsUidsAnew(DriverCover):
    """Each epoch counts from the beginning."""

    def __init__(self, inner: FakeDriver) -> None:
        super().__init__(inner)
        self._uid = 100_000_000

    def allocate_uid(self) -> int:
        self._uid += 1
        return self._uid


class _SameId(SandboxCover):
    container_id = "fake-0"


class ShowsNeighbours(DriverCover):
    """A sandbox sees the processes of the others."""

    def __init__(self, inner: FakeDriver) -> None:
        super().__init__(FakeDriver(inner.engine, inner.installation, inner.epoch, sees_neighbours=True))


class IgnoresUid(DriverCover):
    """What is in it runs as somebody else."""

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[Any]:
        other = replace(spec, uid=self.inner.allocate_uid())
        async with self.inner.create(other, call_id) as sandbox:
            sandbox.uid = spec.uid
            yield sandbox


class ReapsNothing(DriverCover):
    """`reap` does nothing."""

    async def reap(self) -> Sequence[str]:
        return []


class ReapsOwnEpoch(DriverCover):
    """`reap` ends what this epoch made as well."""

    async def reap(self) -> Sequence[str]:
        names = await self.inner.leftovers()
        for name in names:
            await self.inner.end_container(name)
        return names


class ReapsOtherInstallations(DriverCover):
    """`reap` ends what another installation made."""

    async def reap(self) -> Sequence[str]:
        gone = []
        for installation, epoch, sandbox in list(self.inner.engine.sandboxes.values()):
            if (installation, epoch) != (self.inner.installation, self.inner.epoch):
                await self.inner.finish(sandbox)
                gone.append(sandbox.container_id)
        return gone


class SaysThatItReaped(DriverCover):
    """`reap` names what it did not end."""

    async def reap(self) -> Sequence[str]:
        engine = self.inner.engine.sandboxes
        return [name for name, held in engine.items() if held[1] != self.inner.epoch][:1]


class ListsNothing(DriverCover):
    """`leftovers` sees nothing."""

    async def leftovers(self) -> Sequence[str]:
        return []


class ListsOwnEpoch(DriverCover):
    """`leftovers` sees what this epoch made only."""

    async def leftovers(self) -> Sequence[str]:
        engine = self.inner.engine.sandboxes
        wanted = (self.inner.installation, self.inner.epoch)
        return [name for name, held in engine.items() if held[:2] == wanted]


class ListsEverything(DriverCover):
    """`leftovers` sees what other installations have."""

    async def leftovers(self) -> Sequence[str]:
        return list(self.inner.engine.sandboxes)


class SaysThatItEnded(DriverCover):
    """`end_container` says so without doing it."""

    async def end_container(self, container_id: str) -> bool:
        if container_id in await self.inner.leftovers():
            return True
        return await self.inner.end_container(container_id)


class EndsOwnEpoch(DriverCover):
    """`end_container` ends what this epoch made only, and says that of the rest there is nothing."""

    async def end_container(self, container_id: str) -> bool:
        held = self.inner.engine.sandboxes.get(container_id)
        if held is not None and held[0] == self.inner.installation and held[1] != self.inner.epoch:
            return True
        return await self.inner.end_container(container_id)


class EndsOtherInstallations(DriverCover):
    """`end_container` ends whatever has the id."""

    async def end_container(self, container_id: str) -> bool:
        held = self.inner.engine.sandboxes.get(container_id)
        if held is not None:
            await self.inner.finish(held[2])
        return True


class KeepsQuietAboutOthers(DriverCover):
    """`end_container` does not end another installation's, and says that it did."""

    async def end_container(self, container_id: str) -> bool:
        with contextlib.suppress(SandboxUnavailable):
            return await self.inner.end_container(container_id)
        return True


class ClosesNothing(DriverCover):
    """`close` leaves all that runs."""

    async def close(self) -> None:
        return


class ClosesUnused(DriverCover):
    """`close` leaves what serves a call."""

    async def close(self) -> None:
        for _, _, sandbox in list(self.inner.engine.sandboxes.values()):
            if sandbox.exchange.is_fresh:
                await self.inner.finish(sandbox)


VIOLATORS: dict[str, tuple[Violate, ...]] = {
    "D1": (LeaksWhenItRefuses, GivesDeadSandbox, TakesAnyImage),
    "D2": (LeavesRunning, LeavesRunningWhenCancelled, EndsLater),
    "D3": (GivesUidTwice, StartsUidsAnew, sandboxes(_SameId), ShowsNeighbours, IgnoresUid),
    "D4": (ReapsNothing, ReapsOwnEpoch, ReapsOtherInstallations, SaysThatItReaped),
    "D5": (ListsNothing, ListsOwnEpoch, ListsEverything),
    "D6": (SaysThatItEnded, EndsOwnEpoch, EndsOtherInstallations, KeepsQuietAboutOthers),
    "D7": (ClosesNothing, ClosesUnused),
}
