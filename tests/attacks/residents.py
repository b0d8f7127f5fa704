"""A second sandbox beside the attacker's: a victim, an accomplice, or in controls a whole network.

A resident runs a program of its own, which calls `wait(b"word")` when it is ready; then it stands still until
it is let go, and its answer tells what happened to it meanwhile. The waiting is a request for a signature
that is not answered: nothing else in the sandbox shows it.

In a control the attacker joins its resident: it gets the resident's namespaces, or its user, which is what
our measures keep from happening.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from sandboxes.docker_driver import DockerDriver
from sandboxes.hardening import Measure
from sandboxes.outcome import RawOutcome
from sandboxes.sandbox import Sandbox
from tests.attacks.arena import Attack, Control, Ground, Judge, Verdict
from tests.parts.engine import answer_of
from toolcrib.handler.v1 import handler_pb2

WAIT = """
def wait(word=b""):
    try:
        context.sign("resident", word)
    except Exception:
        pass
"""

_SECONDS = 60.0


class Resident:
    """A sandbox that waits in the middle of its call.

    Attributes:
        word: What it said when it was ready.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.word = b""
        self._ready, self._free = asyncio.Event(), asyncio.Event()
        self._call: asyncio.Task[RawOutcome] | None = None

    async def settle(self, ground: Ground, program: str) -> None:
        """Start its call, and return when it waits."""
        start = ground.obedient.start(ground.program(WAIT + program))
        call = self._call = asyncio.create_task(self.sandbox.run(start, _SECONDS, self._hold))
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({call, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        assert self._ready.is_set(), f"the resident did not come to its waiting: {await call}"

    async def leave(self) -> RawOutcome:
        """Let it go on, and give how its call ended."""
        self._free.set()
        assert self._call is not None
        return await self._call

    async def _hold(self, sign: handler_pb2.Sign) -> handler_pb2.Signature:
        self.word = sign.input
        self._ready.set()
        await self._free.wait()
        return handler_pb2.Signature(id=sign.id, error="go on")


@asynccontextmanager
async def settled(ground: Ground, program: str, **changes: Any) -> AsyncIterator[Resident]:
    """A resident on this ground; `changes` are fields of its spec."""
    spec = replace(ground.obedient.spec(), **{"uid": ground.driver.allocate_uid(), **changes})
    async with ground.driver.create(spec, "resident") as sandbox:
        resident = Resident(sandbox)
        try:
            await resident.settle(ground, program)
            yield resident
        finally:
            await resident.leave()


class JoiningDriver(DockerDriver):
    """Gives every sandbox the user of one that is there: what `allocate_uid` keeps from happening."""

    shared_uid: int | None = None

    def allocate_uid(self) -> int:
        """Give the shared user id, or one of its own where none is shared."""
        return super().allocate_uid() if self.shared_uid is None else self.shared_uid


@asynccontextmanager
async def joined(
    ground: Ground,
    control: Control,
    resident: Resident,
    settings: Sequence[str],
    same_uid: bool = False,
) -> AsyncIterator[Ground]:
    """The ground of an attacker who joins a resident.

    Args:
        ground: A control's.
        control: What the attacker's sandbox lacks.
        resident: Whom it joins.
        settings: Settings that get "container:" and the resident's id, such as "HostConfig.PidMode".
        same_uid: Whether both have one user.
    """
    place = f"container:{resident.sandbox.container_id}"
    more = [Measure(name, name, lambda spec: place, "nothing") for name in settings]
    obedient = ground.obedient
    measures = [*control.measures(ground.values), *more]
    driver = JoiningDriver(obedient.engine, obedient.installation, 2, measures=measures)
    driver.shared_uid = resident.sandbox.uid if same_uid else None
    try:
        yield replace(ground, driver=driver)
    finally:
        await driver.close()


def beside(
    program: str,
    *settings: str,
    same_uid: bool = False,
    harmed: str = "",
    values: Mapping[str, Any] | None = None,
) -> Judge:
    """Make the judge of an attack on a resident.

    Args:
        program: The resident's.
        settings: What the attacker of a control joins.
        same_uid: Whether the attacker of a control has the resident's user.
        harmed: The resident's answer when the attack worked; empty: the attacker's steps tell.
        values: What both programs get, by name.
    """

    async def judge(attack: Attack, ground: Ground) -> Verdict:
        ground = replace(ground, values={**ground.values, **(values or {})})
        async with settled(ground, program) as resident:
            place = partial(
                joined, control=attack.control, resident=resident, settings=settings, same_uid=same_uid
            )
            alone = replace(
                attack, judge=None, host=lambda _: nullcontext(ground.values), control=Control(ground=place)
            )
            verdict = await alone.try_on(ground)
            said = answer_of(await resident.leave())
        if harmed:
            return replace(verdict, won=said == harmed, told=f"{verdict.told}; its neighbour: {said}")
        return verdict

    return judge


def standing_in(program: str, control: Control) -> Callable[[Ground], AbstractAsyncContextManager[Ground]]:
    """Make the ground of a control whose sandboxes share a network with a resident that plays the world.

    Args:
        program: The resident's; it listens where the attack wants to get to.
        control: What the resident needs for that; the attacker has only the network.
    """

    @asynccontextmanager
    async def ground(strict: Ground) -> AsyncIterator[Ground]:
        async with control.weaken(strict) as place:
            async with settled(place, program) as world:
                attacker = Control(without=("no-network", "hostname"))
                async with joined(strict, attacker, world, ("HostConfig.NetworkMode",)) as inside:
                    yield inside

    return ground
