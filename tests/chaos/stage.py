"""The scenery of a run: OpenBao, the four targets, the process engine, settings, certificates, the bundle.

Everything lives in one folder and ends with the block. Brokers and clients come and go on it.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.client import Profile
from broker.dev import TRUST_DOMAIN, write_private
from credentials import child_process
from credentials.child_process import HOST, Launch, attempts, find_free_port
from credentials.dev_vault import DevVault
from sandboxes.engine import Engine
from sandboxes.images import build_base, build_bundle
from tests.chaos.process_driver import IMAGE
from tests.chaos.targets import KINDS, ROOT, Counter, start_targets
from toolcrib.v1 import grants_pb2, grants_pb2_grpc, registry_pb2, registry_pb2_grpc
from tools.source import BundleSource, compile_bundle

BUNDLE = ROOT / "tests" / "bundles" / "chaos"
PROCESSES, DOCKER = "crib", "dock"
"""Tenants: the handlers of one run as plain processes, those of the other in real sandboxes."""
AGENT = "writer"
CERTIFICATE_SECONDS = 24 * 3600
LONGEST_FOLDER = 90
"""The process engine's socket lies in it, and a unix socket's path has 107 bytes at most."""
EPOCH_SECONDS = 0.5
"""A broker that was killed keeps the next one out for this long; 300 times, so it is short. It may be: an
epoch that expired unnoticed only matters where another broker wants the state."""

GRANTS = f"""
@id("chaos") @targets("{", ".join(KINDS)}")
permit (
    principal == Agent::"{AGENT}",
    action in [
        Action::"chaos.v1.Chaos/WriteDedupes",
        Action::"chaos.v1.Chaos/WriteProbed",
        Action::"chaos.v1.Chaos/WriteBlind",
        Action::"chaos.v1.Chaos/WriteLate"
    ],
    resource == Environment::"dev"
);
"""


@dataclass(frozen=True)
class Stage:
    """What a run needs.

    Attributes:
        folder: Settings, state and certificates.
        image_id: Image of the real sandboxes; "" where there are none.
    """

    folder: Path
    address: str
    vault: DevVault
    counters: Mapping[str, Counter]
    source: BundleSource
    image_id: str = ""

    @property
    def tenants(self) -> dict[str, str]:
        """The image by tenant."""
        return {PROCESSES: IMAGE} | ({DOCKER: self.image_id} if self.image_id else {})

    def profile(self, name: str, role: str, tenant: str) -> Profile:
        """Issue a certificate and write its profile."""
        folder = self.folder / "clients" / f"{tenant}-{role}-{name}"
        folder.mkdir(parents=True, mode=0o700)
        issued = self.vault.issue_certificate(
            f"spiffe://{TRUST_DOMAIN}/tenant/{tenant}/{role}/{name}", CERTIFICATE_SECONDS
        )
        profile = Profile(self.address, folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        profile.ca_path.write_text(issued.ca_pem)
        profile.cert_path.write_text(issued.cert_pem)
        write_private(profile.key_path, issued.key_pem.reveal())
        profile.write(folder / "profile.toml")
        return profile

    async def set_up(self) -> None:
        """Register the bundle and apply the grants, at the broker that runs now."""
        for tenant, image_id in self.tenants.items():
            author, reviewer = self.profile("ada", "author", tenant), self.profile("rob", "reviewer", tenant)
            await _register(self.source, image_id, author, reviewer)
            await _grant(reviewer)
            self.profile(AGENT, "agent", tenant)
            self.profile("olga", "operator", tenant)


@asynccontextmanager
async def open_stage(
    folder: Path, engine: Engine | None = None, cache_dir: Path | None = None
) -> AsyncIterator[Stage]:
    """Hold everything but brokers and clients.

    Args:
        folder: Empty; everything goes there.
        engine: For real sandboxes; None for none.
        cache_dir: Where the base image's parts are.
    """
    if len(str(folder)) > LONGEST_FOLDER:
        raise ValueError(
            f"{folder}: is too long for the sockets in it; {LONGEST_FOLDER} characters are the most"
        )
    folder.mkdir(parents=True, exist_ok=True)
    source = compile_bundle(BUNDLE)
    for name, data in source.files.items():
        path = folder / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    image_id = ""
    if engine is not None and cache_dir is not None:
        base = await asyncio.to_thread(build_base, engine, cache_dir)
        image_id = await asyncio.to_thread(build_bundle, engine, base, "chaos", source.files)
    async with AsyncExitStack() as stack:
        vault = DevVault(folder)
        await asyncio.to_thread(vault.start)
        stack.callback(vault.stop)
        counters = stack.enter_context(start_targets(folder / "targets"))
        _start_process_engine(folder, stack)
        address = f"{HOST}:{find_free_port()}"
        stage = Stage(folder, address, vault, counters, source, image_id)
        _write_settings(stage, engine)
        yield stage


def _start_process_engine(folder: Path, stack: AsyncExitStack) -> None:
    socket_path = folder / "processes.sock"
    command = (sys.executable, "-m", "tests.chaos.process_engine", str(socket_path), str(folder / "bundle"))
    process = child_process.start(Launch(command, ROOT, folder / "processes.log"))
    stack.callback(child_process.stop, process, signal.SIGKILL)
    for _ in attempts(10.0):
        if socket_path.exists():
            return
    raise RuntimeError(
        f"the process engine did not start: {child_process.read_end(folder / 'processes.log')}"
    )


def _write_settings(stage: Stage, engine: Engine | None) -> None:
    folder, vault = stage.folder, stage.vault
    server = vault.issue_certificate(
        f"spiffe://{TRUST_DOMAIN}/broker", CERTIFICATE_SECONDS, server_names=("localhost", HOST)
    )
    (folder / "server.pem").write_text(server.cert_pem)
    (folder / "ca.pem").write_text(server.ca_pem)
    write_private(folder / "server.key", server.key_pem.reveal())
    write_private(folder / "broker.key", secrets.token_hex(32))
    write_private(folder / "role_id", vault.role_id.reveal())
    write_private(folder / "secret_id", vault.secret_id.reveal())
    for tenant in stage.tenants:
        vault.install_tenant_key(tenant)
    (folder / "toolcrib.toml").write_text(_settings_text(stage, engine))


def _settings_text(stage: Stage, engine: Engine | None) -> str:
    engine_section = f'[engine]\nurl = "{engine.base_url}"\n' if engine else ""
    targets = "\n".join(
        f'[targets.{kind}]\nkind = "smtp"\nhost = "{HOST}"\nport = {counter.port}\n'
        f'settings = {{ straight = "{HOST}:{counter.port}" }}\n'
        for kind, counter in stage.counters.items()
    )
    tenants = "\n".join(
        f'[tenants.{name}]\nmax_concurrent_calls = 256\ntargets = ["*"]\n' for name in stage.tenants
    )
    return f"""\
environments = ["dev"]
run_dir = "run"
development = true

[server]
listen = "{stage.address}"
certificate = "server.pem"
private_key = "server.key"
client_ca = "ca.pem"
trust_domain = "{TRUST_DOMAIN}"
max_calls = 512

[state]
path = "state.db"
key_file = "broker.key"
epoch_seconds = {EPOCH_SECONDS}

[vault]
address = "{stage.vault.address}"

[vault.login]
method = "approle"
role_id_file = "role_id"
secret_id_file = "secret_id"

{engine_section}
{targets}
{tenants}
"""


async def _register(source: BundleSource, image_id: str, author: Profile, reviewer: Profile) -> None:
    async with author.connect_async() as channel:
        registered = await registry_pb2_grpc.RegistryStub(channel).RegisterTool(
            registry_pb2.RegisterToolRequest(
                descriptor_set=source.descriptor_set, manifest_yaml=source.manifest_yaml, image_id=image_id
            )
        )
    version = registered.version
    async with reviewer.connect_async() as channel:
        stub = registry_pb2_grpc.RegistryStub(channel)
        await stub.ReviewVersion(
            registry_pb2.ReviewVersionRequest(
                bundle=version.bundle, version=version.version, digest=version.digest, accept=True
            )
        )
        await stub.MoveAlias(
            registry_pb2.MoveAliasRequest(bundle=version.bundle, alias="stable", version=version.version)
        )


async def _grant(reviewer: Profile) -> None:
    files = [grants_pb2.GrantFile(name="chaos.cedar", text=GRANTS)]
    async with reviewer.connect_async() as channel:
        stub = grants_pb2_grpc.GrantsStub(channel)
        plan = await stub.PlanGrants(grants_pb2.PlanGrantsRequest(files=files))
        await stub.ApplyGrants(grants_pb2.ApplyGrantsRequest(files=files, base_digest=plan.base_digest))
