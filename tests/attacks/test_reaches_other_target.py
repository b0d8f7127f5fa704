"""Attack: a tool tries to leave its sandbox by a socket that is not its own.

The tool here is a process with the egress folder as its only view of the file system, mounted as a container
gets it, under the container's user id and without rights. Each attack succeeds where the measure is missing.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxes.egress.process import Egress, EgressProcess
from tests.sandboxes.egress.conftest import OPENINGS, listening, open_way_out, running

UID, OTHER_UID = 123_456, 123_457
MINE = "/run/toolcrib/orders-db/.s.PGSQL.5432"

TOOL = (
    f"""
OPENING = {OPENINGS["postgresql"]!r}
"""
    + """
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
folder, root, uid, read_only = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "ro"
def mount(source, target, flags):
    if libc.mount(source.encode(), target.encode(), None, flags, None):
        raise OSError(ctypes.get_errno(), "mount")
BIND, RECURSIVE, PRIVATE, REMOUNT, READ_ONLY, NEW_NAMESPACE = 4096, 16384, 1 << 18, 32, 1, 0x20000
if libc.unshare(NEW_NAMESPACE):
    raise OSError(ctypes.get_errno(), "unshare")
mount("none", "/", RECURSIVE | PRIVATE)
os.makedirs(root + "/run/toolcrib")
mount(folder, root + "/run/toolcrib", BIND)
if read_only:
    mount("none", root + "/run/toolcrib", BIND | REMOUNT | READ_ONLY)
os.chroot(root)
os.chdir("/")
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
def connect(path):
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(5)
        door.connect(path)
        door.sendall(OPENING + b"let me out")
        return "out" if door.recv(100) == b"let me out" else "ended"
def replace(path):
    os.unlink(path)
    socket.socket(socket.AF_UNIX).bind(path)
    return "replaced"
print("ready", flush=True)
for line in sys.stdin:
    verb, path = line.split()
    try:
        print({"connect": connect, "replace": replace}[verb](path), flush=True)
    except OSError as error:
        print(errno.errorcode.get(error.errno, repr(error)), flush=True)
"""
)


@dataclass
class Tool:
    """A hostile program in its sandbox; it does as it is told and says what came of it."""

    process: asyncio.subprocess.Process

    async def tries(self, verb: str, path: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{verb} {path}\n".encode())
        return (await self.process.stdout.readline()).decode().strip()


@asynccontextmanager
async def sandboxed(folder: Path, uid: int = UID, mode: str = "ro") -> AsyncIterator[Tool]:
    with tempfile.TemporaryDirectory(prefix="tc-root-") as root:
        Path(root).chmod(0o755)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", TOOL, str(folder), root, str(uid), mode,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        try:
            yield Tool(process)
        finally:
            process.stdin.close()
            await process.wait()


@pytest.fixture
async def process() -> AsyncIterator[EgressProcess]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tc-"))
        orders = await stack.enter_async_context(listening("orders-db"))
        payroll = await stack.enter_async_context(listening("payroll-db"))
        yield await stack.enter_async_context(running(Path(folder), orders, payroll))


@pytest.fixture
async def egress(process: EgressProcess) -> AsyncIterator[Egress]:
    async with open_way_out(process, "call-1", UID, ["orders-db"]) as opened:
        yield opened


async def test_reaches_its_own_target(egress: Egress) -> None:
    async with sandboxed(egress.socket_dir) as tool:
        assert await tool.tries("connect", MINE) == "out"


async def test_does_not_reach_a_declared_target_that_its_call_was_not_opened_for(
    process: EgressProcess, egress: Egress
) -> None:
    theirs = "/run/toolcrib/payroll-db/.s.PGSQL.5432"
    async with (
        open_way_out(process, "control", UID, ["orders-db", "payroll-db"]) as control,
        sandboxed(control.socket_dir) as tool,
    ):
        assert await tool.tries("connect", theirs) == "out"
    async with sandboxed(egress.socket_dir) as tool:
        assert await tool.tries("connect", theirs) == "ENOENT"


async def test_does_not_reach_by_a_socket_of_another_user(egress: Egress) -> None:
    async with sandboxed(egress.socket_dir, UID) as tool:
        assert await tool.tries("connect", MINE) == "out"
    async with sandboxed(egress.socket_dir, OTHER_UID) as tool:
        assert await tool.tries("connect", MINE) == "EACCES"


async def test_does_not_see_the_sockets_of_another_call(process: EgressProcess, egress: Egress) -> None:
    async with open_way_out(process, "call-2", UID, ["payroll-db"]) as other:
        name = other.nest.name
        other.socket_dir.parent.chmod(0o711)
        async with sandboxed(
            other.socket_dir.parent
        ) as tool:  # the whole folder mounted instead of the call's
            assert await tool.tries("connect", f"/run/toolcrib/{name}/payroll-db/.s.PGSQL.5432") == "out"
        async with sandboxed(egress.socket_dir) as tool:
            for path in (f"../{name}", name, f"../../{name}", f"orders-db/../../{name}"):
                whole = f"/run/toolcrib/{path}/payroll-db/.s.PGSQL.5432"
                assert await tool.tries("connect", whole) == "ENOENT"


async def test_does_not_reach_anything_after_its_call(process: EgressProcess) -> None:
    async with AsyncExitStack() as stack:
        async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
            tool = await stack.enter_async_context(sandboxed(egress.socket_dir))
            assert await tool.tries("connect", MINE) == "out"
        assert await tool.tries("connect", MINE) == "ENOENT"
        async with open_way_out(process, "call-1", UID, ["orders-db"]):  # not even when the name comes again
            assert await tool.tries("connect", MINE) == "ENOENT"


async def test_does_not_put_a_socket_of_its_own_in_the_place(egress: Egress) -> None:
    async with sandboxed(egress.socket_dir) as tool:
        assert await tool.tries("replace", MINE) == "EROFS"
    async with sandboxed(egress.socket_dir, mode="rw") as tool:  # were it not mounted read-only
        assert await tool.tries("replace", MINE) == "EACCES"
    (egress.socket_dir / "orders-db").chmod(0o777)  # and were the folder not root's
    async with sandboxed(egress.socket_dir, mode="rw") as tool:
        assert await tool.tries("replace", MINE) == "replaced"


async def test_does_not_reach_it_from_the_host_as_an_ordinary_user(egress: Egress) -> None:
    run_dir = egress.socket_dir.parent.parent
    run_dir.chmod(0o711)
    path = f"/run/toolcrib/egress/{egress.nest.name}/orders-db/.s.PGSQL.5432"
    async with sandboxed(run_dir, UID) as tool:
        assert await tool.tries("connect", path) == "EACCES"
        egress.socket_dir.parent.chmod(0o711)
        assert await tool.tries("connect", path) == "out"
