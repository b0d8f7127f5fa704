"""One broker, put together from its settings: what it opens, in order, and closes in the reverse one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from broker.brakes import Brakes
from broker.catalogue import Catalogue
from broker.cipher import TenantCipher
from broker.cleaning import Cleaner
from broker.debts import Debts
from broker.decision import Decider
from broker.doubts import Doubts
from broker.fence import Fence
from broker.fleet_setup import DriverFactory, make_fleet, pool_terms
from broker.grant_book import GrantBook
from broker.identity_setup import open_authenticator
from broker.inquiry import Inquirer
from broker.keys import TenantKeys, read_key_file
from broker.leaks import LeakAlarm
from broker.lease_book import LeaseBook
from broker.lever import Lever
from broker.metrics import Metrics
from broker.path import Path as CallPath
from broker.path import Stages
from broker.pool_record import IdleCount, PoolRecord
from broker.recovery import adopt_unfinished
from broker.resolution import PATIENT, Resolution, Tuning
from broker.server import Doors, Server
from broker.session_watch import SessionWatch
from broker.settings import Settings, SettingsInvalid
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
from broker.store.options import StoreOptions
from broker.store.protocol import Store
from broker.store.records import StoreError
from broker.store.sqlite import open_store
from broker.target_settings import TargetUnusable, list_addresses, list_http, list_kinds
from broker.tenure import Tenure
from broker.trail import Boundary, Recorder, pass_boundary
from broker.vault_login import find_mounts, make_login, make_tuning
from broker.vetting import Vetting
from broker.workflows import WorkflowBook, load_workflows
from credentials.lease import OwedLease
from credentials.supervisor.keeper import Supervisor
from credentials.transit import Transit
from credentials.vault import VaultSession
from sandboxes.egress.addresses import TargetInvalid
from sandboxes.egress.process import EgressProcess
from sandboxes.egress.remains import end_remains
from sandboxes.fleet import Fleet
from sandboxes.outcome import SandboxError
from sandboxes.pool import Pool

log = logging.getLogger(__name__)

REAP_SECONDS = 30.0
BEATS_AN_EPOCH = 4

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Tell the time: the clock of production."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a test may set; there is no other way to set it.

    Attributes:
        boundary: Passed before each stage of each call.
        clock: Tells the time.
        driver_factory: Makes what runs the sandboxes of every class; None: what the settings name.
        tuning: How patiently calls in doubt are resolved.
    """

    boundary: Boundary = pass_boundary
    clock: Clock = utc_now
    driver_factory: DriverFactory | None = None
    tuning: Tuning = PATIENT


def _serve_metrics(metrics: Metrics, listen: str) -> Callable[[], None]:
    try:
        return metrics.serve(listen)
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"server.metrics_listen: {listen} cannot be listened on ({error})") from error


class Broker:
    """A running broker. Use as an async context manager; leaving it drains and takes everything away.

    When another broker takes over its state, it ends its sandboxes and its session at Vault, says so in log
    and health, and answers every call with STALE_EPOCH until it is left.
    """

    def __init__(self, settings: Settings, hooks: Hooks | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._hooks = hooks or Hooks()
        self._parts = AsyncExitStack()
        self._front = AsyncExitStack()
        self._doubts = Doubts()
        self._cipher = TenantCipher()
        self._brakes = Brakes()
        self._cleaner = Cleaner()
        self.address = self.token_address = ""
        self.store: Store
        self.workflows: WorkflowBook
        self.tenure: Tenure
        self.vault: VaultSession
        self.fleet: Fleet
        self.egress: EgressProcess
        self.path: CallPath
        self.debts: Debts
        self.resolution: Resolution

    @property
    def pool(self) -> Pool:
        """The sandboxes that wait for calls."""
        return self.fleet.pool

    async def __aenter__(self) -> Broker:
        """Start everything; what was started is taken away again when a later part fails."""
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain, then close everything in the reverse order."""
        try:
            await self._front.aclose()
        finally:
            await self._parts.aclose()

    async def _start(self) -> None:
        settings = self.settings
        keys = read_key_file(settings.state.key_file)
        settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.store = await self._open_store(keys)
        await self._begin_tenure()
        await self._brakes.load(self.store)
        await self._end_remains()
        self.fleet = await self._start_fleet()
        self.egress = await self._start_egress()
        self.vault = await self._open_vault()
        self._cipher.connect(self.store, Transit(self.vault))
        await self._fetch_keys()
        await adopt_unfinished(self.store, self._brakes)
        self.debts = Debts(self.vault, self.store)
        await self.debts.start()
        for debt in self.debts.owed:
            await self.vault.hold(debt.lease)
        self._parts.push_async_callback(self.debts.close)
        catalogue = Catalogue(self.store)
        await catalogue.load()
        grants = GrantBook(self.store, catalogue, settings.environments, list_kinds(settings.targets))
        await grants.load()
        self._open_pool(catalogue, grants)
        self._parts.push_async_callback(self._cleaner.close)
        self._authenticate = await open_authenticator(settings, self._hooks.clock, self._brakes, self._parts)
        stages = self._stages(keys, catalogue, grants)
        self._parts.push_async_callback(stages.reserve.close)
        self.path = self._session_watch.running = CallPath(stages)
        fence = self._start_resolution(keys, catalogue, grants)
        doors = Doors(
            path=self.path,
            authenticate=stages.authenticate,
            catalogue=catalogue,
            grants=grants,
            store=self.store,
            workflows=self.workflows,
            decider=Decider(self.store, catalogue, fence, self._cleaner),
            lever=Lever(
                self._brakes,
                self.store,
                LeaseBook(self.store, self.path, self.debts, settings.tenants),
                catalogue,
                self._hooks.clock,
            ),
            vetting=Vetting(
                self.vault,
                find_mounts(settings.vault),
                self.store.append_audit,
                settings.sandboxes.classes,
            ),
            platform_operators=frozenset(settings.server.platform_operators),
            tenure=self.tenure,
            metrics=self.metrics,
            clock=self._hooks.clock,
            http_targets=list_http(settings.targets),
            tenants=settings.tenants,
        )
        await self._listen(doors, stages.admit)

    async def _open_store(self, keys: TenantKeys) -> Store:
        state = self.settings.state
        options = StoreOptions(
            keys.audit_key,
            keys.audit_key_id,
            self._hooks.clock,
            state.retention_seconds,
            state.epoch_seconds,
            self._cipher,
        )
        # One that was killed cannot give its epoch up: the next start waits until it has expired.
        store = await open_store(state.path, options, wait_seconds=state.epoch_seconds * 1.5)
        self._parts.push_async_callback(store.close)
        self.workflows = await load_workflows(keys, self.settings.workflows, self._hooks.clock, store)
        return store

    async def _begin_tenure(self) -> None:
        self.tenure = Tenure(self.store, self.settings.state.epoch_seconds / BEATS_AN_EPOCH)
        self.tenure.start()
        self._parts.push_async_callback(self.tenure.close)

    async def _start_fleet(self) -> Fleet:
        fleet = make_fleet(self.settings, self.store.epoch, self._hooks.driver_factory)
        await fleet.start()
        self._parts.push_async_callback(fleet.close)
        await self._reap(fleet)
        reaping = asyncio.create_task(self._reap_for_ever(fleet), name="reaper")
        self._parts.push_async_callback(_cancel, reaping)
        return fleet

    def _open_pool(self, catalogue: Catalogue, grants: GrantBook) -> None:
        record = PoolRecord(self.metrics.registry, self.store.append_audit, self._hooks.clock)
        self._parts.push_async_callback(record.close)
        pool = self.fleet.open_pool(pool_terms(self.settings), self.egress.nest, record)
        self._parts.push_async_callback(self.fleet.close_pool)
        self.metrics.registry.register(IdleCount(pool))
        self._stock = Stock(catalogue, grants)
        pool.is_wanted = self._stock.is_wanted
        catalogue.on_change = grants.on_change = self.fleet.review_pool

    async def _reap(self, fleet: Fleet) -> None:
        for container in await fleet.reap():
            log.warning("reaped", extra={"container": container})

    async def _reap_for_ever(self, fleet: Fleet) -> None:
        while True:
            await asyncio.sleep(REAP_SECONDS)
            try:
                await self._reap(fleet)
            except SandboxError as error:
                log.warning("not reaped", extra={"cause": str(error)})

    async def _start_egress(self) -> EgressProcess:
        targets = self.settings.targets
        try:
            egress = EgressProcess(list_addresses(targets), http=list_http(targets))
        except (TargetUnusable, TargetInvalid) as error:
            raise SettingsInvalid(str(error)) from error
        # A folder for each epoch: who takes over finds the one before by it, and neither removes the other's.
        await egress.start(self._epoch_folder(self.store.epoch.number))
        self._parts.push_async_callback(egress.stop)
        return egress

    def _epoch_folder(self, number: int | str) -> Path:
        return self.settings.run_dir / f"{self.store.epoch.installation}-{number}"

    async def _end_remains(self) -> list[str]:
        """End the egress processes of older brokers of this installation; returns what could not be ended."""
        own = self._epoch_folder(self.store.epoch.number)
        found = self.settings.run_dir.glob(self._epoch_folder("*").name)
        older = [folder for folder in found if folder != own]
        return [str(folder) for folder in older if not await asyncio.to_thread(end_remains, folder)]

    async def _open_vault(self) -> VaultSession:
        vault = self.settings.vault
        self._session_watch = watch = SessionWatch(self.store, self._hooks.clock)
        self._parts.push_async_callback(watch.close)
        tuning = make_tuning(
            vault,
            keeper=lambda api: Supervisor(api, vault.renew_seconds, watch.supervisor_died),
            on_lost=watch.lost,
            on_opened=watch.opened,
            on_owed=self._owe,
        )
        session = VaultSession(vault.address, make_login(vault), tuning)
        await session.open()
        self._parts.push_async_callback(session.close)
        return session

    def _owe(self, call_id: str, leases: Sequence[OwedLease]) -> None:
        """Take over what a cancelled mint could not end; nothing is minted before there are debts."""
        self.debts.owe(call_id, leases)

    async def _fetch_keys(self) -> None:
        """Have the tenants' data keys at hand, so that the first calls do not pay for them."""
        for tenant in self.settings.tenants:
            try:
                await self._cipher.prepare(tenant)
            except StoreError as error:
                log.warning("no data key", extra={"tenant": tenant, "cause": str(error)})

    def _stages(self, keys: TenantKeys, catalogue: Catalogue, grants: GrantBook) -> Stages:
        settings, store = self.settings, self.store
        alarm, workflows = LeakAlarm(store, self.debts), self.workflows
        return Stages(
            recorder=Recorder(
                store, workflows.note, self._hooks.boundary, self.tenure.end, self.metrics.count_connections
            ),
            authenticate=self._authenticate,
            admit=Admission(settings.tenants, settings.server.max_calls),
            validate=Validator(catalogue, store, keys, settings.environments, workflows),
            claim=Claimer(store, workflows, self._doubts),
            authorize=Authorizer(catalogue, grants, settings.tenants, workflows, self._brakes),
            gate=Gate(grants, workflows),
            place=Placer(self.fleet.pool, self._stock),
            reserve=Reserver(store, workflows, self._doubts, self._cipher.prepare),
            mint=Minter(self.vault, self.debts),
            run=Runner(self.egress, store, alarm),
            sanitize=Sanitizer(alarm, self._cleaner, grants.trusted_origins),
            settle=Settler(store, workflows),
        )

    def _start_resolution(self, keys: TenantKeys, catalogue: Catalogue, grants: GrantBook) -> Fence:
        fence = Fence(self.fleet, self.debts, self._end_remains, self.store.epoch.number)
        inquirer = Inquirer(self.path, catalogue, grants, keys)
        self.resolution = Resolution(
            self.store, self._doubts, fence, inquirer, self._brakes, self._hooks.tuning
        )
        self.resolution.start()
        self._parts.push_async_callback(self.resolution.close)
        return fence

    async def _listen(self, doors: Doors, admission: Admission) -> None:
        settings = self.settings
        for name, text, read in (
            ("calls_in_flight", "Calls that hold a place", lambda: admission.calls_in_flight),
            ("leases_owed", "Leases whose end is not confirmed", lambda: self.debts.count),
            ("calls_in_doubt", "Calls in doubt that are being resolved", lambda: self._doubts.count),
            ("vault_session", "0 while the session at Vault is lost", lambda: int(self.vault.is_open)),
            ("taken_over", "1 when another broker has taken over", lambda: int(self.tenure.over.is_set())),
        ):
            self.metrics.watch(f"toolcrib_{name}", text, read)
        if settings.server.metrics_listen:
            self._front.callback(_serve_metrics(self.metrics, settings.server.metrics_listen))
        server = Server(settings.server, doors, settings.identity.listen)
        self.address, self.token_address = await server.start()
        self._front.push_async_callback(self._drain_and_stop, server)
        retiring = asyncio.create_task(self._retire_when_over(server), name="retirement")
        self._front.push_async_callback(self._end_retiring, retiring)

    async def _retire_when_over(self, server: Server) -> None:
        """Take everything away but the door, when another broker has taken over."""
        await self.tenure.over.wait()
        log.error("another broker has taken over this state: this one ends its sandboxes and its session")
        await server.stop_serving()
        await self.path.retire()
        try:
            await self._parts.aclose()
        except Exception:
            log.exception("not everything of a broker that was taken over could be ended")

    async def _end_retiring(self, retiring: asyncio.Task[None]) -> None:
        if self.tenure.over.is_set():
            await retiring
        else:
            await _cancel(retiring)

    async def _drain_and_stop(self, server: Server) -> None:
        await server.stop_serving()
        stopped = await self.path.drain(self.settings.server.drain_seconds)
        if stopped:
            log.warning("calls stopped at the drain deadline", extra={"outcome": str(stopped)})
        await server.stop()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
