"""A Toolcrib whose broker is a process that may be killed, with a tool that does not end by itself.

Who is alive is read from /proc and its cgroups (tests/contracts/kernel.py): by the mark that a call's tool
carries in its arguments, and by the container ids that the engine had before it was killed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from broker.dev import DevOptions, DevStack
from broker.settings import read_settings
from sandboxes.engine import Engine, Folders, PrivateEngine, start_engine
from tests.contracts.kernel import POLL_SECONDS, Trace, find_alive
from tests.e2e.broker_process import BrokerProcess, start_broker
from tests.e2e.caller import Reply, read_error
from tests.e2e.stack import ROOT
from toolcrib.v1 import grants_pb2, grants_pb2_grpc
from tools.catalogue import load_version
from tools.source import compile_bundle

BUNDLE = ROOT / "tests" / "bundles" / "stubborn"
RUN = "stubborn.v1.Stubborn/Run"
DEADLINE_SECONDS = 2.0
GRANTS = """
@id("stubborn")
permit (
    principal == Agent::"refund-desk",
    action == Action::"stubborn.v1.Stubborn/Run",
    resource == Environment::"dev"
);
"""
_LABEL = "toolcrib.installation"


@dataclass
class Call:
    """One call of the stubborn tool, begun."""

    mark: str
    task: asyncio.Task[Reply]


class SandboxStack(DevStack):
    """The parts in this process, the broker in one of its own.

    Attributes:
        process: The broker.
    """

    process: BrokerProcess

    def __init__(self, state_dir: Path, cache_dir: Path, engine_url: str, more_settings: str = "") -> None:
        options = DevOptions(bundles=(BUNDLE,), tenants=("shop",), engine_url=engine_url)
        super().__init__(state_dir, cache_dir, options=options)
        self._more_settings = more_settings
        self._brokers = AsyncExitStack()
        self._channel: grpc.aio.Channel

    async def __aenter__(self) -> SandboxStack:
        """Start every part."""
        await super().__aenter__()
        source = compile_bundle(BUNDLE)
        version = load_version(source.descriptor_set, source.manifest_yaml, "sha256:" + "0" * 64)
        self._contract = version.contracts[RUN]
        self._installation = self._read_installation()
        await self._grant()
        await self.broker.__aexit__(None, None, None)
        await self._spawn_broker()
        return self

    def begin(self, how: str) -> Call:
        """Begin a call; its tool goes on in the named way."""
        mark = f"tool-{how.replace('_', '-')}-{secrets.token_hex(8)}"
        return Call(mark, asyncio.create_task(self._call(how, mark)))

    async def call(self, how: str = "fine") -> Reply:
        """Make a call."""
        return await self.begin(how).task

    async def wait_until_running(self, *calls: Call) -> None:
        """Wait until the tools of all these calls run."""
        async with asyncio.timeout(20):
            while not all(find_alive(Trace(call.mark)) for call in calls):
                for call in calls:
                    assert not call.task.done(), call.task.result()
                await asyncio.sleep(POLL_SECONDS)

    def list_containers(self) -> list[str]:
        """Ask the engine which containers this installation has."""
        filters = {"label": f"{_LABEL}={self._installation}"}
        return [found["Id"] for found in self.engine.client.containers(all=True, filters=filters)]

    def traces(self, *calls: Call) -> list[Trace]:
        """By what the kernel knows whatever runs for these calls, and all that waits."""
        mark = secrets.token_hex(16)  # matches nothing: those are known by their cgroup
        return [Trace(call.mark) for call in calls] + [Trace(mark, each) for each in self.list_containers()]

    def kill_broker(self) -> None:
        """Kill the broker's process, and nothing else."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait_until_hit()

    async def replace_broker(self) -> None:
        """Start another broker on the same state."""
        await self._channel.close()
        await self._brokers.aclose()
        await self._spawn_broker()

    async def _call(self, how: str, mark: str) -> Reply:
        request = self._contract.canonical(
            self._contract.parse_request_json(f'{{"how": "{how}", "mark": "{mark}"}}')
        )
        try:
            raw = await self._channel.unary_unary(f"/{RUN}")(request, timeout=30)
        except grpc.aio.AioRpcError as error:
            return read_error(error)
        result: dict[str, Any] = dict(self._contract.parse_result(raw)) if False else _read_result(raw)
        return Reply("OK", result)

    async def _spawn_broker(self) -> None:
        self.process = self._brokers.enter_context(
            start_broker(self.state_dir / "toolcrib.toml", "never", signal.SIGKILL)
        )
        self.address = self.process.address
        self._channel = self.profile("refund-desk").connect_async()

    async def _stop_broker(self) -> None:
        await self._channel.close()
        await self._brokers.aclose()

    async def _grant(self) -> None:
        files = [grants_pb2.GrantFile(name="stubborn.cedar", text=GRANTS)]
        async with self.profile("rob", "reviewer").connect_async() as channel:
            stub = grants_pb2_grpc.GrantsStub(channel)
            plan = await stub.PlanGrants(grants_pb2.PlanGrantsRequest(files=files))
            await stub.ApplyGrants(grants_pb2.ApplyGrantsRequest(files=files, base_digest=plan.base_digest))

    def _read_installation(self) -> str:
        return self.broker.store.epoch.installation

    def _settings_text(self) -> str:
        text = super()._settings_text().replace("[state]\n", "[state]\nepoch_seconds = 1\n")
        return text + self._more_settings
