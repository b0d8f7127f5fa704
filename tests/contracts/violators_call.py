"""Sandboxes that break one promise each: S1 to S9, S12 and S13, over those of the fake driver."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandboxes.conversation import cancel_bytes
from sandboxes.outcome import (
    AnswerSign,
    OutcomeKind,
    RawOutcome,
    SandboxSpec,
    SandboxUnavailable,
    refuse_to_sign,
)
from tests.contracts.fake_driver import FakeDriver
from tests.contracts.violators import DriverCover, SandboxCover, Violate, sandboxes
from toolcrib.handler.v1 import handler_pb2

LONG_SECONDS = 3_600.0


class RunCover(SandboxCover):
    """Changes what goes into `run` and what comes out of it."""

    def before(self, start: handler_pb2.Start) -> handler_pb2.Start:
        return start

    def after(self, outcome: RawOutcome) -> RawOutcome:
        return outcome

    async def run(self, start: handler_pb2.Start, deadline_seconds: float, answer: AnswerSign) -> RawOutcome:
        return self.after(await self.inner.run(self.before(start), deadline_seconds, answer))


class MakesAtTheCall(DriverCover):
    """A cold start that looks warm: the sandbox is made when the call comes."""

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[Any]:
        yield (late := _Late(self.inner, spec, call_id))
        if late.held is not None:
            await late.held.__aexit__(None, None, None)


class _Late:
    def __init__(self, driver: FakeDriver, spec: SandboxSpec, call_id: str) -> None:
        self._driver, self._spec, self._call_id = driver, spec, call_id
        self.container_id, self.uid = "", spec.uid
        self.held: Any = None

    async def warm_up(self, patience_seconds: float) -> None:
        return

    async def run(self, start: handler_pb2.Start, deadline_seconds: float, answer: AnswerSign) -> RawOutcome:
        self.held = self._driver.create(self._spec, self._call_id)
        return await (await self.held.__aenter__()).run(start, deadline_seconds, answer)


class _TellsEarly(SandboxCover):
    """The handler hears of the call while it waits."""

    async def warm_up(self, patience_seconds: float) -> None:
        await self.inner.warm_up(patience_seconds)
        self._call = asyncio.ensure_future(self._wait_for_start())
        self._start: asyncio.Future[handler_pb2.Start] = asyncio.get_running_loop().create_future()

    async def _wait_for_start(self) -> RawOutcome:
        early = handler_pb2.Start(protocol_version=1, request=b"answer = waited")
        return await self.inner.run(early, 10, refuse_to_sign)

    async def run(self, start: handler_pb2.Start, deadline_seconds: float, answer: AnswerSign) -> RawOutcome:
        return await self._call


class _LosesCredentials(RunCover):
    def before(self, start: handler_pb2.Start) -> handler_pb2.Start:
        changed = handler_pb2.Start()
        changed.CopyFrom(start)
        changed.credentials.clear()
        return changed


class _CutsResponses(RunCover):
    def after(self, outcome: RawOutcome) -> RawOutcome:
        return replace(outcome, response=outcome.response[:1000])


class _SwallowsFailures(RunCover):
    def after(self, outcome: RawOutcome) -> RawOutcome:
        return replace(outcome, failure=None)


class _ServesTwice(SandboxCover):
    _served: RawOutcome | None = None

    async def run(self, start: handler_pb2.Start, deadline_seconds: float, answer: AnswerSign) -> RawOutcome:
        if self._served is None:
            self._served = await self.inner.run(start, deadline_seconds, answer)
        return self._served


class _IgnoresDeadline(SandboxCover):
    async def run(self, start: handler_pb2.Start, deadline_seconds: float, answer: AnswerSign) -> RawOutcome:
        return await self.inner.run(start, LONG_SECONDS, answer)


class _RaisesForCrashes(RunCover):
    def after(self, outcome: RawOutcome) -> RawOutcome:
        if outcome.kind is OutcomeKind.CRASHED:
            raise SandboxUnavailable(outcome.detail)
        return outcome


class _RaisesAtDeadline(RunCover):
    def after(self, outcome: RawOutcome) -> RawOutcome:
        if outcome.kind is OutcomeKind.TIMED_OUT:
            raise TimeoutError
        return outcome


class HasNoOutputCap(DriverCover):
    """It reads whatever a handler says."""

    def change(self, spec: SandboxSpec) -> SandboxSpec:
        limits: Any = spec.limits
        return replace(spec, limits=replace(limits, output_kib=10_000))


class HasNoLogCap(DriverCover):
    """It keeps whatever a handler prints."""

    def change(self, spec: SandboxSpec) -> SandboxSpec:
        limits: Any = spec.limits
        return replace(spec, limits=replace(limits, log_kib=10_000))


class _HidesTheCut(RunCover):
    def after(self, outcome: RawOutcome) -> RawOutcome:
        return replace(outcome, log_truncated=False)


class _LeavesControls(RunCover):
    def after(self, outcome: RawOutcome) -> RawOutcome:
        return replace(outcome, log=outcome.log.replace("\\x1b", "\x1b"))


class _LosesCancel(SandboxCover):
    def cancel(self, reason: str) -> None:
        return


class _CancelsEachTime(SandboxCover):
    def cancel(self, reason: str) -> None:
        self.inner.stream.push(cancel_bytes(reason))


class _CancelsByEnding(SandboxCover):
    def cancel(self, reason: str) -> None:
        self.inner.stream.close()


class WatchesIdleAgeOutside(DriverCover):
    """The idle age is kept by the broker, as long as there is one."""

    def change(self, spec: SandboxSpec) -> SandboxSpec:
        return replace(spec, idle_seconds=LONG_SECONDS)

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, call_id: str) -> AsyncIterator[Any]:
        async with super().create(spec, call_id) as sandbox:
            end = asyncio.get_running_loop().call_later(
                spec.idle_seconds, lambda: asyncio.ensure_future(sandbox.end())
            )
            yield sandbox
            end.cancel()


class _WatchesDeadlineOutside(SandboxCover):
    async def run(self, start: handler_pb2.Start, deadline_seconds: float, answer: AnswerSign) -> RawOutcome:
        call = asyncio.ensure_future(self.inner.run(start, LONG_SECONDS, answer))
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(call), deadline_seconds)
        await self.inner.end()
        return replace(await call, kind=OutcomeKind.TIMED_OUT)


class _SaysThatItEnded(SandboxCover):
    gone = None

    async def end(self) -> bool:
        self.gone = self.inner.made
        return True


class _EndsUnconfirmed(SandboxCover):
    async def end(self) -> bool:
        await self.inner.end()
        return False


class _ForgetsWhen(SandboxCover):
    gone = None


class _EndsOnce(SandboxCover):
    _ended = False

    async def end(self) -> bool:
        first, self._ended = not self._ended, True
        return first and await self.inner.end()


class _EndsUnusedOnly(SandboxCover):
    """Whoever runs is left alone."""

    gone = None

    async def end(self) -> bool:
        if self.inner.exchange.is_fresh:
            await self.inner.end()
        self.gone = self.inner.made
        return True


class _IsAlwaysWarm(SandboxCover):
    async def warm_up(self, patience_seconds: float) -> None:
        return


class _TakesAnythingForLoaded(SandboxCover):
    async def warm_up(self, patience_seconds: float) -> None:
        with contextlib.suppress(SandboxUnavailable):
            await self.inner.warm_up(patience_seconds)


class _HasEndlessPatience(SandboxCover):
    async def warm_up(self, patience_seconds: float) -> None:
        await self.inner.warm_up(patience_seconds * 3)


class _UsesNoTime(SandboxCover):
    def cpu_seconds(self) -> float | None:
        return 0.0


class _KnowsNoTime(SandboxCover):
    def cpu_seconds(self) -> float | None:
        return None


class _CountsTheHost(SandboxCover):
    """It shows the time of all that runs here."""

    def cpu_seconds(self) -> float | None:
        total = Path("/proc/stat").read_text().splitlines()[0]
        return sum(map(int, total.split()[1:4])) / 100


CALL_VIOLATORS: dict[str, tuple[Violate, ...]] = {
    "S1": (MakesAtTheCall, sandboxes(_TellsEarly)),
    "S2": tuple(map(sandboxes, (_LosesCredentials, _CutsResponses, _SwallowsFailures))),
    "S3": (sandboxes(_ServesTwice),),
    "S4": tuple(map(sandboxes, (_IgnoresDeadline, _RaisesForCrashes, _RaisesAtDeadline))),
    "S5": (HasNoOutputCap, HasNoLogCap, *map(sandboxes, (_HidesTheCut, _LeavesControls))),
    "S6": tuple(map(sandboxes, (_LosesCancel, _CancelsEachTime, _CancelsByEnding))),
    "S7": (WatchesIdleAgeOutside,),
    "S8": (sandboxes(_WatchesDeadlineOutside),),
    "S9": tuple(
        map(sandboxes, (_SaysThatItEnded, _EndsUnconfirmed, _ForgetsWhen, _EndsOnce, _EndsUnusedOnly))
    ),
    "S12": tuple(map(sandboxes, (_IsAlwaysWarm, _TakesAnythingForLoaded, _HasEndlessPatience))),
    "S13": tuple(map(sandboxes, (_UsesNoTime, _KnowsNoTime, _CountsTheHost))),
}
