"""A Toolcrib whose broker is a process that may be killed, with a tool that does not end by itself.

Who is alive is read from /proc and its cgroups (tests/contracts/kernel.py): by the mark that a call's tool
carries in its arguments, and by the container ids that the engine had before anything was killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import grpc

from broker.app import Hooks
from broker.dev import DevOptions, DevStack
from broker.settings import read_settings
from tests.contracts.kernel import POLL_SECONDS, Trace, find_alive
from tests.e2e.broker_process import BrokerProcess, start_broker
from tests.e2e.caller import Reply, read_error
from tests.e2e.stack import ROOT
from toolcrib.v1 import grants_pb2, grants_pb2_grpc
from tools.catalogue import load_version
from tools.contract import Contract
from tools.source import compile_bundle

BUNDLE = ROOT / "tests" / "bundles" / "stubborn"
ANSWER, GO_ON = "stubborn.v1.Stubborn/Answer", "stubborn.v1.Stubborn/GoOn"
DEADLINE_SECONDS = 2.0
"""That of GO_ON, as its manifest says."""

GRANT = """
@id("stubborn")
permit (
    principal == Agent::"refund-desk",
    action in [Action::"stubborn.v1.Stubborn/Answer", Action::"stubborn.v1.Stubborn/GoOn"],
    resource == Environment::"dev"
);
"""
_LABEL = "toolcrib.installation"


@dataclass(frozen=True, slots=True)
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
    _contracts: Mapping[str, Contract]
    _channel: grpc.aio.Channel

    def __init__(self, state_dir: Path, cache_dir: Path, engine_url: str, more_settings: str = "") -> None:
        options = DevOptions(bundles=(BUNDLE,), tenants=("shop",), engine_url=engine_url)
        super().__init__(state_dir, cache_dir, options=options)
        self._more_settings = more_settings
        self._process = ExitStack()

    async def __aenter__(self) -> SandboxStack:
        """Start every part."""
        await super().__aenter__()
        source = compile_bundle(BUNDLE)
        version = load_version(source.descriptor_set, source.manifest_yaml, "sha256:" + "0" * 64)
        self._contracts = version.contracts
        try:
            await self._grant()
        except BaseException:
            await super().__aexit__()
            raise
        self._channel = self.profile("refund-desk").connect_async()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the broker, then its parts."""
        await self._channel.close()
        await super().__aexit__()

    def begin(self, how: str) -> Call:
        """Begin a call; its tool goes on in the named way."""
        mark = f"tool-{how.replace('_', '-')}-{secrets.token_hex(8)}"
        return Call(mark, asyncio.create_task(self._call(GO_ON, {"how": how, "mark": mark})))

    async def call(self) -> Reply:
        """Make a call that is answered."""
        return await self._call(ANSWER, {})

    async def wait_until_running(self, *calls: Call) -> None:
        """Wait until the tool of one of these calls runs; the others' follow, or are about to."""
        async with asyncio.timeout(20):
            while not find_alive(*self.trace_marks(*calls)):
                assert not all(call.task.done() for call in calls), calls[0].task.result()
                await asyncio.sleep(POLL_SECONDS)

    def list_containers(self, *, started: bool = False) -> list[str]:
        """Ask the engine which containers this installation has, or which of them were started."""
        with closing(sqlite3.connect(f"file:{self.settings.state.path}?mode=ro", uri=True)) as connection:
            (installation,) = connection.execute("SELECT id FROM installation").fetchone()
        filters = {"label": f"{_LABEL}={installation}"}
        return [found["Id"] for found in self.engine.client.containers(all=not started, filters=filters)]

    def trace(self, *calls: Call) -> list[Trace]:
        """Note by what the kernel knows the tools of these calls, then all sandboxes that there are now.

        In a container that was made and not started nothing of its image has run, nor ever will.
        """
        no_mark, started = secrets.token_hex(16), self.list_containers(started=True)
        return self.trace_marks(*calls) + [Trace(no_mark, each) for each in started]

    def trace_marks(self, *calls: Call) -> list[Trace]:
        """Note by what the kernel knows the tools of these calls."""
        return [Trace(call.mark) for call in calls]

    def kill_broker(self) -> None:
        """Kill the broker's process, and nothing else."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait_until_hit()

    async def replace_broker(self) -> None:
        """Start another broker on the state of one that was killed."""
        await self._channel.close()
        self._process.close()
        await self._start_broker(None)
        self._channel = self.profile("refund-desk").connect_async()

    async def _call(self, method: str, arguments: Mapping[str, str]) -> Reply:
        contract = self._contracts[method]
        message = contract.parse_request_json(json.dumps(arguments))
        try:
            raw = await self._channel.unary_unary(f"/{method}")(contract.canonical(message), timeout=30)
        except grpc.aio.AioRpcError as error:
            return read_error(error)
        return Reply("OK", json.loads(contract.result_json(raw)))

    async def _start_broker(self, hooks: Hooks | None) -> None:
        config = self.state_dir / "toolcrib.toml"
        self.settings = read_settings(config)
        self.process = await asyncio.to_thread(self._process.enter_context, self._run_broker(config))
        self.address = self.process.address
        assert self.address, f"the broker does not start; see the log beside {config}"

    def _run_broker(self, config: Path) -> AbstractContextManager[BrokerProcess]:
        return start_broker(config, "never", signal.SIGKILL)

    async def _stop_broker(self) -> None:
        self._process.close()

    def _configure_vault(self) -> None:
        self.vault.narrow()  # the tool needs no credential
        for tenant in self.options.tenants:
            self.vault.install_tenant_key(tenant)

    async def _grant(self) -> None:
        files = [grants_pb2.GrantFile(name="stubborn.cedar", text=GRANT)]
        async with self.profile("rob", "reviewer").connect_async() as channel:
            stub = grants_pb2_grpc.GrantsStub(channel)
            plan = await stub.PlanGrants(grants_pb2.PlanGrantsRequest(files=files))
            await stub.ApplyGrants(grants_pb2.ApplyGrantsRequest(files=files, base_digest=plan.base_digest))

    def _settings_text(self) -> str:
        text = super()._settings_text().replace("[state]\n", "[state]\nepoch_seconds = 1\n")
        return text + self._more_settings
