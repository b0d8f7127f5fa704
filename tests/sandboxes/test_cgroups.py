"""Control groups, on the real kernel; of the version that it does not have, what would be written."""

from __future__ import annotations

import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandboxes.cgroups import Ceilings, Cgroups, CgroupsUnfit, Group, find_cgroups
from tests.parts import without

UNIFIED = Path("/sys/fs/cgroup/unified")
V1 = """\
30 25 0:26 / /c/memory rw,relatime - cgroup cgroup rw,memory
31 25 0:27 / /c/pids rw,relatime - cgroup cgroup rw,pids
32 25 0:28 / /c/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 25 0:29 / /c/unified rw,relatime - cgroup2 cgroup2 rw
"""


@pytest.fixture
def cgroups() -> Cgroups:
    """The host's own."""
    if without("bubblewrap"):
        pytest.skip("TOOLCRIB_WITHOUT names bubblewrap")
    return find_cgroups()


@pytest.fixture
def installation(cgroups):
    """An installation whose groups are gone afterwards."""
    name = f"test-{secrets.token_hex(6)}"
    yield name
    for group in cgroups.find(name):
        group.end()
    assert cgroups.find(name) == []


@pytest.fixture
def sleeper():
    """A process that does nothing for a while."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def start_waiting(program: str) -> subprocess.Popen[bytes]:
    """Start a program that waits for a line first."""
    command = [sys.executable, "-I", "-S", "-c", f"input()\n{program}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def run_in(group: Group, program: str) -> int:
    """Run a program of ours in a group; gives its exit code."""
    process = start_waiting(program)
    group.add(process.pid)
    process.communicate(b"\n", timeout=60)
    return process.returncode


def test_holds_a_process_and_kills_it(cgroups, installation, sleeper):
    group = cgroups.make(installation, 1, "one", Ceilings())
    group.add(sleeper.pid)
    assert group.processes() == {sleeper.pid}
    assert group.end()
    assert sleeper.wait(5) == -9 and group.processes() == set()


def test_finds_groups_by_installation_and_tells_their_epoch(cgroups, installation):
    cgroups.make(installation, 3, "one", Ceilings())
    cgroups.make(installation, 14, "two", Ceilings())
    assert [(group.epoch, group.name) for group in cgroups.find(installation)] == [(14, "two"), (3, "one")]


def test_does_not_take_an_installation_for_another_whose_name_it_begins_with(cgroups, installation):
    longer = cgroups.make(f"{installation}-7", 1, "one", Ceilings())
    assert cgroups.find(installation) == []
    assert [group.installation for group in cgroups.find(f"{installation}-7")] == [f"{installation}-7"]
    assert longer.end()


def test_leaves_no_folder(cgroups, installation):
    group = cgroups.make(installation, 1, "one", Ceilings())
    folders = set(group.folders.values())
    assert group.end()
    assert not any(folder.exists() or folder.parent.exists() for folder in folders)


def test_makes_one_while_the_last_one_is_taken_away(cgroups, installation):
    """One call's sandbox ends while the next one's is made: both have the same folder above them."""

    def make_and_end(number):
        for turn in range(150):
            cgroups.make(installation, 1, f"group-{number}-{turn}", Ceilings(pids=4)).end()

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(make_and_end, range(3))) == [None] * 3


def test_ending_a_group_that_is_gone_is_well(cgroups, installation):
    group = cgroups.make(installation, 1, "one", Ceilings())
    assert group.end() and group.end()


def test_ends_a_process_that_forks_all_the_time(cgroups, installation):
    group = cgroups.make(installation, 1, "one", Ceilings(pids=12))
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    process = start_waiting(bomb)
    group.add(process.pid)
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.close()
    while len(group.processes()) < 5:
        assert process.poll() is None
    assert group.end()
    process.wait()


def test_kills_for_memory_and_says_so(cgroups, installation):
    group = cgroups.make(installation, 1, "one", Ceilings(memory_bytes=32 << 20, no_swap=True))
    assert not group.was_out_of_memory()
    assert run_in(group, "bytearray(128 << 20)") == -9
    assert group.was_out_of_memory()


def test_refuses_more_processes_than_its_ceiling(cgroups, installation):
    group = cgroups.make(installation, 1, "one", Ceilings(pids=1))
    program = "import os\ntry: os.fork()\nexcept BlockingIOError: os._exit(7)"
    assert run_in(group, program) == 7


def test_counts_processor_time(cgroups, installation):
    group = cgroups.make(installation, 1, "one", Ceilings(cpus=1.0))
    assert run_in(group, "import time\nwhile time.process_time() < 0.2: pass") == 0
    used = group.cpu_seconds()
    assert used is not None and used >= 0.1  # what Python took to start was not in the group yet


def test_refuses_a_name_that_leads_elsewhere(cgroups, installation):
    for bad in ("../x", "a/b", "", ".hidden"):
        with pytest.raises(ValueError, match="no name for a control group"):
            cgroups.make(installation, 1, bad, Ceilings())


def test_leaves_nothing_of_a_group_whose_ceiling_the_kernel_refuses(cgroups, installation):
    with pytest.raises(CgroupsUnfit):
        cgroups.make(installation, 1, "one", Ceilings(pids=-5))
    assert cgroups.find(installation) == []


def test_says_what_to_do_where_groups_cannot_be_made():
    nowhere = Cgroups(1, dict.fromkeys(("memory", "pids", "cpu", "cpuacct"), Path("/proc/1")))
    with pytest.raises(CgroupsUnfit, match="as root"):
        nowhere.make("x", 1, "one", Ceilings())


def test_finds_version_1_where_controllers_share_a_mount(tmp_path):
    (tmp_path / "mountinfo").write_text(V1)
    found = find_cgroups(tmp_path / "mountinfo")
    assert found.version == 1
    assert found._roots["cpuacct"] == found._roots["cpu"] == Path("/c/cpu,cpuacct")


def test_finds_version_2(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tmp_path / "mountinfo").write_text(f"30 25 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n")
    assert find_cgroups(tmp_path / "mountinfo").version == 2


def test_names_the_controller_that_is_missing(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "mountinfo").write_text(f"30 25 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n")
    with pytest.raises(CgroupsUnfit, match="no pids"):
        find_cgroups(tmp_path / "mountinfo")


def test_says_so_where_no_groups_are_mounted(tmp_path):
    (tmp_path / "mountinfo").write_text("30 25 0:26 / /sys rw - sysfs sysfs rw\n")
    with pytest.raises(CgroupsUnfit, match="no control groups are mounted"):
        find_cgroups(tmp_path / "mountinfo")


def test_writes_the_ceilings_of_version_2(tmp_path):
    group = Group("x", 1, "one", 2, dict.fromkeys(("memory", "pids", "cpu"), tmp_path))
    group.limit(Ceilings(memory_bytes=1 << 20, no_swap=True, pids=9, cpus=0.5))
    written = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert written == {
        "memory.max": "1048576",
        "memory.swap.max": "0",
        "pids.max": "9",
        "cpu.max": "50000 100000",
    }


def test_reads_the_counters_of_version_2(tmp_path):
    (tmp_path / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (tmp_path / "memory.events").write_text("oom 2\noom_kill 1\n")
    group = Group("x", 1, "one", 2, dict.fromkeys(("memory", "pids", "cpu"), tmp_path))
    assert group.cpu_seconds() == 1.5 and group.was_out_of_memory()


def test_kills_by_the_file_of_version_2(sleeper):
    if not UNIFIED.is_dir():
        pytest.skip("no version 2 tree beside version 1 here")
    folder = UNIFIED / f"toolcrib-test-{secrets.token_hex(6)}-1" / "one"
    folder.mkdir(parents=True)
    group = Group("x", 1, "one", 2, dict.fromkeys(("memory", "pids", "cpu"), folder))
    group.add(sleeper.pid)
    assert group.end() and sleeper.wait(5) == -9
    assert not folder.parent.exists()
