"""The proxy's socket on the loopback of another network namespace."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxes.container_init import PROXY
from sandboxes.inner_door import open_inner_door
from sandboxes.nests import Nests
from tests.parts.bubblewrap import BubblewrapTool

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it enters network namespaces")

LONG = bool(os.environ.get("TOOLCRIB_LONG"))
CONNECT = f"import socket; print(socket.create_connection({PROXY}, 20).recv(9))"
OPEN = """
import os
from sandboxes.inner_door import open_inner_door
print(open_inner_door(int(os.environ["P"])))
"""


@contextmanager
def other_network(*unshare: str) -> Iterator[int]:
    """Give a pidfd of a process that has a network of its own, with its loopback up."""
    work = "ip link set lo up && echo up && exec cat"
    command = [*(unshare or ("unshare", "--net")), "sh", "-c", work]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        descriptor = os.pidfd_open(process.pid)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            process.kill()


def pid_of(descriptor: int) -> str:
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("Pid:"))


def networks() -> set[str]:
    """Where the threads of this process are; one that ended a moment ago may still be there."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str((task / "ns" / "net").readlink()))
    return found


def settled_networks(patience_seconds: float = 20.0) -> set[str]:
    """The same, once they are all in one."""
    until = time.monotonic() + patience_seconds
    while len(found := networks()) > 1 and time.monotonic() < until:
        time.sleep(0.001)
    return found


def count_descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_takes_connections_of_the_other_network() -> None:
    with other_network() as process, open_inner_door(process) or pytest.fail("none was made") as door:
        assert door.getsockname() == PROXY
        door.setblocking(True)
        command = ["nsenter", "-t", pid_of(process), "-n", sys.executable, "-c", CONNECT]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
            accepted, _ = door.accept()
            with accepted:
                accepted.sendall(b"welcome")
            assert client.communicate()[0] == b"b'welcome'\n"


def test_is_not_there_for_our_own_network() -> None:
    with other_network() as process, open_inner_door(process) or pytest.fail("none was made"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(PROXY, 20)


def test_leaves_every_thread_where_it_was() -> None:
    own = {str(Path("/proc/self/ns/net").readlink())}
    assert networks() == own
    with other_network() as process, open_inner_door(process) or pytest.fail("none was made"):
        assert settled_networks() == own


def test_makes_none_in_the_network_of_the_broker() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as ours:
        process = os.pidfd_open(ours.pid)
        assert open_inner_door(process) is None
        os.close(process)
        ours.kill()


def test_makes_none_where_the_place_is_taken() -> None:
    with other_network() as process, open_inner_door(process) or pytest.fail("none was made"):
        assert open_inner_door(process) is None


def test_makes_none_of_a_process_that_has_ended() -> None:
    with subprocess.Popen(["true"]) as ended:
        process = os.pidfd_open(ended.pid)
    assert open_inner_door(process) is None
    os.close(process)


def test_makes_none_without_the_right_to_enter() -> None:
    with other_network() as process:
        command = ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-P", "-c", OPEN]
        environment = {"P": str(process), "PYTHONPATH": str(Path(__file__).parents[2])}
        said = subprocess.check_output(command, env=environment, pass_fds=(process,), text=True)
    assert said == "None\n"


def test_keeps_no_descriptor_of_a_thousand() -> None:
    with other_network() as process:
        before = count_descriptors()
        for _ in range(1_000):
            door = open_inner_door(process)
            assert door is not None
            door.close()
        assert count_descriptors() == before


async def test_is_closed_with_a_container_that_no_call_took(
    bubblewrap_tool: BubblewrapTool, tmp_path: Path
) -> None:
    """TOOLCRIB_LONG=1 makes 1,000 containers, instead of 10."""
    nests, before = Nests(tmp_path), 0
    for number in range(1_000 if LONG else 10):
        async with AsyncExitStack() as stack:
            spec = bubblewrap_tool.spec()
            nest = stack.enter_context(nests.make(spec.uid))
            spec = replace(spec, socket_dir=nest.folder, has_proxy=True, take_door=nest.keep_door)
            await stack.enter_async_context(bubblewrap_tool.driver.create(spec, "warm"))
            door = nest.take_door()
            assert door is not None
            nest.keep_door(door)
        before = before or count_descriptors()  # the first makes what the driver keeps
        assert count_descriptors() == before, f"after {number}"


async def test_is_given_once_by_a_nest(tmp_path: Path) -> None:
    with socket.socket() as door, Nests(tmp_path).make(os.getuid()) as nest:
        nest.keep_door(door)
        assert (nest.take_door(), nest.take_door()) == (door, None)


async def test_is_closed_by_a_nest_that_ends(tmp_path: Path) -> None:
    door = socket.socket()
    with Nests(tmp_path).make(os.getuid()) as nest:
        nest.keep_door(door)
    assert door.fileno() == -1
