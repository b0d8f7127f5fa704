"""The MCP server as a process: its streams, its port, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from mcp import Client

from broker.cli import main as main_command
from tests.adapters.contract import Desk
from tests.adapters.crib import AGENT, DRAFT, LOOKUP, ORDER, REFUND_DRAFT
from tests.adapters.mcp_hosts import SERVER, Server, stdio_parameters
from tests.e2e.stack import Crib
from toolcrib.mcp.__main__ import main
from toolcrib.v1 import broker_pb2, broker_pb2_grpc

LOOK, WRITE = "shop_v1_Orders_LookupOrder", "shop_v1_Orders_CreateRefundDraft"
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}
JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def ask(name: str, arguments: dict[str, Any], number: int = 2) -> dict[str, Any]:
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


class Pipe:
    """A host that writes and reads lines itself."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def send(self, *messages: dict[str, Any] | bytes) -> None:
        assert self.process.stdin
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.process.stdin.write(line + b"\n")
        await self.process.stdin.drain()

    async def read(self) -> dict[str, Any]:
        """Read one line: each is a message."""
        assert self.process.stdout
        return dict(json.loads(await asyncio.wait_for(self.process.stdout.readline(), 60)))

    async def begin(self) -> None:
        await self.send(HELLO, READY)
        assert (await self.read())["result"]["serverInfo"]["name"] == "toolcrib"

    async def end(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 60)


@pytest.fixture
async def pipe(profile_folder: Path) -> AsyncIterator[Pipe]:
    command = [sys.executable, *SERVER, "--profile", str(profile_folder)]
    piped = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=piped, stdout=piped, stderr=piped)
    yield Pipe(process)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.communicate()


@pytest.fixture(scope="module")
def server(scripted_crib: Crib, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    profile = scripted_crib.profile(AGENT).cert_path.parent
    server = Server(profile, tmp_path_factory.mktemp("server") / "token")
    yield server
    server.stop()


async def until(script: Any, count: int) -> None:
    """Wait until so many tools run."""
    while len(script.runs) < count:
        await asyncio.sleep(0.01)


async def test_goes_on_after_lines_that_are_no_messages(pipe: Pipe) -> None:
    await pipe.begin()
    await pipe.send(
        b"", b"{", b"[]", b"\xff\xfe", b"x" * 5_000_000, b'{"jsonrpc": "1.0"}', ask("nothing", {})
    )
    answer = await pipe.read()
    assert answer["id"] == 2 and answer["error"]["code"] == -32602


async def test_ends_when_stdin_closes_before_a_word(pipe: Pipe) -> None:
    assert pipe.process.stdin
    pipe.process.stdin.close()
    assert await pipe.end() == 0


async def test_ends_on_a_signal_while_a_call_runs(pipe: Pipe, desk: Desk) -> None:
    go_on = desk.script.stall()
    await pipe.begin()
    await pipe.send(ask(LOOK, ORDER))
    await until(desk.script, 1)
    pipe.process.send_signal(signal.SIGTERM)
    assert await pipe.end() == 0
    go_on()
    assert pipe.process.stderr
    assert b"Traceback" not in await pipe.process.stderr.read()


async def test_ends_when_the_host_reads_no_more(pipe: Pipe) -> None:
    await pipe.begin()
    transport = pipe.process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
    transport.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for number in range(50):
            await pipe.send(ask("nothing", {}, number))
            await asyncio.sleep(0.01)
    assert await pipe.end() == 0


async def test_finishes_a_write_whose_host_has_gone_away(pipe: Pipe, desk: Desk) -> None:
    go_on = desk.script.stall()
    before = await list_writes(desk)
    await pipe.begin()
    await pipe.send(ask(WRITE, REFUND_DRAFT))
    await until(desk.script, 1)
    assert pipe.process.stdin
    pipe.process.stdin.close()
    assert await pipe.end() == 0
    go_on()
    while await state_of(desk, before) != broker_pb2.SUCCEEDED:
        await asyncio.sleep(0.05)
    assert desk.script.count(DRAFT) == 1


async def list_writes(desk: Desk) -> dict[str, int]:
    """The agent's writes at the broker, by call, and their states."""
    request = broker_pb2.ListCallsRequest(tool=DRAFT)
    listed = await broker_pb2_grpc.BrokerStub(desk.client.channel).ListCalls(request)
    return {call.call_id: call.state for call in listed.calls}


async def state_of(desk: Desk, before: dict[str, int]) -> int:
    """The state of the one write that was made since."""
    (state,) = [state for call, state in (await list_writes(desk)).items() if call not in before]
    return state


async def post(url: str, body: Any, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=30) as http:
        return await http.post(url, content=json.dumps(body), headers={**JSON, **headers})


def by(server: Server) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.token}"}


async def test_refuses_strangers_at_its_port(server: Server) -> None:
    """Each of these would be the agent. The last one is the control: with all of it in order, one is."""
    evil = {"Host": "evil.example", **by(server)}
    page = {"Origin": "http://evil.example", **by(server)}
    requests: list[dict[str, str]] = [{}, {"Authorization": "Bearer wrong"}, evil, page, by(server)]
    answers = [await post(server.url, HELLO, **headers) for headers in requests]
    assert [answer.status_code for answer in answers] == [401, 401, 421, 403, 200]


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("path", ["/mcp", "/", "/docs"])
async def test_refuses_strangers_in_every_way(server: Server, method: str, path: str) -> None:
    async with httpx2.AsyncClient() as http:
        answer = await http.request(method, server.url.removesuffix("/mcp") + path)
    assert answer.status_code == 401


async def test_shows_the_token_nowhere(profile_folder: Path, tmp_path: Path) -> None:
    server = Server(profile_folder, tmp_path / "token")
    await post(server.url, HELLO, **by(server))
    await post(server.url, HELLO, Authorization="Bearer wrong")
    token = server.token
    server.process.terminate()
    out, _ = server.process.communicate(timeout=20)
    assert token not in server.said + out
    assert out == ""
    assert server.process.returncode == 0


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_makes_one_write_for_a_host_that_disconnects(server: Server, desk: Desk, mode: str) -> None:
    """The connection breaks while the write runs; the host connects again, and its model asks again."""
    go_on = desk.script.stall()
    async with server.connect(mode) as client:
        asking = asyncio.create_task(client.call_tool(WRITE, REFUND_DRAFT))
        await until(desk.script, 1)
        asking.cancel()
        await asyncio.wait({asking})
    async with server.connect(mode) as client:
        asking = asyncio.create_task(client.call_tool(WRITE, REFUND_DRAFT))
        await asyncio.sleep(0.1)
        go_on()
        result = await asking
    assert not result.is_error, result
    assert desk.script.count(DRAFT) == 1


async def test_checks_the_structure_of_a_read(profile_folder: Path, desk: Desk) -> None:
    """The SDK's client refuses a result that is at odds with the output schema."""
    async with Client(stdio_parameters(profile_folder, "--tools", LOOKUP)) as client:
        listed = await client.list_tools()
        assert listed.tools[0].output_schema
        result = await client.call_tool(LOOK, ORDER)
    assert result.structured_content["result"]["order"]["orderId"] == "A-1042"
    assert result.meta and "untrusted" in result.meta["toolcrib/labels"]


def run(*options: str, program: Sequence[str] = ("-m", "toolcrib.mcp")) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", *program, *options]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )


def test_is_the_same_server_as_a_command(profile_folder: Path) -> None:
    command = ("-c", "from broker.cli import main; main()", "mcp", "--profile", str(profile_folder))
    served = run(program=command)
    options = ["mcp", "--profile", str(profile_folder), "--transport", "http", "--listen", "0.0.0.0:0"]
    remote = CliRunner().invoke(main_command, options)
    assert (served.returncode, served.stdout, served.stderr) == (0, "", "")
    assert remote.exit_code == 2 and "--allow-remote" in remote.output


def test_says_what_is_wrong_with_its_options(
    profile_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--profile", str(profile_folder), "--transport", "http", "--listen", "0.0.0.0:0"]) == 2
    assert "--allow-remote" in capsys.readouterr().err
    assert main(["--profile", str(tmp_path / "nobody")]) == 2
    said = capsys.readouterr()
    assert "no such profile" in said.err and not said.out


def test_says_what_is_wrong_with_a_profile(tmp_path: Path) -> None:
    empty = run("--profile", str(tmp_path))
    assert (empty.returncode, empty.stdout) == (2, "")
    assert "profile.toml" in empty.stderr and "Traceback" not in empty.stderr


def test_says_what_is_missing_when_the_extra_is(profile_folder: Path) -> None:
    without = (
        "import sys; sys.modules['mcp'] = None; from toolcrib.mcp.__main__ import main; sys.exit(main())"
    )
    ended = run("--profile", str(profile_folder), program=("-c", without))
    assert ended.returncode == 2
    assert "pip install 'toolcrib[mcp]'" in ended.stderr and "Traceback" not in ended.stderr


def test_says_that_no_broker_answers(profile_folder: Path, tmp_path: Path) -> None:
    for file in profile_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "profile.toml").write_text(
        (profile_folder / "profile.toml").read_text().replace('address = "', 'address = "127.0.0.1:1" # "')
    )
    ended = run("--profile", str(tmp_path), "--timeout", "1")
    assert ended.returncode == 4, ended.stderr
    assert "cannot be reached" in ended.stderr and "Traceback" not in ended.stderr
