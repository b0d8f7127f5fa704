"""Proof that a driver keeps its promises here and now: one sandbox is made, called, looked at and ended.

It trusts nothing that anybody says of an engine or a runtime: a program inside tries what it must not be able
to do, and whether it reaches the one socket that it must be able to reach. The program runs on the base image
and speaks frames like any handler.

    ProofFailed          a promise is not kept; says which, and what to do
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sandboxes.outcome import OutcomeKind, SandboxError, SandboxSpec, refuse_to_sign
from sandboxes.sandbox import Driver
from toolcrib.handler.v1 import handler_pb2

METHOD = "toolcrib.proof.v1.Proof/Look"
PATIENCE_SECONDS = 30.0

_SOCKET = "proof.sock"
_WORD = b"reached"
_GVISOR_REMEDY = 'give runsc the arguments that docs/runtimes.md lists ("runtimeArgs" in daemon.json)'
_ENGINE_REMEDY = "use an engine that docs/runtimes.md describes"

# What it finds out is told as text: attempts by the name of the error that stopped them, "" for none.
_PROGRAM = """
import ctypes, errno, json, os, socket
from toolcrib.handler import Handler
from toolcrib.handler.v1 import handler_pb2

handler = Handler()

def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return ""

def reach(family, address):
    with socket.socket(family) as connection:
        connection.settimeout(3)
        connection.connect(address)
        return connection.recv(16)

def unshare():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")

@handler.tool("toolcrib.proof.v1.Proof/Look", handler_pb2.Progress)
def look(request, context):
    port = int(request.message)
    return handler_pb2.Progress(message=json.dumps({
        "uid": os.getuid(),
        "kernel": os.uname().release,
        "nest": attempt(lambda: reach(socket.AF_UNIX, "/run/toolcrib/proof.sock")),
        "host": attempt(lambda: reach(socket.AF_INET, ("127.0.0.1", port))),
        "network": attempt(lambda: reach(socket.AF_INET, ("192.0.2.1", 53))),
        "root": attempt(lambda: open("/opt/toolcrib/proof", "w")),
        "vsock": attempt(lambda: socket.socket(40)),
        "namespace": attempt(unshare),
    }))

handler.run()
"""


class ProofFailed(SandboxError):
    """A promise is not kept.

    Attributes:
        remedy: What to do.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class ProofLimits:
    """Limits of the one sandbox; the fields are those of a manifest."""

    memory_mib: int = 96
    pids: int = 16
    cpus: float = 1.0
    tmp_mib: int = 4
    output_kib: int = 64
    log_kib: int = 16
    artefacts: int = 0
    artefact_kib: int = 0


@dataclass(frozen=True, slots=True)
class Proof:
    """What was seen of a driver that keeps its promises.

    Attributes:
        ready_seconds: Until the sandbox was made and its handler loaded.
        call_seconds: From the request to the result.
        gone_seconds: Until its end was confirmed.
        kernel: The release that the handler sees; gVisor shows its own.
    """

    ready_seconds: float
    call_seconds: float
    gone_seconds: float
    kernel: str


async def prove(driver: Driver, image_id: str, *, own_kernel: bool = False) -> Proof:
    """Make a sandbox, call it once, look at it from inside, end it, and see that it is gone.

    Args:
        driver: Made for an installation of its own; nothing else may be using that.
        image_id: A base image of this version.
        own_kernel: Whether the runtime is one that shows a kernel of its own.

    Raises:
        ProofFailed: A promise is not kept.
        SandboxError: It could not even be made; says why.
    """
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), _nest(driver.allocate_uid()) as (folder, uid, port):
            spec = SandboxSpec(image_id, ("python3", "-c", _PROGRAM), ProofLimits(), folder, uid)
            proof, seen = await _look(driver, spec, port)
            left = await driver.leftovers()
    except TimeoutError as error:
        raise ProofFailed(f"no answer within {PATIENCE_SECONDS:g} s", _ENGINE_REMEDY) from error
    if left:
        raise ProofFailed(f"its sandbox is still there: {', '.join(left)}", _ENGINE_REMEDY)
    _check(seen, uid, own_kernel)
    return proof


@asynccontextmanager
async def _nest(uid: int) -> AsyncIterator[tuple[Path, int, int]]:
    """Open what the sandbox must reach, a socket in its folder, and what it must not: the host's loopback."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(_WORD)
            await writer.drain()
        writer.close()

    with tempfile.TemporaryDirectory(prefix="toolcrib-proof-") as name:
        folder = Path(name)
        await asyncio.to_thread(folder.chmod, 0o711)
        inside = await asyncio.start_unix_server(greet, folder / _SOCKET)
        os.chown(folder / _SOCKET, uid, uid)
        outside = await asyncio.start_server(greet, "127.0.0.1", 0, family=socket.AF_INET)
        try:
            yield folder, uid, outside.sockets[0].getsockname()[1]
        finally:
            for server in (inside, outside):
                server.close()
                await server.wait_closed()


async def _look(driver: Driver, spec: SandboxSpec, port: int) -> tuple[Proof, dict[str, object]]:
    begun = time.monotonic()
    async with driver.create(spec, "proof") as sandbox:
        await sandbox.warm_up(PATIENCE_SECONDS)
        ready = time.monotonic()
        request = handler_pb2.Progress(message=str(port)).SerializeToString()
        start = handler_pb2.Start(protocol_version=1, method=METHOD, request=request)
        outcome = await sandbox.run(start, PATIENCE_SECONDS / 2, refuse_to_sign)
        answered = time.monotonic()
        used_seconds = sandbox.cpu_seconds()
    if not used_seconds:  # a sandbox outside its control groups has no limits, and no reaper finds it
        raise ProofFailed("its sandbox is not in its control groups: no limit holds", _GVISOR_REMEDY)
    if outcome.kind is not OutcomeKind.RESULT:
        said = f"{outcome.detail} {outcome.log}".strip()[:300]
        raise ProofFailed(f"its sandbox gave no result ({outcome.kind}): {said}", _ENGINE_REMEDY)
    if sandbox.gone is None:
        raise ProofFailed("the end of its sandbox is not confirmed", _ENGINE_REMEDY)
    seen = json.loads(handler_pb2.Progress.FromString(outcome.response).message)
    gone = time.monotonic() - answered
    return Proof(ready - begun, answered - ready, gone, str(seen["kernel"])), seen


def _check(seen: dict[str, object], uid: int, own_kernel: bool) -> None:
    if seen["uid"] != uid:
        raise ProofFailed(f"its sandbox runs as user {seen['uid']}, not {uid}", _ENGINE_REMEDY)
    if seen["nest"]:
        raise ProofFailed(
            f"its sandbox cannot reach the sockets of its targets ({seen['nest']})",
            _GVISOR_REMEDY if own_kernel else _ENGINE_REMEDY,
        )
    for name, what in (
        ("host", "reaches the host's loopback"),
        ("network", "has a network"),
        ("root", "can change its image"),
        ("vsock", "may open AF_VSOCK: the system call filter is not in force"),
        ("namespace", "may make user namespaces: the system call filter is not in force"),
    ):
        if not seen[name] or (name == "network" and seen[name] == "ETIMEDOUT"):
            raise ProofFailed(f"its sandbox {what}", _GVISOR_REMEDY if own_kernel else _ENGINE_REMEDY)
    if own_kernel and seen["kernel"] == os.uname().release:
        raise ProofFailed("its sandbox sees the host's kernel: the runtime is not gVisor", _GVISOR_REMEDY)
