"""The subjects: calls through a broker in a process of its own, on the real parts."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from bench.broker_server import ECHO
from bench.docker_run import NAME as DOCKER_RUN
from bench.echo import MUTUAL
from bench.measure import Stages, Subject
from bench.stillness import wait_for_stillness
from broker.client import read_profile
from toolcrib.v1 import broker_pb2, broker_pb2_grpc
from tools.catalogue import load_version
from tools.contract import Contract
from tools.source import compile_bundle

SHOP = Path(__file__).parents[1] / "tools" / "bundles" / "shop"
LOOKUP, DRAFT = "shop.v1.Orders/LookupOrder", "shop.v1.Orders/CreateRefundDraft"
SAY = "echo.v1.Echo/Say"
WHOLE, WARM = "shop: whole call, credential", "echo: whole call, warm"
# Nothing may be refilled while a burst is timed, so a burst's sandboxes wait before it.
STOCK = """
[sandboxes.pool]
least_idle = 24
max_idle = 60
max_wait_seconds = 30
"""
REQUESTS = {
    LOOKUP: '{"orderId": "A-1042"}',
    DRAFT: '{"orderId": "A-1042", "amount": {"minorUnits": "100", "currency": "EUR"}, "comment": "bench"}',
    SAY: '{"text": "hello"}',
}
STOCK_SECONDS = 90.0


class BrokerProcess:
    """A broker in a process of its own, that tells what its pool holds."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, order: str = "?") -> dict[str, dict[str, float]]:
        """What waits ("idle", by tenant and bundle), and what calls got ("taken": "warm", "cold")."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{order}\n".encode())
        counts: dict[str, dict[str, float]] = json.loads(await self._process.stdout.readline())
        return counts

    async def wait_for_stock(self, name: str, count: int) -> None:
        """Have so many of a tenant's bundle wait, and then make no more: a burst is timed without refills."""
        await self.ask("go")
        async with asyncio.timeout(STOCK_SECONDS):
            while (await self.ask())["idle"].get(name, 0) < count:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.2)
        await self.ask("hold")


@asynccontextmanager
async def open_broker(
    folder: Path, cache_dir: Path, settings: str = STOCK
) -> AsyncIterator[tuple[Callers, str]]:
    """Hold a broker and its callers; yields these and the address of the engine it uses."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.broker_server",
        str(folder / "broker"),
        str(cache_dir),
        settings,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError("the broker did not start; see above")
        said = json.loads(line)
        async with Callers(said["profiles"], BrokerProcess(process)) as callers:
            yield callers, said["engine"]
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


class Callers:
    """One channel an identity, and encoded requests."""

    def __init__(self, profiles: Mapping[str, str], broker: BrokerProcess) -> None:
        self.broker = broker
        self._channels = {
            name: read_profile(Path(folder)).connect_async() for name, folder in profiles.items()
        }
        contracts = {**_load_contracts(SHOP), **_load_contracts(ECHO)}
        self._requests = {
            method: contracts[method].canonical(contracts[method].parse_request_json(text))
            for method, text in REQUESTS.items()
        }
        self._key = uuid.uuid4().hex

    async def __aenter__(self) -> Callers:
        await self._call("bench", DRAFT)
        await self.say()
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels.values():
            await channel.close()

    def subjects(self) -> list[Subject]:
        """What is measured, from the lightest call to the whole one."""
        return [
            Subject("refused: no grant", self._refused, MUTUAL),
            Subject("replayed write", self._replayed, MUTUAL),
            Subject(WARM, self.say, MUTUAL, calls=16, dropped=3, prepare=self._stock_echo),
            Subject(WHOLE, self._whole, DOCKER_RUN, calls=3, dropped=1, prepare=self._stock_shop),
        ]

    async def settle(self) -> None:
        """Wait until nothing of an earlier call is left."""
        await self.broker.ask()
        await wait_for_stillness()

    async def say(self, name: str = "bench") -> None:
        """Call the tool that wants nothing."""
        await self._call(name, SAY, key=None)

    async def _stock_echo(self, count: int) -> None:
        await self.broker.wait_for_stock("shop echo", count)

    async def _stock_shop(self, count: int) -> None:
        await self.broker.wait_for_stock("shop shop", count)

    async def _refused(self) -> None:
        try:
            await self._call("stranger", LOOKUP)
        except grpc.aio.AioRpcError:
            return
        raise AssertionError("a stranger was answered")

    async def _replayed(self) -> None:
        await self._call("bench", DRAFT)

    async def _whole(self) -> None:
        await self._call("bench", LOOKUP, key=uuid.uuid4().hex)

    async def read_stages(self, last: int = 40) -> Stages:
        """Read the median of what each stage of the last whole calls took, in seconds."""
        stub = broker_pb2_grpc.BrokerStub(self._channels["olga"])
        state = broker_pb2.SUCCEEDED
        listed = await stub.ListCalls(broker_pb2.ListCallsRequest(page_size=last, tool=LOOKUP, state=state))
        took: dict[str, list[float]] = {}
        for call in listed.calls:
            for stage in call.stages:
                took.setdefault(stage.stage, []).append(stage.duration_micros / 1e6)
        return {stage: statistics.median(seconds) for stage, seconds in took.items()}

    async def _call(self, name: str, method: str, key: str | None = "") -> None:
        send = self._channels[name].unary_unary(f"/{method}")
        metadata = () if key is None else (("toolcrib-idempotency-key", key or self._key),)
        await send(self._requests[method], metadata=metadata, timeout=30)


def _load_contracts(folder: Path) -> dict[str, Contract]:
    source = compile_bundle(folder)
    version = load_version(source.descriptor_set, source.manifest_yaml, "sha256:" + "0" * 64)
    return dict(version.contracts)
