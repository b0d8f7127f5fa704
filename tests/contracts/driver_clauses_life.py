"""The checkers of D1 to D7: what a driver promises. Each raises AssertionError when it does not hold."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

from sandboxes.outcome import SandboxSpec, SandboxUnavailable
from sandboxes.sandbox import Driver
from tests.contracts.driver_trial import CLING, SLEEP, DriverFactory, Trial, expect_gone, spec_of, trial
from tests.contracts.kernel import Trace, find_alive

UNKNOWN_IMAGE = "sha256:" + "0" * 64
FORGOTTEN_SECONDS = 10.0
"""How long an engine may keep a name of what is dead."""


async def check_D1(make: DriverFactory) -> None:
    """`create` gives a sandbox that runs, or SandboxUnavailable and nothing."""
    driver = make()
    async with trial(make, driver, warm=False) as held:
        assert held.sandbox.is_alive
        assert held.alive(), "it says that it is alive, but the kernel has none of its processes"
        assert await held.answer("answer = 6 * 7") == "42"
    spec, mark = spec_of(make, driver, image_id=UNKNOWN_IMAGE)
    await _expect_refusal(driver, spec)
    await expect_gone(0, Trace(mark, uid=spec.uid))
    await _expect_forgotten(driver)


async def check_D2(make: DriverFactory) -> None:
    """Nothing is left on leaving `create`: by its end, an exception, or a cancellation at any moment."""
    driver = make()
    async with trial(make, driver) as returned:
        call = asyncio.create_task(returned.run(CLING, 30))
        await asyncio.sleep(0.5)
    await expect_gone(0, returned.trace)
    await asyncio.wait([call], timeout=5)
    with contextlib.suppress(ZeroDivisionError):
        async with trial(make, driver) as raised:
            raise ZeroDivisionError
    await expect_gone(0, raised.trace)
    for seconds in (0.0, 0.01, 0.05, 0.2, 1.0):
        await _check_cancelled(make, driver, seconds)
    await _expect_forgotten(driver)


async def check_D3(make: DriverFactory) -> None:
    """No two sandboxes share a user id or a container id, or see each other's processes."""
    driver, later = make(), make(epoch=3)
    uids = [each.allocate_uid() for each in (driver, later) for _ in range(500)]
    assert len(set(uids)) == len(uids), "a user id was given twice"
    async with trial(make, driver) as one, trial(make, later) as two:
        assert one.sandbox.container_id != two.sandbox.container_id
        assert one.sandbox.uid != two.sandbox.uid
        seen = await two.answer(_LOOK_AROUND)
        assert two.mark in seen or not seen, "it sees others, and not even itself"
        assert one.mark not in seen
        assert await one.answer("answer = os.getuid()") == str(one.sandbox.uid)


async def check_D4(make: DriverFactory) -> None:
    """`reap` ends the other epochs' of this installation, and no one else's."""
    before, driver, other = make(epoch=1), make(), make(epoch=1, elsewhere=True)
    async with trial(make, before) as old, trial(make, driver) as own, trial(make, other) as strange:
        gone = await driver.reap()
        assert list(gone) == [old.sandbox.container_id], f"{gone} is gone, it says"
        await expect_gone(0, old.trace)
        assert await own.answer("answer = 'alive'") == "alive"
        assert await strange.answer("answer = 'alive'") == "alive"


async def check_D5(make: DriverFactory) -> None:
    """`leftovers` lists this installation's, of every epoch, and no one else's."""
    before, driver, other = make(epoch=1), make(), make(epoch=1, elsewhere=True)
    async with trial(make, before) as old, trial(make, driver) as own, trial(make, other) as strange:
        wanted = sorted([old.sandbox.container_id, own.sandbox.container_id])
        assert sorted(await driver.leftovers()) == wanted
        assert list(await other.leftovers()) == [strange.sandbox.container_id]
    await _expect_forgotten(driver)


async def check_D6(make: DriverFactory) -> None:
    """`end_container` ends what any epoch made, says so only then, and refuses another installation's."""
    before, driver, other = make(epoch=1), make(), make(elsewhere=True)
    async with trial(make, before) as old, trial(make, driver) as own:
        for held in (old, own):
            assert driver.knows(held.sandbox.container_id)
        await _expect_refused_end(other, own)
        for held in (old, own):
            assert await driver.end_container(held.sandbox.container_id)
            await expect_gone(0, held.trace)
            assert await driver.end_container(held.sandbox.container_id), "what is gone can be ended again"


async def check_D7(make: DriverFactory) -> None:
    """`close` ends what is left, whatever it does."""
    driver = make()
    idle, busy = trial(make, driver), trial(make, driver)
    held = [await idle.__aenter__(), await busy.__aenter__()]
    call = asyncio.create_task(held[1].run(CLING, 30))
    await asyncio.sleep(0.5)
    assert all(each.alive() for each in held)
    await driver.close()
    try:
        await expect_gone(0, *(each.trace for each in held))
    finally:
        await asyncio.wait([call], timeout=5)
        for each in (idle, busy):
            await each.__aexit__(None, None, None)


_LOOK_AROUND = """
answer = ""
for name in os.listdir("/proc"):
    try:
        answer += open(f"/proc/{name}/cmdline", errors="replace").read()[-60:]
    except OSError:
        pass
"""


async def _check_cancelled(make: DriverFactory, driver: Driver, seconds: float) -> None:
    spec, mark = spec_of(make, driver)

    async def use() -> None:
        async with driver.create(spec, mark) as sandbox:
            await Trial(driver, sandbox, mark).run(SLEEP, 30)

    call = asyncio.create_task(use())
    await asyncio.sleep(seconds)
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    await expect_gone(0, Trace(mark, uid=spec.uid))


async def _expect_refusal(driver: Driver, spec: SandboxSpec) -> None:
    try:
        async with driver.create(replace(spec), "refused"):
            raise AssertionError("it made a sandbox of nothing")
    except SandboxUnavailable:
        return


async def _expect_refused_end(other: Driver, held: Trial) -> None:
    refused = False
    try:
        await other.end_container(held.sandbox.container_id)
    except SandboxUnavailable:
        refused = True
    assert find_alive(held.trace), "it ended what is another installation's"
    assert refused, "it did not say that this is another installation's"


async def _expect_forgotten(driver: Driver) -> None:
    until = time.monotonic() + FORGOTTEN_SECONDS
    while left := await driver.leftovers():
        assert time.monotonic() < until, f"left over: {left}"
        await asyncio.sleep(0.05)
