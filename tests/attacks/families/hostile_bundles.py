"""Bundles whose code is hostile from its first line: while nobody calls, and on the frames themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from sandboxes.outcome import OutcomeKind, RawOutcome, SandboxUnavailable
from sandboxes.pool_review import MOST_CPU
from tests.attacks.arena import Attack, Control, Ground, Judge, Verdict
from tests.attacks.bare import Said, listen
from tests.attacks.survivors import STAYING, outlives
from toolcrib.handler.v1 import handler_pb2

FAMILY = "hostile_bundles"
AT_ITS_WORD = Control(says="the frames' caps and order: a bare process is taken at its word")
ORDER = {"": "a sandbox that says anything but Loaded before its call is thrown away"}
FIRST_ANSWER = {"": "the first answer counts; nothing after it is read"}

# The SDK of a bundle that brought its own: frames as it likes.
SDK = """
import atexit, os, struct, threading, time
from toolcrib.handler.frames import Frames
from toolcrib.handler.v1 import handler_pb2 as h
frames = Frames()

def say(**kind):
    frames.write(h.HandlerFrame(**kind))

def load():
    say(loaded=h.Loaded())

def result(text):
    say(result=h.Result(response=h.Progress(message=text).SerializeToString()))
"""
LINGER = "time.sleep(30)\n"


async def run_bundle(ground: Ground, source: str, seconds: float = 3.0, *, warm: bool = True) -> RawOutcome:
    """Make one call of a bundle.

    Raises:
        SandboxUnavailable: It was not loaded as it should.
    """
    async with ground.create(command=("python3", "-c", SDK + source)) as sandbox:
        if warm:
            await sandbox.warm_up(8.0)
            await asyncio.sleep(0.3)
        return await sandbox.run(ground.obedient.start(""), seconds, _sign)


async def _sign(sign: handler_pb2.Sign) -> handler_pb2.Signature:
    return handler_pb2.Signature(id=sign.id, signature=b"x" * 64, key_version=1)


async def at_its_word(attack: Attack, ground: Ground) -> Said:
    """What comes through where nothing is checked."""
    return await listen(SDK + attack.program, ground.obedient.start(""))


def refused_before_its_call(won: Callable[[Said], bool]) -> Judge:
    """Judge a bundle that must never get a call."""

    async def judge(attack: Attack, ground: Ground) -> Verdict:
        if ground.is_control:
            said = await at_its_word(attack, ground)
            return Verdict(won(said), f"{len(said.before)} frames before its call")
        try:
            outcome = await run_bundle(ground, attack.program)
        except SandboxUnavailable as error:
            return Verdict(False, str(error), True)
        stopped = outcome.kind is OutcomeKind.CRASHED and "before its call" in outcome.detail
        return Verdict(outcome.kind is OutcomeKind.RESULT, f"{outcome.kind} {outcome.detail}", stopped)

    return judge


def ends_as(
    won: Callable[[Said], bool], stopped: Callable[[RawOutcome, float], bool], *, warm: bool = True
) -> Judge:
    """Judge by the call's outcome, and by what it took beside its deadline of three seconds."""

    async def judge(attack: Attack, ground: Ground) -> Verdict:
        if ground.is_control:
            said = await at_its_word(attack, ground)
            return Verdict(won(said), f"{len(said.after)} frames in its call")
        since = time.monotonic()
        outcome = await run_bundle(ground, attack.program, warm=warm)
        took = time.monotonic() - since
        told = f"{outcome.kind} {outcome.detail} after {took:.1f} s"
        return Verdict(not stopped(outcome, took), told, stopped(outcome, took))

    return judge


def _answer(outcome: RawOutcome) -> str:
    return handler_pb2.Progress.FromString(outcome.response).message


def _count(frames: list[handler_pb2.HandlerFrame], kind: str) -> int:
    return sum(frame.HasField(kind) for frame in frames)


def _early(name: str, goal: str, program: str, won: Callable[[Said], bool]) -> Attack:
    judge = refused_before_its_call(won)
    return Attack(name, FAMILY, goal, program, AT_ITS_WORD, ORDER, judge=judge)


_BEFORE_ITS_CALL = (
    _early(
        "answers before its call",
        "an answer to a request that it has not seen",
        "load()\nresult('early')\nframes.read()\n" + LINGER,
        lambda said: _count(said.before, "result") == 1,
    ),
    _early(
        "answers before it is loaded",
        "an answer to a request that it has not seen",
        "result('early')\nload()\nframes.read()\n" + LINGER,
        lambda said: _count(said.before, "result") == 1,
    ),
    _early(
        "says twice that it is loaded",
        "a frame that is taken for another one later",
        "load()\nload()\nframes.read()\nresult('late')\n",
        lambda said: _count(said.before, "loaded") == 2,
    ),
    _early(
        "asks for signatures before its call",
        "a signature that belongs to no call",
        "load()\nsay(sign=h.Sign(id=1, credential='key', input=b'x'))\nframes.read()\nresult('late')\n",
        lambda said: _count(said.before, "sign") == 1,
    ),
    _early(
        "reports progress before its call",
        "the broker's time, while nobody waits",
        "load()\nfor _ in range(50):\n    say(progress=h.Progress(message='x'))\n"
        "frames.read()\nresult('late')\n",
        lambda said: _count(said.before, "progress") == 50,
    ),
    _early(
        "writes no frames before its call",
        "a broker that takes bytes for a length",
        "os.write(4, b'\\xff\\xff\\xff\\xf0' + b'x' * 1000)\nframes.read()\nresult('late')\n",
        lambda said: len(said.before) == 1,
    ),
    _early(
        "never says that it is loaded",
        "a place in the pool for nothing",
        "time.sleep(60)\n",
        lambda said: not said.before and not said.after and said.taken,
    ),
)

_IN_ITS_CALL = (
    Attack(
        "answers twice",
        FAMILY,
        "another answer, after the first was checked",
        "atexit.register(result, 'second')\nload()\nframes.read()\nresult('first')\n",
        AT_ITS_WORD,
        FIRST_ANSWER,
        judge=ends_as(
            lambda said: _count(said.after, "result") == 2,
            lambda outcome, _: outcome.kind is OutcomeKind.RESULT and _answer(outcome) == "first",
        ),
    ),
    Attack(
        "asks for signatures without end",
        FAMILY,
        "Vault's time, and the broker's",
        "load()\nframes.read()\nfor number in range(1500):\n"
        "    say(sign=h.Sign(id=number, credential='key', input=b'x'))\n"
        # Alive until it is ended: one that goes earlier is found gone before the thousandth is answered.
        "result('signed')\ntime.sleep(60)\n",
        AT_ITS_WORD,
        {"": "a number of signatures that no handler may pass"},
        judge=ends_as(
            lambda said: _count(said.after, "sign") == 1500,
            lambda outcome, _: outcome.kind is OutcomeKind.CRASHED and "1000" in outcome.detail,
        ),
    ),
    Attack(
        "speaks another protocol",
        FAMILY,
        "a broker that guesses",
        "load()\nframes.read()\n"
        "os.write(4, b'\\0\\0\\0\\3\\xea\\4\\0')\nos.write(4, b'\\0\\0\\0\\0')\nresult('other')\n",
        AT_ITS_WORD,
        {"": "a frame that is none ends the call"},
        judge=ends_as(
            lambda said: _count(said.after, "result") == 1 and len(said.after) == 3,
            lambda outcome, _: outcome.kind is OutcomeKind.CRASHED and "frame" in outcome.detail,
        ),
    ),
    Attack(
        "says that it is loaded and dies",
        FAMILY,
        "a call that waits for a dead tool until its deadline",
        "load()\nos._exit(0)\n",
        AT_ITS_WORD,
        {"": "its end is seen at once"},
        judge=ends_as(
            lambda said: _count(said.before, "loaded") == 1 and not said.after,
            lambda outcome, took: outcome.kind is OutcomeKind.CRASHED and took < 6,
            warm=False,
        ),
    ),
)


async def _give_much(attack: Attack, ground: Ground) -> Verdict:
    """Judge a bundle that does not read its call: it must not hold up who writes it."""
    start = ground.obedient.start("x" * (8 << 20))
    if ground.is_control:
        said = await listen(SDK + attack.program, start)
        return Verdict(not said.taken, "the call was not taken")
    async with ground.create(command=("python3", "-c", SDK + attack.program)) as sandbox:
        since = time.monotonic()
        outcome = await sandbox.run(start, 2.0, _sign)
        took = time.monotonic() - since
    stopped = outcome.kind is OutcomeKind.TIMED_OUT and took < 4
    return Verdict(not stopped, f"{outcome.kind} after {took:.1f} s", stopped)


async def _watch_idle(attack: Attack, ground: Ground) -> Verdict:
    """Judge a bundle that works before it has a call: it has won where nobody looks."""
    async with ground.create(command=("python3", "-c", SDK + attack.program)) as sandbox:
        await sandbox.warm_up(10.0)
        before, since = sandbox.cpu_seconds(), time.monotonic()
        await asyncio.sleep(2.0)
        after, passed = sandbox.cpu_seconds(), time.monotonic() - since
        if ground.is_control:
            return Verdict(sandbox.is_alive, "nobody looked")
        assert before is not None
        assert after is not None
        share = (after - before) / passed
        is_ended = share > MOST_CPU and await sandbox.end()
    return Verdict(not is_ended, f"{share:.2f} processors while it had no call", is_ended)


async def _measure_idle(attack: Attack, ground: Ground) -> Verdict:
    verdict = await _watch_idle(attack, ground)
    if not ground.is_control:
        honest = await _idle_share(ground)
        assert honest <= MOST_CPU, f"one that only waits would be taken for a busy one: {honest:.3f}"
    return verdict


async def _idle_share(ground: Ground) -> float:
    async with ground.create() as sandbox:
        await sandbox.warm_up(10.0)
        before, since = sandbox.cpu_seconds() or 0.0, time.monotonic()
        await asyncio.sleep(2.0)
        return ((sandbox.cpu_seconds() or 0.0) - before) / (time.monotonic() - since)


CHILD = """
load()
if os.fork() == 0:
    frames.read()
    result('of a child')
    if os.fork() == 0:
        os.setsid()
    time.sleep(60)
time.sleep(60)
"""
THREAD = """
threading.Thread(target=time.sleep, args=(60,)).start()
atexit.register(time.sleep, 60)
load()
frames.read()
result('done')
"""

_AROUND_ITS_CALL = (
    Attack(
        "reads nothing",
        FAMILY,
        "a broker that waits until its call is taken",
        "load()\ntime.sleep(60)\n",
        AT_ITS_WORD,
        {"": "the deadline counts while the call is written"},
        judge=_give_much,
    ),
    Attack(
        "works while it is idle",
        FAMILY,
        "the host's processors, while nobody calls",
        "def spin():\n    while True:\n        pass\nthreading.Thread(target=spin, daemon=True).start()\n"
        "load()\nframes.read()\n",
        Control(says="nobody looks at it"),
        {"": "the pool looks at the processor time of what waits, and kills what works"},
        judge=_measure_idle,
    ),
    Attack(
        "has a child answer",
        FAMILY,
        "a process that goes on after the answer",
        "",
        Control(add=(STAYING,), says="own-init: the first process is another one and stays"),
        {"": "the sandbox ends with its call"},
        spec={"command": ("python3", "-c", SDK + CHILD)},
        judge=outlives(),
    ),
    Attack(
        "goes on by threads and exit hooks",
        FAMILY,
        "work after the answer",
        "",
        Control(add=(STAYING,), says="own-init: the first process is another one and stays"),
        {"": "the sandbox ends with its call"},
        spec={"command": ("python3", "-c", SDK + THREAD)},
        judge=outlives(),
    ),
)

ATTACKS: tuple[Attack, ...] = (*_BEFORE_ITS_CALL, *_IN_ITS_CALL, *_AROUND_ITS_CALL)
