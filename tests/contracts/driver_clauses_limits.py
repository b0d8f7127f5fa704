"""The checkers of S7 to S11 and S13: how a sandbox ends, what it can reach. Each raises AssertionError."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from sandboxes.outcome import OutcomeKind
from tests.contracts.driver_clauses_call import STUBBORN
from tests.contracts.driver_trial import (
    CLING,
    DETACH,
    WARM_SECONDS,
    DriverFactory,
    Trial,
    do_nothing_for,
    expect_gone,
    trial,
)

IDLE_SECONDS = 2.0
MARGIN_SECONDS = 1.0
BURNT_SECONDS = 0.8


async def check_S7(make: DriverFactory) -> None:
    """One that is not used ends at its idle age, though nobody acts."""
    async with trial(make, idle_seconds=IDLE_SECONDS, work=DETACH + "work()") as held:
        assert held.alive()
        do_nothing_for(IDLE_SECONDS + MARGIN_SECONDS)
        left = held.alive()
    assert not left, f"still there after the idle age: {left}"


async def check_S8(make: DriverFactory) -> None:
    """One that is used ends at its deadline, though nobody acts."""
    async with trial(make) as held:
        call = asyncio.create_task(held.run(CLING, 1.5))
        await asyncio.sleep(0.7)
        assert held.alive(), "it did not even live to its deadline"
        do_nothing_for(0.8 + MARGIN_SECONDS)
        left = held.alive()
        outcome = await call
    assert not left, f"still there after the deadline: {left}"
    assert outcome.kind is OutcomeKind.TIMED_OUT


async def check_S9(make: DriverFactory) -> None:
    """`end` ends it in every state, says so when that is confirmed, and since when."""
    driver = make()
    async with trial(make, driver, warm=False) as fresh, trial(make, driver) as warm:
        await _expect_end(fresh)
        await _expect_end(warm)
    for program in ("os._exit(0)", *STUBBORN.values()):
        async with trial(make, driver, limits=replace(make.limits, output_kib=1024)) as held:
            call = asyncio.create_task(held.run(program, 30))
            await asyncio.sleep(0.2)
            await _expect_end(held)
            over, _ = await asyncio.wait([call], timeout=5)
            assert over, f"the call goes on after the end: {program!r}"
            assert call.exception() is None, f"it raises when it is ended: {call.exception()!r}"


async def check_S10(make: DriverFactory) -> None:
    """Memory, processes, /tmp and open files are limited."""
    limits, driver = make.limits, make()

    async def count(program: str) -> int:
        async with trial(make, driver) as held:
            return int(await held.answer(program, 20))

    async with trial(make, driver, limits=replace(limits, memory_mib=1024)) as held:
        forked = int(await held.answer(_FORK.format(most=limits.pids + 120), 20))
    assert limits.pids // 2 < forked <= limits.pids, f"{forked} processes, the limit is {limits.pids}"
    opened = await count(_OPEN)
    assert 100 < opened < 1000, f"{opened} open files"
    written = await count(_WRITE.format(most=4 * limits.tmp_mib))
    assert limits.tmp_mib // 2 <= written <= limits.tmp_mib, f"{written} MiB in /tmp of {limits.tmp_mib}"
    async with trial(make, driver) as held:
        outcome = await held.run(_ALLOCATE.format(mib=2 * limits.memory_mib), 20)
    assert outcome.response != b"allocated", f"twice the limit of {limits.memory_mib} MiB"


async def check_S11(make: DriverFactory) -> None:
    """There is no network but its own loopback, and no way out but its socket folder."""
    hidden = f"toolcrib-{secrets.token_hex(8)}"
    with (
        tempfile.TemporaryDirectory(prefix="tc-nest-") as nest,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX) as way_out,
    ):
        Path(nest).chmod(0o755)
        abstract.bind(f"\0{hidden}")
        abstract.listen()
        async with trial(make, socket_dir=Path(nest)) as held:
            way_out.bind(f"{nest}/late.sock")
            way_out.listen()
            Path(nest, "late.sock").chmod(0o666)
            program = _REACH.format(port=listener.getsockname()[1], hidden=hidden)
            found = json.loads(await held.answer(program))
        found_in_nest = [each.name for each in Path(nest).iterdir()]
    assert found_in_nest == ["late.sock"], "it wrote into its socket folder"
    assert found["interfaces"] in ([], ["lo"]), found
    assert (found["loopback"], found["nest"]) == ("open", "open"), found
    for way in ("host", "abstract", "elsewhere", "vsock", "packet", "netlink"):
        assert found[way] != "open", f"it reaches {way}: {found}"


async def check_S13(make: DriverFactory) -> None:
    """`cpu_seconds` counts the time of everything in it."""
    async with trial(make) as idle, trial(make) as busy:
        before = idle.sandbox.cpu_seconds()
        call = asyncio.create_task(busy.run(_BURN.format(seconds=BURNT_SECONDS), 20))
        used, until = busy.sandbox.cpu_seconds(), time.monotonic() + 15
        while (used is None or used < BURNT_SECONDS) and time.monotonic() < until:
            await asyncio.sleep(0.1)
            used = busy.sandbox.cpu_seconds()
        after = idle.sandbox.cpu_seconds()
        await busy.sandbox.end()
        await call
    assert used is not None, "it cannot tell"
    assert used >= BURNT_SECONDS, f"{used:.2f} s, where children burnt {BURNT_SECONDS} s"
    assert used < 60, f"{used} s"
    assert before is not None
    assert after is not None
    assert after - before < BURNT_SECONDS / 2, f"an idle one used {after - before:.2f} s meanwhile"


async def _expect_end(held: Trial) -> None:
    assert held.sandbox.gone is None
    assert await asyncio.wait_for(held.sandbox.end(), WARM_SECONDS), "its end is not confirmed"
    assert held.sandbox.gone is not None, "it does not say since when it is gone"
    await expect_gone(0, held.trace)
    assert not held.sandbox.is_alive
    assert await held.sandbox.end(), "it cannot be ended again"


_FORK = """
answer = 1
try:
    while answer < {most}:
        if os.fork() == 0:
            time.sleep(60)
        answer += 1
except OSError:
    pass
"""
_OPEN = """
files = []
try:
    while len(files) < 2000:
        files.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
answer = len(files)
for file in files:
    os.close(file)
"""
# By several files, so that it is the folder's limit and not a file's.
_WRITE = """
answer = 0
try:
    while answer < {most}:
        with open("/tmp/%d" % answer, "wb", buffering=0) as file:
            if file.write(bytes(1 << 20)) < 1 << 20:
                break
        answer += 1
except OSError:
    pass
"""
_ALLOCATE = """
block = bytearray({mib} << 20)
for place in range(0, len(block), 4096):
    block[place] = 1
answer = "allocated"
"""
_BURN = """
for _ in range(2):
    if os.fork() == 0:
        until = time.process_time() + {seconds} / 2 + 0.05
        while time.process_time() < until:
            pass
        os._exit(0)
time.sleep(30)
"""
_REACH = """
import json, socket
answer = dict()

def reach(name, family, kind, address=None, protocol=0):
    try:
        with socket.socket(family, kind, protocol) as way:
            way.settimeout(2)
            if address is not None:
                way.connect(address)
        answer[name] = "open"
    except OSError as error:
        answer[name] = type(error).__name__

try:
    lines = open("/proc/net/dev").read().splitlines()[2:]
except OSError:  # it may have no view of this at all
    lines = []
answer["interfaces"] = [line.split(":")[0].strip() for line in lines]
own = socket.create_server(("127.0.0.1", 0))
reach("loopback", socket.AF_INET, socket.SOCK_STREAM, own.getsockname())
reach("host", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", {port}))
reach("abstract", socket.AF_UNIX, socket.SOCK_STREAM, "\\0{hidden}")
reach("elsewhere", socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80))
reach("vsock", 40, socket.SOCK_STREAM)
reach("packet", socket.AF_PACKET, socket.SOCK_RAW)
reach("netlink", socket.AF_NETLINK, socket.SOCK_RAW)
reach("nest", socket.AF_UNIX, socket.SOCK_STREAM, "/run/toolcrib/late.sock")
for place in ("/run/toolcrib/mine", "/run/toolcrib/late.sock"):
    try:
        os.unlink(place) if place.endswith("sock") else open(place, "w").close()
    except OSError:
        pass
answer = json.dumps(answer)
"""
