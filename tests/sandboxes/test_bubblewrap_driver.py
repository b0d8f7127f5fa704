"""The bubblewrap driver on the real kernel: what the contract suite does not ask of every driver."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandboxes.bubblewrap_driver import BubblewrapDriver
from sandboxes.cgroups import Group, find_cgroups
from sandboxes.outcome import SandboxSpec, SandboxUnavailable
from tests.parts.engine import COMMAND, STATE, TestLimits

ROOT = Path(__file__).parents[2]
BROKER = """
import asyncio, sys
from pathlib import Path
from sandboxes.bubblewrap_compiler import compile_folder
from sandboxes.bubblewrap_driver import BubblewrapDriver
from sandboxes.folders import Folders
from sandboxes.outcome import SandboxSpec
from tests.parts.engine import COMMAND, TestLimits
from toolcrib.handler.v1 import handler_pb2

async def main(cache, image, installation, used, *lacking):
    driver = BubblewrapDriver(Folders(Path(cache), compile_folder), installation, 1, lacking=lacking)
    spec = SandboxSpec(image, COMMAND, TestLimits(), None, driver.allocate_uid(), idle_seconds=300)
    async with driver.create(spec, "call") as sandbox:
        await sandbox.warm_up(20)
        print(sandbox.container_id, flush=True)
        if used == "used":
            program = "import os, time; os.fork(); os.fork() or os.setsid(); time.sleep(300)"
            request = handler_pb2.Progress(message=program).SerializeToString()
            start = handler_pb2.Start(protocol_version=1, method="test.v1.Obedient/Run", request=request)
            await sandbox.run(start, 300)
        await asyncio.sleep(300)

asyncio.run(main(*sys.argv[1:]))
"""


def find_group(container_id: str) -> Group:
    """The control group of a sandbox."""
    return next(group for group in find_cgroups().find() if group.name == container_id)


@pytest.mark.parametrize("used", ["used", "idle"])
@pytest.mark.parametrize("lacking", [(), ("dies-with-broker",)], ids=["all", "stdin-only"])
async def test_sandbox_ends_when_its_broker_is_killed(bubblewrap_tool, used, lacking):
    arguments = [str(STATE / "cache"), bubblewrap_tool.image, bubblewrap_tool.installation, used, *lacking]
    command = [sys.executable, "-P", "-c", BROKER, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as broker:
        assert broker.stdout is not None
        container_id = (await asyncio.to_thread(broker.stdout.readline)).decode().strip()
        group = find_group(container_id)
        assert len(group.processes()) >= 3  # bwrap, init, handler
        broker.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10
    while group.processes() and time.monotonic() < until:
        await asyncio.sleep(0.05)
    assert group.processes() == set()
    assert await bubblewrap_tool.driver.reap() == [container_id]


async def test_init_and_bwrap_are_the_sandboxs_user_on_the_host(bubblewrap_driver, bubblewrap_tool):
    spec = bubblewrap_tool.spec()
    async with bubblewrap_driver.create(spec, "call") as sandbox:
        await sandbox.warm_up(20)
        group = find_group(sandbox.container_id)
        users = {Path(f"/proc/{pid}").stat().st_uid for pid in group.processes()}
        status = [Path(f"/proc/{pid}/status").read_text() for pid in group.processes()]
    # What is not dumpable is shown as root's; its real user id is not.
    assert users <= {spec.uid, 0}
    assert all(f"Uid:\t{spec.uid}\t{spec.uid}\t{spec.uid}\t{spec.uid}\n" in text for text in status)


async def test_nothing_is_mounted_on_the_host(bubblewrap_driver, bubblewrap_tool):
    before = Path("/proc/self/mountinfo").read_text()
    async with bubblewrap_driver.create(bubblewrap_tool.spec(), "call") as sandbox:
        await sandbox.warm_up(20)
        during = Path("/proc/self/mountinfo").read_text()
    assert "toolcrib-stage" not in during
    assert before.count("bwrap") == during.count("bwrap")


async def test_handler_has_only_its_own_descriptors(bubblewrap_tool):
    program = "import os; answer = sorted(map(int, os.listdir('/proc/self/fd')))"
    assert await bubblewrap_tool.answer(program) == "[0, 1, 2, 3, 4, 5]"  # the last is the folder itself


async def test_handler_cannot_look_into_inits_descriptors(bubblewrap_tool):
    program = """
import os
try: answer = os.listdir('/proc/1/fd')
except PermissionError: answer = 'refused'
"""
    assert await bubblewrap_tool.answer(program) == "refused"


async def test_makes_nothing_of_an_image_that_is_not_there(bubblewrap_driver):
    spec = SandboxSpec("sha256:" + "0" * 64, COMMAND, TestLimits(), None, bubblewrap_driver.allocate_uid())
    with pytest.raises(SandboxUnavailable, match="build it again"):
        async with bubblewrap_driver.create(spec, "call"):
            pytest.fail("a sandbox came about")
    assert await bubblewrap_driver.leftovers() == []


async def test_makes_nothing_where_a_folder_is_missing(bubblewrap_driver, bubblewrap_image, tmp_path):
    uid = bubblewrap_driver.allocate_uid()
    spec = SandboxSpec(bubblewrap_image, COMMAND, TestLimits(), tmp_path / "missing", uid)
    with pytest.raises(SandboxUnavailable, match="did not start"):
        async with bubblewrap_driver.create(spec, "call"):
            pytest.fail("a sandbox came about")
    assert await bubblewrap_driver.leftovers() == []


async def test_ends_a_sandbox_whose_start_is_cancelled(bubblewrap_driver, bubblewrap_tool):
    async def make() -> None:
        async with bubblewrap_driver.create(bubblewrap_tool.spec(), "call"):
            await asyncio.sleep(60)

    for delay_seconds in (0.0, 0.003, 0.01, 0.02):
        task = asyncio.create_task(make())
        await asyncio.sleep(delay_seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await bubblewrap_driver.leftovers() == []


async def test_nest_shows_what_is_put_into_it_later(bubblewrap_driver, bubblewrap_tool, tmp_path):
    uid = bubblewrap_driver.allocate_uid()
    nest = tmp_path / "only-roots" / "nest"
    nest.mkdir(parents=True)
    nest.parent.chmod(0o700)
    nest.chmod(0o755)
    spec = SandboxSpec(bubblewrap_tool.image, COMMAND, TestLimits(), nest, uid)
    async with bubblewrap_driver.create(spec, "call") as sandbox:
        await sandbox.warm_up(20)
        (nest / "later").write_text("seen")
        program = """
import os
answer = open('/run/toolcrib/later').read()
try: os.unlink('/run/toolcrib/later')
except OSError as error: answer += f' {error.strerror}'
"""
        outcome = await sandbox.run(bubblewrap_tool.start(program), 10)
    assert b"seen Read-only file system" in outcome.response


async def test_closed_driver_makes_nothing(bubblewrap_folders, bubblewrap_tool, installation):
    driver = BubblewrapDriver(bubblewrap_folders, installation, epoch=2)
    await driver.close()
    await driver.close()
    with pytest.raises(SandboxUnavailable, match="closed"):
        async with driver.create(bubblewrap_tool.spec(), "call"):
            pytest.fail("a sandbox came about")


def test_knows_its_own_ids_only(bubblewrap_driver):
    assert bubblewrap_driver.knows("bwrap-" + "0" * 32)
    assert not any(map(bubblewrap_driver.knows, ("0" * 64, "bwrap-", "bwrap-" + "0" * 33, "../x")))


async def test_says_that_out_of_memory_was_the_end(bubblewrap_tool):
    outcome = await bubblewrap_tool.within(memory_mib=64).run("answer = bytearray(256 << 20)")
    assert outcome.kind == "crashed" and outcome.detail == "out of memory: the limit is 64 MiB"


def test_runs_for_root_only():
    program = (
        "import os\n"
        "from sandboxes.bubblewrap_check import check_bubblewrap\n"
        "from sandboxes.cgroups import Cgroups\n"
        "os.setuid(65534)\n"
        "check_bubblewrap(Cgroups(1, {}))"
    )
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert "needs a broker that runs as root" in done.stderr


def test_processes_of_the_broker_see_no_stage():
    assert list(Path("/run/toolcrib-stage").iterdir()) == []
