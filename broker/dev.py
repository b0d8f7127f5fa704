"""Everything embedded on loopback, for trying, demos and tests: the real parts, started and taken away again.

A real OpenBao with its PKI, a real PostgreSQL as the tools' target, a Docker Engine, SQLite for the state,
the sample bundles registered and reviewed by two people. No grant is applied: default deny. Without Docker,
bubblewrap runs the sandboxes, which are weaker.

What it makes lies in one state folder: toolcrib.toml, the secrets (0600), clients/NAME with certificates.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from broker.app import Broker, Hooks
from broker.client import Profile
from broker.dev_grants import write_grants
from broker.dev_targets import DevTargets
from broker.packing import Place, pack, provide_base
from broker.settings import Settings, SettingsInvalid, read_settings
from broker.store.inspection import is_live
from credentials.dev_engines import put_secret, read_assertion_keys
from credentials.dev_postgres import DevPostgres
from credentials.dev_vault import DevVault
from sandboxes.engine import Engine, find_engine
from toolcrib.v1 import registry_pb2, registry_pb2_grpc

TRUST_DOMAIN = "toolcrib.dev"
DATABASE = "shop"
TARGET = "orders-db"
_BUNDLES = Path(__file__).parent.parent / "tools" / "bundles"
SAMPLE_BUNDLES = (_BUNDLES / "shop",)
ALL_BUNDLES = tuple(
    _BUNDLES / name for name in ("shop", "web", "files", "notes", "shell", "github", "crm", "s3")
)
"""Those that need nothing but this machine: git wants an SSH server."""
CERTIFICATE_SECONDS = 24 * 3600
MARKER = "made-by-toolcrib-dev"

Say = Callable[[str], None]


def say_nothing(_: str) -> None:
    """Progress for nobody."""


@dataclass(frozen=True, slots=True)
class DevOptions:
    """How a stack differs from the usual one.

    Attributes:
        bundles: Folders of the bundles to register.
        listen: host:port of the gRPC door; port 0 takes a free one.
        environments: The broker's environments; the first is the default.
        tenants: Names of the tenants; the bundles are registered for each.
        platform_operators: Names of operators of the first tenant who may act on every tenant.
        retention_seconds: How long a key replays.
        tenant_extra: More lines of toolcrib.toml by tenant, for example its limits.
        settings_extra: More sections of toolcrib.toml, for example [sandboxes.pool].
        engine_url: An engine that is there; None: the usual one, or one of its own.
        without_docker: Look for no engine: bubblewrap runs the sandboxes, which are weaker.
        say: Told what is being done.
    """

    bundles: Sequence[Path] = SAMPLE_BUNDLES
    listen: str = "127.0.0.1:0"
    metrics_listen: str = ""
    environments: Sequence[str] = ("dev", "staging")
    tenants: Sequence[str] = ("shop", "rival")
    platform_operators: Sequence[str] = ()
    tenant_extra: Mapping[str, str] = field(default_factory=dict)
    settings_extra: str = ""
    retention_seconds: int = 7 * 86_400
    engine_url: str | None = None
    without_docker: bool = False
    say: Say = say_nothing


class DevStack:
    """A whole Toolcrib on loopback. Leaving the block takes all of it away but the state folder.

    Attributes:
        address: host:port of the gRPC door.
        broker: The running broker, in this process.
        engine: What runs the sandboxes; not there without Docker.
    """

    address: str
    settings: Settings
    broker: Broker
    vault: DevVault
    postgres: DevPostgres
    engine: Engine

    def __init__(
        self,
        state_dir: Path,
        cache_dir: Path | None = None,
        *,
        hooks: Hooks | None = None,
        options: DevOptions | None = None,
    ) -> None:
        self.state_dir = state_dir.resolve()
        self.cache_dir = (cache_dir or state_dir / "cache").resolve()
        self.options = options or DevOptions()
        self.targets = DevTargets(self.state_dir / "targets", self.options.bundles, self.options.tenants)
        self._hooks = hooks
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> DevStack:
        """Start every part; what was started is taken away again when a later one fails."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the broker, then its parts."""
        await self._stack.aclose()

    def profile(
        self,
        name: str,
        role: str = "agent",
        tenant: str = "shop",
        *,
        ttl_seconds: int = CERTIFICATE_SECONDS,
        subject: str = "",
        trust_domain: str = TRUST_DOMAIN,
    ) -> Profile:
        """Issue a certificate; write it, with key and profile, into clients/TENANT-ROLE-NAME[-SUBJECT]."""
        spiffe_id = f"spiffe://{trust_domain}/tenant/{tenant}/{role}/{name}"
        if subject:
            spiffe_id += f"/subject/{subject}"
        who = f"{tenant}-{role}-{name}" + (f"-{subject}" if subject else "")
        folder = self.state_dir / "clients" / who
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        issued = self.vault.issue_certificate(spiffe_id, ttl_seconds)
        profile = Profile(self.address, folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        profile.ca_path.write_text(issued.ca_pem)
        profile.cert_path.write_text(issued.cert_pem)
        write_private(profile.key_path, issued.key_pem.reveal())
        profile.write(folder / "profile.toml")
        return profile

    @property
    def image_place(self) -> Place:
        """Where the images of the bundles are: on the engine, or in the folder of a stack without Docker."""
        return self.cache_dir if self.options.without_docker else self.engine

    @property
    def grants_dir(self) -> Path:
        """The grants that the bundles propose, for somebody to apply."""
        return self.state_dir / "grants"

    async def restart_broker(self, hooks: Hooks | None = None) -> None:
        """End the broker and start another on the same state: what an operator's restart does."""
        await self.broker.__aexit__(None, None, None)
        await self._start_broker(hooks or self._hooks)

    async def register(
        self, folder: Path, tenant: str = "shop", *, review: bool = True
    ) -> registry_pb2.Version:
        """Build a bundle's image, register it, and let another person review it and make it stable."""
        request = await asyncio.to_thread(pack, folder, self.image_place, self.cache_dir)
        author, reviewer = self.profile("ada", "author", tenant), self.profile("rob", "reviewer", tenant)
        async with author.connect_async() as channel:
            registered = await registry_pb2_grpc.RegistryStub(channel).RegisterTool(request)
        version: registry_pb2.Version = registered.version
        if review:
            async with reviewer.connect_async() as channel:
                stub = registry_pb2_grpc.RegistryStub(channel)
                await stub.ReviewVersion(
                    registry_pb2.ReviewVersionRequest(
                        bundle=version.bundle, version=version.version, digest=version.digest, accept=True
                    )
                )
                moved = await stub.MoveAlias(
                    registry_pb2.MoveAliasRequest(
                        bundle=version.bundle, alias="stable", version=version.version
                    )
                )
                version = moved.version
        return version

    async def _start(self) -> None:
        options, stack = self.options, self._stack
        run_dir = self.state_dir / "run"
        _clear(self.state_dir)
        stack.callback(shutil.rmtree, run_dir, ignore_errors=True)
        if not options.without_docker:
            await self._start_engine()
        options.say("sandbox image")
        self.base_image = await asyncio.to_thread(provide_base, self.image_place, self.cache_dir)
        options.say("PostgreSQL, the shop's orders")
        self.postgres = DevPostgres(self.state_dir, DATABASE)
        await asyncio.to_thread(self.postgres.start)
        stack.callback(self.postgres.stop)
        await asyncio.to_thread(self._seed)
        options.say("targets of the sample bundles")
        await asyncio.to_thread(self.targets.start)
        stack.callback(self.targets.stop)
        options.say("OpenBao")
        self.vault = DevVault(self.state_dir)
        await asyncio.to_thread(self.vault.start)
        stack.callback(self.vault.stop)
        await asyncio.to_thread(self._configure_vault)
        self._write_settings()
        write_grants(self.grants_dir, options.bundles)
        options.say("broker")
        await self._start_broker(self._hooks)
        stack.push_async_callback(self._stop_broker)
        for tenant in options.tenants:
            for folder in options.bundles:
                options.say(f"bundle {folder.name} for tenant {tenant}")
                await self.register(folder, tenant)

    async def _start_engine(self) -> None:
        options = self.options
        options.say("Docker Engine")
        self.engine = await asyncio.to_thread(
            find_engine, self.state_dir / "engine", options.engine_url, cache_dir=self.cache_dir
        )
        self._stack.callback(self.engine.stop)

    async def _start_broker(self, hooks: Hooks | None) -> None:
        self.settings = read_settings(self.state_dir / "toolcrib.toml")
        self.broker = Broker(self.settings, hooks)
        await self.broker.__aenter__()
        self.address = self.broker.address

    async def _stop_broker(self) -> None:
        await self.broker.__aexit__(None, None, None)

    def _seed(self) -> None:
        for folder in self.options.bundles:
            for script in sorted((folder / "dev").glob("*.sql")):
                self.postgres.run_script(script.read_text())
            seed = folder / "dev" / "seed.py"
            if seed.exists():
                self.postgres.run_script(_seed_sql(seed))

    def _configure_vault(self) -> None:
        self.vault.narrow()
        self.vault.connect_database(TARGET, self.postgres)
        for tenant in self.options.tenants:
            self.vault.install_tenant_key(tenant)
        for name, fields in self.targets.secrets.items():
            put_secret(self.vault, name, fields)
        for folder in self.options.bundles:
            roles = folder / "dev" / "roles.toml"
            if roles.exists():  # a bundle may want no credential
                resolved = self.state_dir / "roles" / f"{folder.name}.toml"
                resolved.parent.mkdir(exist_ok=True)
                resolved.write_text(self.targets.resolve(roles.read_text()))
                self.vault.install_roles(resolved)
        for target in self.targets.targets.values():
            if target.jwks:
                keys = [key for role in target.jwks for key in read_assertion_keys(self.vault, role)]
                (target.folder / "jwks.json").write_text(json.dumps({"keys": keys}))

    def _write_settings(self) -> None:
        folder = self.state_dir
        server = self.vault.issue_certificate(
            f"spiffe://{TRUST_DOMAIN}/broker", CERTIFICATE_SECONDS, server_names=("localhost", "127.0.0.1")
        )
        (folder / "server.pem").write_text(server.cert_pem)
        (folder / "ca.pem").write_text(server.ca_pem)
        write_private(folder / "server.key", server.key_pem.reveal())
        write_private(folder / "broker.key", secrets.token_hex(32))
        write_private(folder / "role_id", self.vault.role_id.reveal())
        write_private(folder / "secret_id", self.vault.secret_id.reveal())
        (folder / "toolcrib.toml").write_text(self._settings_text())

    def _settings_text(self) -> str:
        options = self.options
        environments = ", ".join(f'"{name}"' for name in options.environments)
        platform = ", ".join(
            f'"spiffe://{TRUST_DOMAIN}/tenant/{options.tenants[0]}/operator/{name}"'
            for name in options.platform_operators
        )
        tenants = "\n".join(
            f'[tenants.{name}]\ntargets = ["*"]\nvault_roles = ["*"]\n{options.tenant_extra.get(name, "")}'
            for name in options.tenants
        )
        targets = "\n".join(target.to_toml() for target in self.targets.targets.values())
        return f"""\
environments = [{environments}]
run_dir = "run"
development = true

[server]
listen = "{options.listen}"
metrics_listen = "{options.metrics_listen}"
certificate = "server.pem"
private_key = "server.key"
client_ca = "ca.pem"
trust_domain = "{TRUST_DOMAIN}"
platform_operators = [{platform}]

[state]
path = "state.db"
key_file = "broker.key"
retention_seconds = {options.retention_seconds}

[vault]
address = "{self.vault.address}"

[vault.login]
method = "approle"
role_id_file = "role_id"
secret_id_file = "secret_id"

{self._sandboxes_text()}
{options.settings_extra}

[targets.{TARGET}]
kind = "postgresql"
host = "127.0.0.1"
port = {self.postgres.port}
settings = {{ database = "{DATABASE}" }}

{targets}
{tenants}
"""

    def _sandboxes_text(self) -> str:
        if not self.options.without_docker:
            return f'[engine]\nurl = "{self.engine.base_url}"\n'
        folder = f'[sandboxes]\nimage_dir = "{self.cache_dir}"\n'
        return f'{folder}\n[sandboxes.classes]\ncontainer = "bubblewrap"\n'


def _clear(state_dir: Path) -> None:
    """Make the state folder anew; never empties a folder that is not ours, or in use.

    Raises:
        SettingsInvalid: It holds something else, or another one runs in it.
    """
    if is_live(state_dir / "state.db"):
        raise SettingsInvalid(
            f"{state_dir}: a broker runs there, or was killed a moment ago; stop it, or name another "
            "--state-dir"
        )
    made_by_us = any((state_dir / name).is_file() for name in (MARKER, "toolcrib.toml"))
    if state_dir.is_dir() and any(state_dir.iterdir()) and not made_by_us:
        raise SettingsInvalid(
            f"{state_dir}: was not made by `toolcrib dev`, which would empty it; name another --state-dir"
        )
    shutil.rmtree(state_dir, ignore_errors=True)
    state_dir.mkdir(parents=True, mode=0o700)
    (state_dir / MARKER).touch()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _seed_sql(script: Path) -> str:
    """Run a bundle's seed script, which prints SQL."""
    done = subprocess.run([sys.executable, "-P", str(script)], check=True, capture_output=True, text=True)
    return done.stdout
