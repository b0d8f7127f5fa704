"""OpenBao, PostgreSQL, a holder of sessions, and a broker in a process of its own, which may be killed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import grpc

from broker.dev import DATABASE, DevOptions, DevStack
from broker.settings import read_settings
from credentials.dev_postgres import DevPostgres
from credentials.dev_vault import DevVault
from sandboxes.engine import Engine
from tests.chaos.process_driver import IMAGE
from tests.e2e import grants
from tests.e2e.holder import Holder, start_holder
from tests.e2e.holding_broker import HELD, HoldingBroker, start_holding_broker
from tests.e2e.stack import MISCHIEF
from toolcrib.v1 import grants_pb2, grants_pb2_grpc, registry_pb2, registry_pb2_grpc
from tools.source import compile_bundle

READ = "/mischief.v1.Mischief/Read"
BATCH = 25
_SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid "
    "WHERE a.usesysid IS NOT NULL AND (r.oid IS NULL OR r.rolname LIKE 'v-%')"
)
_LOGINS = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"


@dataclass(frozen=True, slots=True)
class Live:
    """What of credentials is alive, as OpenBao and PostgreSQL say."""

    tokens: int
    leases: int
    logins: int
    sessions: int


NOTHING = Live(0, 0, 0, 0)


PLENTY = """
[sandboxes]
memory_mib = 1000000
[sandboxes.pool]
makers = 64
max_wait_seconds = 60
"""


class KillStack(DevStack):
    """The parts. The broker has no engine: its tools hand their login to the holder and wait.

    Attributes:
        process: The broker.
        agent: A channel to it.
        minting_seconds: How long it took to make what is held, on this machine and with what else it does.
    """

    holder: Holder
    process: HoldingBroker
    agent: grpc.aio.Channel

    def __init__(self, state_dir: Path, period_seconds: int, max_connections: int = 100) -> None:
        options = DevOptions(bundles=(MISCHIEF,), tenants=("shop",), retention_seconds=86_400)
        super().__init__(state_dir, options=options)
        self._period_seconds, self._max_connections = period_seconds, max_connections
        self.minting_seconds = 0.0

    async def __aenter__(self) -> KillStack:
        """Start every part."""
        await super().__aenter__()
        return self

    async def live(self) -> Live:
        """Ask OpenBao and PostgreSQL."""
        logins = await self._database.fetchval(_LOGINS)
        sessions = await self._database.fetchval(_SESSIONS)
        tokens, leases = await asyncio.to_thread(
            lambda: (self.vault.count_tokens(), self.vault.count_leases())
        )
        return Live(tokens, leases, logins, sessions)

    async def wait_until_nothing_lives(self, seconds: float) -> float:
        """Wait; return how long it took. OpenBao, which is busy, is asked when PostgreSQL has nothing."""
        began = time.monotonic()
        while await self._database.fetchval(_LOGINS) or (await self.live()) != NOTHING:
            assert time.monotonic() - began < seconds, f"after {seconds:.1f} s: {await self.live()}"
            await asyncio.sleep(0.1)
        return time.monotonic() - began

    async def wait_until_no_login_lives(self, seconds: float) -> None:
        """Wait until no lease is left and no login, whatever child tokens are."""
        async with asyncio.timeout(seconds):
            while replace(await self.live(), tokens=0) != NOTHING:
                await asyncio.sleep(0.5)

    async def hold(self, count: int, seconds: int) -> list[asyncio.Task[bytes]]:
        """Have so many calls hold a session each for so long; returns once they all do."""
        began, before = time.monotonic(), await self._database.fetchval(_SESSIONS)
        calls: list[asyncio.Task[bytes]] = []
        while len(calls) < count:
            batch = min(BATCH, count - len(calls))
            calls += [asyncio.create_task(self.read(seconds)) for _ in range(batch)]
            while await self._database.fetchval(_SESSIONS) < before + len(calls):
                for call in calls:
                    assert not call.done(), call.result()
                await asyncio.sleep(0.02)
        self.minting_seconds = time.monotonic() - began
        return calls

    async def read(self, seconds: int) -> bytes:
        """Call the tool: it holds its login for so long."""
        request = b"\x0a\x04fine" + (bytes((0x10, seconds)) if seconds else b"")
        answer: bytes = await self.agent.unary_unary(READ)(request, timeout=120)
        assert answer == HELD
        return answer

    def read_marks(self) -> list[list[str]]:
        """Read what was noticed about each call, in the order in which they began."""
        rows = self._read_state("SELECT marks FROM calls ORDER BY started")
        return [json.loads(row[0]) for row in rows]

    def read_events(self, start: str) -> list[str]:
        """Read the kinds of the audit's events that begin so."""
        kinds = [
            json.loads(row[0])["kind"]
            for row in self._read_state("SELECT payload FROM audit ORDER BY sequence")
        ]
        return [kind for kind in kinds if kind.startswith(start)]

    def _read_state(self, query: str) -> list[tuple[str, ...]]:
        path = self.settings.state.path
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return list(connection.execute(query))

    async def _start(self) -> None:
        stack, folder = self._stack, self.state_dir
        folder.mkdir(parents=True, mode=0o711)
        self.engine = Engine("unix:///nowhere/docker.sock")
        self.postgres = DevPostgres(folder, DATABASE, self._max_connections)
        await asyncio.to_thread(self.postgres.start)
        stack.callback(self.postgres.stop)
        await asyncio.to_thread(self._seed)
        self.vault = DevVault(folder, self._period_seconds)
        await asyncio.to_thread(self.vault.start)
        stack.callback(self.vault.stop)
        await asyncio.to_thread(self._configure_vault)
        self._write_settings()
        self.holder = stack.enter_context(start_holder(folder, self.postgres))
        self._database = await asyncpg.connect(**self.postgres.login())
        stack.push_async_callback(self._database.close)
        self.process = stack.enter_context(
            start_holding_broker(folder / "toolcrib.toml", self.holder.socket_path)
        )
        self.address, self.settings = self.process.address, read_settings(folder / "toolcrib.toml")
        await self._register_and_grant()
        self.agent = self.profile("refund-desk").connect_async()
        stack.push_async_callback(self.agent.close)

    def _settings_text(self) -> str:
        text = super()._settings_text().replace("[server]\n", "[server]\nmax_calls = 512\n")
        # Three hundred calls at once: what holds their logins here is no container.
        text = text.replace("[vault]\n", f"{PLENTY}\n[vault]\n")
        text = text.replace("[state]\n", "[state]\nepoch_seconds = 1\n")
        return text.replace("[tenants.shop]\n", "[tenants.shop]\nmax_concurrent_calls = 512\n")

    async def _register_and_grant(self) -> None:
        source = compile_bundle(MISCHIEF)
        manifest = source.manifest_yaml.replace("deadline_seconds: 3", "deadline_seconds: 60")
        asked = registry_pb2.RegisterToolRequest(
            descriptor_set=source.descriptor_set, manifest_yaml=manifest, image_id=IMAGE
        )
        author, reviewer = self.profile("ada", "author"), self.profile("rob", "reviewer")
        async with author.connect_async() as channel:
            made = (await registry_pb2_grpc.RegistryStub(channel).RegisterTool(asked)).version
        async with reviewer.connect_async() as channel:
            await _accept(registry_pb2_grpc.RegistryStub(channel), made)
            files = [grants_pb2.GrantFile(name="kills.cedar", text=grants.MISCHIEF)]
            stub = grants_pb2_grpc.GrantsStub(channel)
            plan = await stub.PlanGrants(grants_pb2.PlanGrantsRequest(files=files))
            await stub.ApplyGrants(grants_pb2.ApplyGrantsRequest(files=files, base_digest=plan.base_digest))


async def _accept(registry: Any, version: registry_pb2.Version) -> None:
    await registry.ReviewVersion(
        registry_pb2.ReviewVersionRequest(
            bundle=version.bundle, version=version.version, digest=version.digest, accept=True
        )
    )
    await registry.MoveAlias(
        registry_pb2.MoveAliasRequest(bundle=version.bundle, alias="stable", version=version.version)
    )


async def finish(calls: Sequence[asyncio.Task[bytes]]) -> list[str]:
    """Wait for calls; say how each ended."""
    ends = await asyncio.gather(*calls, return_exceptions=True)
    return [end.code().name if isinstance(end, grpc.aio.AioRpcError) else "OK" for end in ends]
