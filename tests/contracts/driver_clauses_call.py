"""The checkers of S1 to S6 and S12: the one call of a sandbox. Each raises AssertionError."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from sandboxes.outcome import OutcomeKind, SandboxUnavailable, refuse_to_sign
from tests.contracts.driver_trial import DETACH, LATE_SECONDS, SLEEP, DriverFactory, expect_gone, trial
from toolcrib.handler.v1 import handler_pb2

PAUSE_SECONDS = 0.8
LOAD_SECONDS = 1.0
_KIB = 1024

STUBBORN = {
    "sleeps": SLEEP,
    "ignores every signal that it can": DETACH + "while True: time.sleep(1)",
    "stops itself": "os.kill(os.getpid(), signal.SIGSTOP)",
    "floods its frames": "while True: write(progress=pb.Progress(message='x' * 1000))",
    "floods its log": "while True: os.write(2, bytes(65536))",
    "floods both and reads nothing": "\nif os.fork():\n while True: os.write(2, bytes(65536))\n"
    "while True: write(progress=pb.Progress(message='x' * 1000))",
    "leaves a child that holds the pipe": DETACH + "os._exit(0)",
    "writes no frames": "os.write(4, b'\\0\\0\\0\\2\\xff\\xff'); time.sleep(60)",
    "writes an empty frame": "os.write(4, bytes(4)); time.sleep(60)",
    "says too early that it is loaded": "write(loaded=pb.Loaded()); time.sleep(60)",
    "closes its frames": "os.close(4); time.sleep(60)",
    "ends": "os._exit(0)",
    "crashes": "os.kill(os.getpid(), signal.SIGKILL)",
}


async def check_S1(make: DriverFactory) -> None:
    """The handler is loaded before the call, and hears nothing before it."""
    async with trial(make) as held:
        await asyncio.sleep(PAUSE_SECONDS)
        waited = float(await held.answer("answer = waited"))
    assert waited > PAUSE_SECONDS / 2, f"it was loaded, or heard something, {waited:.2f} s before the call"


async def check_S2(make: DriverFactory) -> None:
    """The handler gets the very Start, and what it says is what comes back."""
    wanted = _full_start(b"answer = start.SerializeToString(deterministic=True)")
    async with trial(make) as held:
        outcome = await held.sandbox.run(wanted, 10, refuse_to_sign)
    assert outcome.kind is OutcomeKind.RESULT, outcome.detail
    assert outcome.response == wanted.SerializeToString(deterministic=True)
    failure = handler_pb2.Failure(code="SHELF_EMPTY", message="nothing", effect=handler_pb2.EFFECT_NONE)
    async with trial(make) as held:
        outcome = await held.run(f"write(failure=pb.Failure.FromString({failure.SerializeToString()!r}))")
    assert outcome.kind is OutcomeKind.FAILURE, outcome.detail
    assert outcome.failure == failure


async def check_S3(make: DriverFactory) -> None:
    """A second call is refused, by an exception."""
    async with trial(make) as held:
        await held.answer("answer = 1")
        refused = False
        try:
            await held.run("answer = 2", 2)
        except Exception:
            refused = True
        assert refused, "it served a second call"


async def check_S4(make: DriverFactory) -> None:
    """`run` is over by the deadline, whatever the handler does, and raises for nothing."""
    driver = make()

    async def check(program: str) -> None:
        limits = replace(make.limits, output_kib=_KIB)
        async with trial(make, driver, limits=limits) as held:
            outcome = await held.run_in_time(program, 1.5)
            assert outcome.kind is not OutcomeKind.RESULT, f"{program!r} has a result"
        await expect_gone(0, held.trace)

    programs = list(STUBBORN.values())
    for first in range(0, len(programs), 4):
        checks = map(check, programs[first : first + 4])
        for error in await asyncio.gather(*checks, return_exceptions=True):
            if error is not None:
                raise error


async def check_S5(make: DriverFactory) -> None:
    """Output is capped, a log is cut and marked so, and its control characters are escaped."""
    limits = replace(make.limits, output_kib=64, log_kib=16)

    async def run(program: str) -> tuple[OutcomeKind, str, bool]:
        async with trial(make, limits=limits) as held:
            outcome = await held.run(program, 5)
        return outcome.kind, outcome.log, outcome.log_truncated

    assert (await run("answer = 'x' * 60 * 1024"))[0] is OutcomeKind.RESULT
    assert (await run("answer = 'x' * 65 * 1024"))[0] is OutcomeKind.OUTPUT_TOO_LARGE
    many = "for _ in range(1000): write(progress=pb.Progress(message='x' * 100))"
    assert (await run(many))[0] is OutcomeKind.OUTPUT_TOO_LARGE
    kind, log, cut = await run("os.write(2, b'y' * 100 * 1024)")
    assert kind is OutcomeKind.RESULT
    assert cut, "it does not say that the log is cut"
    assert 15 * _KIB < len(log) < 17 * _KIB, f"{len(log)} characters of log"
    kind, log, cut = await run(r"os.write(1, b'a\x1b[2Jb\xc2\x9bc')")
    assert (kind, cut) == (OutcomeKind.RESULT, False)
    assert log == r"a\x1b[2Jb\x9bc"


async def check_S6(make: DriverFactory) -> None:
    """`cancel` reaches the handler as a Cancel frame, once."""
    count = """
answer, until = [], time.monotonic() + 5
while select.select([3], [], [], max(0, until - time.monotonic()))[0]:
    answer.append(read().cancel.reason)
    until = min(until, time.monotonic() + 0.7)
"""
    async with trial(make) as held:
        call = asyncio.create_task(held.answer(count, 10))
        await asyncio.sleep(0.3)
        held.sandbox.cancel("first")
        held.sandbox.cancel("second")
        heard = await call
    assert heard == "['first']", f"it heard {heard}"


async def check_S12(make: DriverFactory) -> None:
    """`warm_up` returns when the handler is loaded, and refuses one that does anything else."""
    began = time.monotonic()
    async with trial(make, work=f"time.sleep({LOAD_SECONDS})\nwork()") as held:
        took = time.monotonic() - began
        assert took > LOAD_SECONDS, f"it did not wait until the handler was loaded: {took:.2f} s"
        assert await held.answer("answer = 'fine'") == "fine"
    for work in (
        "write(result=pb.Result(response=b'early')); work()",
        "write(progress=pb.Progress(message='early')); work()",
        "write(loaded=pb.Loaded(), ); write(result=pb.Result(response=b'early')); time.sleep(60)",
        "write(sign=pb.Sign(id=1)); work()",
        "os.write(4, b'no frame at all'); time.sleep(60)",
        "os._exit(0)",
        "sys.exit('cannot be loaded')",
        SLEEP,
    ):
        await _expect_no_warmth(make, work)


async def _expect_no_warmth(make: DriverFactory, work: str) -> None:
    """See that it is refused; what it says behind its Loaded may be found by the call only."""
    async with trial(make, work=work, warm=False) as held:
        began = time.monotonic()
        try:
            await held.sandbox.warm_up(3)
        except SandboxUnavailable:
            took = time.monotonic() - began
            assert took < 3 + LATE_SECONDS, f"it took {took:.1f} s to refuse {work!r}"
            return
        await asyncio.sleep(0.3)
        outcome = await held.run("answer = 'served'", 2)
        assert work.startswith("write(loaded"), f"it takes this for loaded: {work!r}"
        assert outcome.kind is OutcomeKind.CRASHED, f"{outcome.kind} for what was said before the call"


def _full_start(program: bytes) -> handler_pb2.Start:
    login = handler_pb2.UsernamePassword(username="v-role", password="p\0\u202ew")
    target = handler_pb2.Target(socket_dir="/run/toolcrib", settings={"database": "shop"})
    context = handler_pb2.CallContext(
        call_id="c-1", tenant="shop", attempt=2, remaining_millis=2**40, traceparent="00-ab-cd-01"
    )
    return handler_pb2.Start(
        protocol_version=1,
        context=context,
        method="test.v1.Trial/Run",
        request=program + b"\n#" + b"\xc3\xbc" * 40_000,
        credentials={"login": handler_pb2.Credential(username_password=login)},
        targets={"orders-db": target},
    )
