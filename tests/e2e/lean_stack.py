"""A Toolcrib without an engine: real OpenBao, PostgreSQL, broker and channel; a tool is a function of ours.

For tests that need a thousand calls and no sandbox. Nothing is contained: an `UnsandboxedTool` runs in the
broker.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from broker.app import Hooks
from broker.dev import DATABASE, DevOptions, DevStack
from credentials.dev_postgres import DevPostgres
from credentials.dev_vault import DevVault
from sandboxes.engine import Engine
from sandboxes.outcome import AnswerSign, OutcomeKind, RawOutcome, SandboxSpec
from tests.e2e.stack import SHOP, CribThread
from toolcrib.handler.v1 import handler_pb2
from toolcrib.v1 import registry_pb2, registry_pb2_grpc
from tools.source import compile_bundle

IMAGE = "sha256:" + "0" * 64
LOOK_UP = "SELECT order_id FROM public.orders LIMIT 1"

Tool = Callable[[handler_pb2.Start], Awaitable[bytes]]


class UnsandboxedTool:
    """Runs a tool as a coroutine; looks like a container to the broker."""

    image_id = IMAGE

    def __init__(self, tool: Tool, uid: int) -> None:
        self._tool, self.uid = tool, uid
        self.container_id = uuid.uuid4().hex
        self.made = datetime.now(UTC)
        self.gone: datetime | None = None

    async def run(
        self, start: handler_pb2.Start, _deadline_seconds: float, _answer: AnswerSign
    ) -> RawOutcome:
        """Run it."""
        return RawOutcome(OutcomeKind.RESULT, response=await self._tool(start))

    def cancel(self, reason: str) -> None:
        """Nothing listens."""

    @property
    def is_alive(self) -> bool:
        """Until it ended."""
        return self.gone is None

    def cpu_seconds(self) -> float | None:
        """Nothing runs outside of a call."""
        return 0.0

    async def warm_up(self, patience_seconds: float) -> None:
        """Nothing has to be loaded."""

    async def end(self) -> bool:
        """Nothing is left."""
        self.gone = self.gone or datetime.now(UTC)
        return True


class UnsandboxedTools:
    """Gives each call a tool of its own."""

    name, overhead_mib = "unsandboxed", 0

    def __init__(self, tool: Tool) -> None:
        self._tool = tool
        self._uids = itertools.count(100_000)

    async def start(self) -> None:
        """Nothing is needed."""

    async def close(self) -> None:
        """Nothing is held."""

    def allocate_uid(self) -> int:
        """A number that no other call has."""
        return next(self._uids)

    @asynccontextmanager
    async def create(self, spec: SandboxSpec, _call_id: str) -> AsyncIterator[UnsandboxedTool]:
        """Hold one."""
        tool = UnsandboxedTool(self._tool, spec.uid)
        try:
            yield tool
        finally:
            await tool.end()

    def knows(self, container_id: str) -> bool:
        """All ids are its own."""
        return True

    async def reap(self) -> list[str]:
        """Nothing outlives its call."""
        return []

    async def leftovers(self) -> list[str]:
        """Nothing outlives its call."""
        return []

    async def end_container(self, container_id: str) -> bool:
        """It has ended."""
        return True


class LeanStack(DevStack):
    """A DevStack without an engine; its tool logs in at PostgreSQL with what was minted for the call."""

    async def use_login(self, start: handler_pb2.Start) -> bytes:
        """Log in, read one order, and answer with nothing."""
        (login,) = (found.username_password for found in start.credentials.values())
        connection = await asyncpg.connect(
            host=self.postgres.host,
            port=self.postgres.port,
            user=login.username,
            password=login.password,
            database=DATABASE,
            timeout=10,
        )
        try:
            await connection.fetchval(LOOK_UP)
        finally:
            await connection.close()
        return b""

    async def register(
        self, folder: Path, tenant: str = "shop", *, review: bool = True
    ) -> registry_pb2.Version:
        """Register a bundle whose image nobody builds."""
        source = compile_bundle(folder)
        request = registry_pb2.RegisterToolRequest(
            descriptor_set=source.descriptor_set, manifest_yaml=source.manifest_yaml, image_id=IMAGE
        )
        async with self.profile("ada", "author", tenant).connect_async() as channel:
            registered = await registry_pb2_grpc.RegistryStub(channel).RegisterTool(request)
        version: registry_pb2.Version = registered.version
        async with self.profile("rob", "reviewer", tenant).connect_async() as channel:
            stub = registry_pb2_grpc.RegistryStub(channel)
            place: dict[str, Any] = {"bundle": version.bundle, "version": version.version}
            review_it = registry_pb2.ReviewVersionRequest(**place, digest=version.digest, accept=True)
            await stub.ReviewVersion(review_it)
            moved = await stub.MoveAlias(registry_pb2.MoveAliasRequest(**place, alias="stable"))
        return moved.version

    async def _start(self) -> None:
        self.state_dir.mkdir(parents=True, mode=0o700)
        self.engine = Engine("unix:///nowhere")
        self.postgres, self.vault = DevPostgres(self.state_dir, DATABASE), DevVault(self.state_dir)
        for part in (self.postgres, self.vault):
            await asyncio.to_thread(part.start)
            self._stack.callback(part.stop)
        await asyncio.to_thread(self.targets.start)
        self._stack.callback(self.targets.stop)
        await asyncio.to_thread(self._seed)
        await asyncio.to_thread(self._configure_vault)
        self._write_settings()
        await self._start_broker(self._hooks)
        self._stack.push_async_callback(self._stop_broker)
        for folder in self.options.bundles:
            await self.register(folder)


class LeanThread(CribThread):
    """Runs a LeanStack in a thread."""

    def __init__(self, folder: Path) -> None:
        options = DevOptions(bundles=(SHOP,), tenants=("shop",))
        super().__init__(folder, folder, options)
        hooks = Hooks(driver_factory=lambda _settings, _epoch: UnsandboxedTools(stack.use_login))
        self._stack = stack = LeanStack(folder, hooks=hooks, options=options)
