"""Single measures of bubblewrap: what each stops, and that it is this measure which stops it."""

from __future__ import annotations

import asyncio

import pytest

from sandboxes.bubblewrap_driver import BubblewrapDriver
from sandboxes.bubblewrap_measures import MEASURES, settings_for
from sandboxes.hardening import MEASURES as DOCKER_MEASURES
from sandboxes.outcome import SandboxSpec
from tests.parts.bubblewrap import BubblewrapTool
from tests.parts.engine import TestLimits, answer_of

ONLY_HERE = {
    "dies-with-broker",
    "no-user-namespaces",
    "masked-paths",
    "read-only-paths",
    "read-only-devices",
    "own-inodes",
}
TRY = """
import os
def attempt(work):
    try:
        work()
        return 'done'
    except OSError as error:
        return os.strerror(error.errno)
"""
FILL_INODES = """
import os
def work():
    for number in range(5000):
        open(f'/tmp/{number}', 'w').close()
answer = attempt(work)
"""
RUN_FROM_TMP = """
import os, subprocess
def work():
    with open('/tmp/run', 'wb') as file: file.write(open('/usr/bin/python3', 'rb').read())
    os.chmod('/tmp/run', 0o700)
    subprocess.run(['/tmp/run', '-I', '-S', '-c', ''], check=True)
answer = attempt(work)
"""
WRITE_TO_DEV = "answer = attempt(lambda: open('/dev/shm/x', 'w').write('x'))"
TAKE_A_LOCK = """
import fcntl
context.file = open('/opt/bundle/handler.py')
answer = attempt(lambda: fcntl.flock(context.file, fcntl.LOCK_EX | fcntl.LOCK_NB))
"""
HOLD_IT = "\nimport time; context.progress(answer); time.sleep(60)"
USER_NAMESPACE = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
answer = 'done' if libc.unshare(0x10000000) == 0 else os.strerror(ctypes.get_errno())
"""
SEE_NETWORK = "answer = sorted(line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:])"
READ_TIMERS = "answer = attempt(lambda: open('/proc/timer_list').read())"
MESSAGE_QUEUE = """
import resource
answer = [resource.getrlimit(getattr(resource, 'RLIMIT_' + name))[1]
          for name in ('NOFILE', 'CORE', 'MSGQUEUE', 'MEMLOCK', 'FSIZE')]
"""


def test_names_are_those_of_docker_where_they_correspond():
    names = [measure.name for measure in MEASURES]
    assert len(names) == len(set(names))
    assert set(names) - {measure.name for measure in DOCKER_MEASURES} <= ONLY_HERE


def test_each_says_what_it_stops():
    assert all(measure.stops for measure in MEASURES)


def test_root_is_made_read_only_last():
    arguments = settings_for(SandboxSpec("", (), TestLimits(), None, 7)).arguments
    assert arguments[-2:] == ["--remount-ro", "/"]


def test_refuses_to_lack_what_is_no_measure(bubblewrap_folders):
    with pytest.raises(ValueError, match="no such measure: secomp"):
        BubblewrapDriver(bubblewrap_folders, "x", 1, lacking=("secomp",))


@pytest.mark.parametrize(
    ("program", "stopped", "lacking"),
    [
        (FILL_INODES, "No space left on device", ("tmp",)),
        (RUN_FROM_TMP, "Permission denied", ("tmp",)),
        (WRITE_TO_DEV, "Read-only file system", ("read-only-devices",)),
        (USER_NAMESPACE, "Operation not permitted", ("seccomp", "no-user-namespaces")),
    ],
    ids=["inodes", "program in /tmp", "/dev", "user namespace"],
)
async def test_stops(bubblewrap_tool, program, stopped, lacking):
    assert await bubblewrap_tool.answer(TRY + program) == stopped
    assert await bubblewrap_tool.answer_unprotected(TRY + program, *lacking) == "done"


async def test_stops_user_namespaces_also_without_the_filter(bubblewrap_tool):
    answer = await bubblewrap_tool.answer_unprotected(TRY + USER_NAMESPACE, "seccomp")
    assert answer == "No space left on device"


async def test_shows_no_network_but_loopback(bubblewrap_tool):
    assert await bubblewrap_tool.answer(SEE_NETWORK) == "['lo']"
    assert await bubblewrap_tool.answer_unprotected(SEE_NETWORK, "no-network") != "['lo']"


async def test_loopback_is_up(bubblewrap_tool):
    program = """
import socket
server = socket.create_server(('127.0.0.1', 0))
socket.create_connection(server.getsockname()).sendall(b'hello')
answer = server.accept()[0].recv(5)
"""
    assert await bubblewrap_tool.answer(program) == "b'hello'"


async def test_hides_what_tells_of_the_kernel(bubblewrap_tool):
    assert await bubblewrap_tool.answer(TRY + READ_TIMERS) == "Permission denied"


async def test_sets_every_limit_of_a_process(bubblewrap_tool):
    assert await bubblewrap_tool.answer(MESSAGE_QUEUE) == str([256, 0, 0, 0, 8 << 20])


async def test_cgroup_namespace_begins_at_its_own_group(bubblewrap_tool):
    program = "answer = {line.split(':', 2)[2].strip() for line in open('/proc/self/cgroup')}"
    assert "toolcrib" not in await bubblewrap_tool.answer(program)
    assert "/bwrap-" in await bubblewrap_tool.answer_unprotected(program, "own-cgroup-view")


async def test_mounts_name_no_folder_of_the_host(bubblewrap_tool):
    seen = await bubblewrap_tool.answer("answer = open('/proc/self/mountinfo').read()")
    assert "folders" not in seen and ".toolcrib" not in seen


async def take_lock_twice(tool: BubblewrapTool, *lacking: str) -> str:
    """Take a lock on a file of the image while another sandbox holds one; gives what happened."""
    driver = BubblewrapDriver(tool.folders, tool.installation, 2, lacking=lacking)
    held = asyncio.Event()
    try:
        async with (
            driver.create(tool.spec(), "holder") as holder,
            driver.create(tool.spec(), "other") as other,
        ):
            start = tool.start(TRY + TAKE_A_LOCK + HOLD_IT)
            holding = asyncio.create_task(holder.run(start, 30, on_progress=lambda _: held.set()))
            await asyncio.wait_for(held.wait(), 20)
            outcome = await other.run(tool.start(TRY + TAKE_A_LOCK), 10)
            await holder.end()
            await holding
        return answer_of(outcome)
    finally:
        await driver.close()


async def test_locks_of_a_file_of_the_image_are_not_seen_by_another_sandbox(bubblewrap_tool):
    assert await take_lock_twice(bubblewrap_tool) == "done"
    assert await take_lock_twice(bubblewrap_tool, "own-inodes") == "Resource temporarily unavailable"


async def test_has_no_capability_and_no_new_privileges(bubblewrap_tool):
    program = "answer = [line.split()[1] for line in open('/proc/self/status') if line[:3] in ('Cap', 'NoN')]"
    assert await bubblewrap_tool.answer(program) == str(["0" * 16] * 5 + ["1"])


async def test_keeps_nothing_of_the_brokers_environment(bubblewrap_tool, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_BROKER", "visible")
    program = "import os; answer = 'SECRET_OF_THE_BROKER' in os.environ"
    assert await bubblewrap_tool.answer(program) == "False"
