"""The whole way of a call on a store in memory, with fakes for Vault, engine and egress that tests can break.

What a tool would do is `Workshop.tool`: it is called with the start frame and gives the raw outcome.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from broker.brakes import Brakes
from broker.cleaning import Cleaner
from broker.debts import Debts
from broker.grant_book import GrantBook
from broker.keys import TenantKeys
from broker.leaks import LeakAlarm
from broker.model import Caller, CallRecord, CallState, Role
from broker.path import Path as CallPath
from broker.path import Stages
from broker.policy.files import digest_files
from broker.request import Peer, Request
from broker.settings import Tenant
from broker.stages.admit import Admission
from broker.stages.authorize import Authorizer
from broker.stages.claim import Claimer
from broker.stages.gate import Gate
from broker.stages.mint import Minter
from broker.stages.place import Placer
from broker.stages.reserve import Reserver
from broker.stages.run import Runner
from broker.stages.sanitize import Sanitizer
from broker.stages.settle import Settler
from broker.stages.validate import Validator
from broker.stock import Stock
from broker.store.memory import MemoryStore
from broker.store.records import AuditEvent, GrantFiles, StoreError
from broker.trail import Recorder, Trail
from credentials.lease import CallTag, CredentialWanted, Lease, LeaseIds, UsernamePassword
from credentials.secret import Secret
from sandboxes.nests import Nest
from sandboxes.outcome import AnswerSign, OutcomeKind, RawOutcome, SandboxSpec, refuse_to_sign
from sandboxes.pool import Pool
from sandboxes.pool_size import PoolTerms
from tests.broker.bench import METHOD, Bench
from toolcrib.handler.v1 import handler_pb2

LOOKUP = "shop.v1.Orders/LookupOrder"
GRANTS = """
@id("all") @targets("orders-db")
permit (
    principal == Agent::"refund-desk",
    action in [Action::"shop.v1.Orders/LookupOrder", Action::"shop.v1.Orders/CreateRefundDraft"],
    resource == Environment::"dev"
);
"""
DRAFT = b'{"orderId": "A-1042", "amount": {"minorUnits": "100", "currency": "EUR"}, "comment": "broken"}'
ORDER = b'{"orderId": "A-1042"}'
DESK = Caller("shop", "refund-desk", Role.AGENT, "", "spiffe://x/tenant/shop/agent/refund-desk")
EMPTY = RawOutcome(OutcomeKind.RESULT)
POOL_OFF = PoolTerms(max_idle=0, idle_seconds=300, makers=64, max_wait_seconds=5, memory_mib=1_000_000)

Tool = Callable[[handler_pb2.Start], Awaitable[RawOutcome]]


class MoodyStore(MemoryStore):
    """Fails the named methods as often as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: dict[str, int] = {}

    async def dispatch(self, *arguments: Any) -> None:
        self._fail("dispatch")
        await super().dispatch(*arguments)

    async def give_back(self, *arguments: Any) -> None:
        self._fail("give_back")
        await super().give_back(*arguments)

    async def complete(self, *arguments: Any, **options: Any) -> None:
        self._fail("complete")
        await super().complete(*arguments, **options)

    async def amend(self, *arguments: Any) -> None:
        self._fail("amend")
        await super().amend(*arguments)

    def _fail(self, method: str) -> None:
        if self.failures.get(method, 0) > 0:
            self.failures[method] -= 1
            raise StoreError("disk full")


class FakeVault:
    """Mints at once."""

    def __init__(self) -> None:
        self.minting: Callable[[], Awaitable[object]] | None = None
        self.ending: Callable[[], Awaitable[object]] | None = None
        self.live: set[str] = set()
        self.password = "pa55word-of-this-call"

    async def mint(self, tag: CallTag, wanted: Sequence[CredentialWanted], ttl_seconds: int) -> list[Lease]:
        if self.minting:
            await self.minting()
        ids = [f"{tag.call_id}/{item.name}" for item in wanted]
        self.live |= set(ids)
        now, later = datetime.now(UTC), datetime.now(UTC) + timedelta(seconds=ttl_seconds)
        login = UsernamePassword("v-user", Secret(self.password))
        return [
            Lease(item.name, one, one, item.engine, item.role, login, now, later)
            for item, one in zip(wanted, ids, strict=True)
        ]

    async def end(self, lease: LeaseIds) -> datetime:
        if self.ending:
            await self.ending()
        self.live.discard(lease.lease_id)
        return datetime.now(UTC)


class FakeSandbox:
    """Runs the workshop's tool."""

    container_id = image_id = "fake"
    uid = 1
    is_alive = True

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self.made = datetime.now(UTC)
        self.gone: datetime | None = None

    async def run(self, start: handler_pb2.Start, _deadline_seconds: float, answer: AnswerSign) -> RawOutcome:
        self._shop.runs += 1
        self._shop.answer_sign = answer
        return await self._shop.tool(start)

    def cancel(self, reason: str) -> None:
        self._shop.cancelled.append(reason)

    def cpu_seconds(self) -> float | None:
        return None

    async def warm_up(self, _patience_seconds: float) -> None:
        pass

    async def end(self) -> bool:
        if self._shop.engine.ending:
            raise self._shop.engine.ending
        self._shop.engine.ended()
        self.gone = self.gone or datetime.now(UTC)
        return True


class FakeEngine:
    """All of what a tool runs on: driver, nests and egress."""

    name, overhead_mib = "fake", 0

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self.creating: Callable[[], Awaitable[object]] | None = None
        self.ending: Exception | None = None
        self.ended: Callable[[], object] = lambda: None
        self.closed: Callable[[], object] = lambda: None

    def allocate_uid(self) -> int:
        return 1

    @asynccontextmanager
    async def create(self, _spec: SandboxSpec, _call_id: str) -> AsyncIterator[FakeSandbox]:
        if self.creating:
            await self.creating()
        yield FakeSandbox(self._shop)

    def knows(self, _container_id: str) -> bool:
        return True

    @contextmanager
    def nest(self, uid: int, _http: object = None) -> Iterator[Nest]:
        yield Nest(Path("/nowhere"), uid)

    @asynccontextmanager
    async def open(
        self, _call_id: str, _nest: Nest, _names: Sequence[str], *_more: object
    ) -> AsyncIterator[Any]:
        yield FakeEgress()
        self.closed()


class FakeEgress:
    """Leads nowhere."""

    socket_dir = None
    connections, uncounted, is_broken = (), 0, False

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def handler_targets(self) -> dict[str, handler_pb2.Target]:
        return {}


class Workshop:
    """A path whose parts tests can reach."""

    path: CallPath
    tool: Tool
    environments: tuple[str, ...] = ("dev",)

    def __init__(self, bench: Bench, store: MoodyStore) -> None:
        self.store, self.catalogue = store, bench.catalogue
        self.vault = FakeVault()
        self.caller, self.runs, self.brakes = DESK, 0, Brakes()
        self.answer_sign: AnswerSign = refuse_to_sign
        self.cancelled: list[str] = []
        self.grants = GrantBook(store, bench.catalogue, self.environments, {"orders-db": "postgresql"})
        self.debts = Debts(self.vault, store)
        self.tenants = {"shop": Tenant(targets=("*",), vault_roles=("*",))}
        self.admit = Admission(self.tenants, 100)
        self.tool = self.answer_nothing
        self.engine = self.make_engine()
        keys, alarm = TenantKeys(b"k" * 32), LeakAlarm(store, self.debts)
        self.workflows = bench.workflows
        engine: Any = self.engine
        authenticate: Any = self.authenticate
        self.pool = Pool({"container": engine}, engine.nest, POOL_OFF)
        self.path = CallPath(
            Stages(
                recorder=Recorder(store, self.workflows.note),
                authenticate=authenticate,
                admit=self.admit,
                validate=Validator(bench.catalogue, store, keys, self.environments, self.workflows),
                claim=Claimer(store, self.workflows),
                authorize=Authorizer(bench.catalogue, self.grants, self.tenants, self.workflows, self.brakes),
                gate=self.make_gate(),
                place=Placer(self.pool, Stock(bench.catalogue, self.grants)),
                reserve=Reserver(store, self.workflows),
                mint=Minter(self.vault, self.debts),
                run=Runner(engine, store, alarm),
                sanitize=Sanitizer(alarm, Cleaner()),
                settle=Settler(store, self.workflows),
            )
        )

    @classmethod
    async def open(cls) -> Workshop:
        store = MoodyStore()
        return await cls.fill(store, await Bench.make(store))

    @classmethod
    async def fill(cls, store: Any, bench: Bench) -> Workshop:
        """Open it on a store that has the shop's tools, and apply the grants."""
        shop = cls(bench, store)
        files = {"a.cedar": GRANTS}
        event = AuditEvent("test", "shop", "", datetime.now(UTC))
        await store.apply_grants("shop", GrantFiles(files, digest_files(files)), "", event)
        await shop.grants.refresh("shop")
        return shop

    def make_engine(self) -> FakeEngine:
        """Make what tools run on."""
        return FakeEngine(self)

    def make_gate(self) -> Gate:
        """Make the gate of the path."""
        return Gate(self.grants, self.workflows)

    def authenticate(self, _peer: Peer) -> Caller:
        self.brakes.check_caller(self.caller)
        return self.caller

    async def answer_nothing(self, _start: handler_pb2.Start) -> RawOutcome:
        return EMPTY

    def draft(self, key: str = "k1", **more: str) -> Request:
        metadata = {"toolcrib-idempotency-key": key, **more}
        return Request(Peer(b""), METHOD, DRAFT, math.inf, is_json=True, metadata=metadata)

    def lookup(self, key: str = "") -> Request:
        metadata = {"toolcrib-idempotency-key": key}
        return Request(Peer(b""), LOOKUP, ORDER, math.inf, is_json=True, metadata=metadata)

    async def begin(
        self, request: Request, stage: Callable[[Trail], bool]
    ) -> tuple[asyncio.Task[Any], Trail]:
        """Start a call as a door does, and let it walk until its trail looks as the test wants."""
        trail = self.path.begin(request)
        task = asyncio.create_task(self.path.answer(request, trail))
        async with asyncio.timeout(5):
            while not stage(trail):
                await asyncio.sleep(0)
        return task, trail

    async def calls(self) -> Sequence[CallRecord]:
        return (await self.store.list_calls("shop")).items

    async def states(self) -> list[CallState]:
        return [call.state for call in await self.calls()]

    def is_clean(self) -> bool:
        """True when no call holds a place, a lease or a key any more."""
        return not (self.admit.calls_in_flight or self.vault.live or self.debts.count)
