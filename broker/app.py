"""One broker, put together from its settings: what it opens, in order, and closes in the reverse one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from broker.catalogue import Catalogue
from broker.debts import Debts
from broker.grant_book import GrantBook
from broker.keys import TenantKeys, read_key_file
from broker.metrics import Metrics
from broker.path import Path as CallPath
from broker.path import Stages
from broker.recovery import adopt_unfinished
from broker.server import Doors, Server
from broker.settings import Settings, SettingsInvalid
from broker.stages.admit import Admission
from broker.stages.authenticate import Authenticator
from broker.stages.authorize import Authorizer
from broker.stages.claim import Claimer
from broker.stages.gate import Gate
from broker.stages.mint import Minter
from broker.stages.reserve import Reserver
from broker.stages.run import Machinery, Runner
from broker.stages.settle import Settler
from broker.stages.validate import Validator
from broker.store.protocol import Store
from broker.store.sqlite import open_store
from broker.trail import Boundary, Recorder, pass_boundary
from credentials.secret import Secret
from credentials.vault import SessionTuning, VaultSession
from sandboxes.docker_driver import DockerDriver
from sandboxes.egress.addresses import TargetAddress
from sandboxes.egress.process import EgressProcess
from sandboxes.engine import Engine

log = logging.getLogger(__name__)

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Tell the time: the clock of production."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a test may set: the stage boundary and the clock."""

    boundary: Boundary = pass_boundary
    clock: Clock = utc_now


def read_secret_file(path: Path) -> Secret:
    """Read a secret that the operator put into a file.

    Raises:
        SettingsInvalid: It cannot be read, or is empty.
    """
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise SettingsInvalid(f"{path}: cannot be read ({error.strerror})") from error
    if not text:
        raise SettingsInvalid(f"{path}: is empty")
    return Secret(text)


def _serve_metrics(metrics: Metrics, listen: str) -> Callable[[], None]:
    try:
        return metrics.serve(listen)
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"server.metrics_listen: {listen} cannot be listened on ({error})") from error


class Broker:
    """A running broker. Use as an async context manager; leaving it drains and takes everything away."""

    def __init__(self, settings: Settings, hooks: Hooks | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._hooks = hooks or Hooks()
        self._stack = AsyncExitStack()
        self.address = ""
        self.store: Store
        self.vault: VaultSession
        self.driver: DockerDriver
        self.path: CallPath
        self.debts: Debts

    async def __aenter__(self) -> Broker:
        """Start everything; what was started is taken away again when a later part fails."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain, then close everything in the reverse order."""
        await self._stack.aclose()

    async def _start(self) -> None:
        settings, stack = self.settings, self._stack
        keys = read_key_file(settings.state.key_file)
        settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.store = await self._open_store(keys)
        self.driver = await self._start_driver()
        egress = EgressProcess(
            {
                name: TargetAddress(name, target.kind, target.host, target.port, dict(target.settings))
                for name, target in settings.targets.items()
            }
        )
        await egress.start(settings.run_dir)
        stack.push_async_callback(egress.stop)
        self.vault = await self._open_vault()
        await adopt_unfinished(self.store)
        self.debts = Debts(self.vault, self.store)
        await self.debts.start()
        stack.push_async_callback(self.debts.close)
        catalogue = Catalogue(self.store)
        await catalogue.load()
        grants = GrantBook(self.store, catalogue, settings.environments, settings.targets)
        await grants.load()
        stages = self._stages(keys, catalogue, grants, egress)
        stack.push_async_callback(stages.reserve.close)
        self.path = CallPath(stages)
        doors = Doors(
            path=self.path,
            authenticate=stages.authenticate,
            catalogue=catalogue,
            grants=grants,
            store=self.store,
            metrics=self.metrics,
            clock=self._hooks.clock,
        )
        await self._listen(doors, stages.admit)

    async def _open_store(self, keys: TenantKeys) -> Store:
        state = self.settings.state
        store = await open_store(
            state.path,
            clock=self._hooks.clock,
            retention_seconds=state.retention_seconds,
            audit_key=keys.audit_key,
            key_id=keys.audit_key_id,
        )
        self._stack.push_async_callback(store.close)
        return store

    async def _start_driver(self) -> DockerDriver:
        epoch = self.store.epoch
        driver = DockerDriver(Engine(self.settings.engine.url), epoch.installation, epoch.number)
        await driver.start()
        self._stack.push_async_callback(driver.close)
        for container in await driver.reap():
            log.warning("reaped", extra={"container": container})
        return driver

    async def _open_vault(self) -> VaultSession:
        vault = self.settings.vault
        session = VaultSession(
            vault.address,
            read_secret_file(vault.role_id_file),
            read_secret_file(vault.secret_id_file),
            SessionTuning(ca_file=vault.ca_file, timeout_seconds=vault.timeout_seconds),
        )
        await session.open()
        self._stack.push_async_callback(session.close)
        return session

    def _stages(
        self, keys: TenantKeys, catalogue: Catalogue, grants: GrantBook, egress: EgressProcess
    ) -> Stages:
        settings, store, clock = self.settings, self.store, self._hooks.clock
        machinery = Machinery(self.driver, egress)
        return Stages(
            recorder=Recorder(store, self._hooks.boundary),
            authenticate=Authenticator(settings.server.trust_domain, settings.tenants, clock),
            admit=Admission(settings.tenants, settings.server.max_calls),
            validate=Validator(catalogue, store, keys, settings.environments),
            claim=Claimer(store),
            authorize=Authorizer(catalogue, grants, settings.tenants, clock),
            gate=Gate(grants),
            reserve=Reserver(store),
            mint=Minter(self.vault, self.debts),
            run=Runner(machinery, store, keys),
            settle=Settler(store),
        )

    async def _listen(self, doors: Doors, admission: Admission) -> None:
        settings = self.settings
        self.metrics.watch(
            "toolcrib_calls_in_flight", "Calls that hold a place", lambda: admission.calls_in_flight
        )
        self.metrics.watch(
            "toolcrib_leases_owed", "Leases whose end is not confirmed", lambda: self.debts.count
        )
        if settings.server.metrics_listen:
            self._stack.callback(_serve_metrics(self.metrics, settings.server.metrics_listen))
        server = Server(settings.server, doors)
        self.address = await server.start()
        self._stack.push_async_callback(self._drain_and_stop, server)

    async def _drain_and_stop(self, server: Server) -> None:
        await server.stop_serving()
        stopped = await self.path.drain(self.settings.server.drain_seconds)
        if stopped:
            log.warning("calls stopped at the drain deadline", extra={"outcome": str(stopped)})
        await server.stop()
