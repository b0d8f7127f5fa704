"""An agent as its own process: commands in, outcomes out, one JSON object a line.

The process gets a certificate, its key, the CA, generated code and an address; its environment is empty.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.client_view import write_proto_sources

ROOT = Path(__file__).resolve().parents[2]
AGENTS = ROOT / "tests" / "e2e" / "agents"
_ANSWER_SECONDS = 60.0
_END_SECONDS = 5.0
# One line carries a whole answer and, when asked for, its bytes in hex.
_LINE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Identity:
    """The files of one party; without certificate and key it is nobody."""

    ca_path: Path
    cert_path: Path | None
    key_path: Path | None


class AgentFailed(Exception):
    """The agent's program ended or wrote something that is no answer."""


@dataclass(frozen=True)
class Outcome:
    """What became of one call, as the agent saw it."""

    step: str
    method: str
    code: str
    millis: float
    reason: str = ""
    message: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    violations: Sequence[Mapping[str, str]] = ()
    retry_after_seconds: float | None = None
    reason_metadata: Mapping[str, str] = field(default_factory=dict)
    trailers: Mapping[str, str] = field(default_factory=dict)
    wire: Mapping[str, str] = field(default_factory=dict)
    domain: str = ""

    @property
    def call_id(self) -> str:
        """The call's id; empty when the broker never saw the call."""
        return self.trailers.get("toolcrib-call-id", "")

    @property
    def is_replayed(self) -> bool:
        """True when an earlier call with the same key made this answer."""
        return self.trailers.get("toolcrib-replayed") == "true"


class AgentProcess:
    """A running agent; `open_agent` starts and ends it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def call(self, name: str, request: Mapping[str, Any], **more: Any) -> Outcome:
        """Let the agent call a method of its service; `more` as in the agent's command language.

        Raises:
            AgentFailed: The agent's program failed.
        """
        return Outcome(**await self.ask({"call": name, "request": request, **more}))

    async def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send one command and wait for its answer.

        Raises:
            AgentFailed: The agent's program failed.
        """
        writer, reader = self._process.stdin, self._process.stdout
        assert writer is not None and reader is not None, "the process was started with pipes"
        try:
            writer.write(json.dumps(command).encode() + b"\n")
            await writer.drain()
            line = await asyncio.wait_for(reader.readline(), _ANSWER_SECONDS)
            answer: dict[str, Any] = json.loads(line)
        except (OSError, TimeoutError, ValueError) as error:
            raise AgentFailed(f"the agent gave no answer to {sorted(command)}: {error!r}") from error
        return answer

    async def end(self) -> None:
        """Close its input, which ends it; kill it when that is not enough."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _END_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def kill(self) -> None:
        """Kill it, as if its machine went away."""
        self._process.kill()
        await self._process.wait()


def python_command() -> tuple[str, ...]:
    """Start the Python agent, isolated from our packages' folders and from the environment."""
    return (sys.executable, "-I", str(AGENTS / "python_agent.py"))


def node_command() -> tuple[str, ...]:
    """Start the Node agent."""
    return (_find("node"), str(AGENTS / "node_agent" / "agent.js"))


@asynccontextmanager
async def open_agent(
    command: Sequence[str],
    address: str,
    identity: Identity,
    generated: Path,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[AgentProcess]:
    """Run an agent's program for as long as the block lasts.

    Args:
        command: Program and first arguments.
        address: The broker's host:port.
        identity: Whose certificate it gets.
        generated: What `generate_code` wrote: its `python/` for Python, its `proto/` for Node.
        environment: The whole environment of the process; empty when not given.
    """
    arguments = ["--address", address, "--ca", str(identity.ca_path), "--generated", str(generated)]
    if identity.cert_path is not None and identity.key_path is not None:
        arguments += ["--cert", str(identity.cert_path), "--key", str(identity.key_path)]
    process = await asyncio.create_subprocess_exec(
        *command,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=dict(environment or {}),
        limit=_LINE_BYTES,
    )
    agent = AgentProcess(process)
    try:
        yield agent
    finally:
        await agent.end()


def _find(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise AgentFailed(f"{program} is not installed")
    return path


async def generate_code(client_descriptor_set: bytes, folder: Path) -> Path:
    """Write the exported client view as .proto files, and the code that protoc generates from it.

    Args:
        client_descriptor_set: What DescribeTool answers and `toolcrib tools export` writes.
        folder: Gets `proto/` (for any language) and `python/`.

    Returns:
        `folder`.
    """
    sources, python = folder / "proto", folder / "python"
    for each in (sources, python):
        each.mkdir(parents=True, exist_ok=True)
    write_proto_sources(client_descriptor_set, sources)
    # google.protobuf comes with every protobuf runtime.
    names = sorted(str(path.relative_to(sources)) for path in sources.rglob("*.proto"))
    files = [name for name in names if not name.startswith("google/protobuf/")]
    compiler = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "grpc_tools.protoc", f"-I{sources}"),
        *(f"--python_out={python}", f"--grpc_python_out={python}", *files),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await compiler.communicate()
    if compiler.returncode:
        raise AgentFailed(f"protoc refused the exported client view: {errors.decode()}")
    return folder
