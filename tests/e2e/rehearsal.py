"""A real broker with one bundle, for tests that ask much of credentials: plain processes, or real sandboxes.

Vault and the target are the caller's; store, path, egress, session and debts are those of production.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format, message_factory

from broker.app import Broker, Hooks
from broker.client import Profile
from broker.dev import TRUST_DOMAIN, write_private
from broker.packing import pack
from broker.settings import read_settings
from credentials import child_process
from credentials.child_process import HOST, Launch, attempts
from credentials.dev_vault import DevVault
from sandboxes.engine import Engine
from tests.chaos.process_driver import IMAGE, UnsandboxedDriver
from tests.e2e.caller import Reply, read_error
from tests.e2e.stack import ROOT
from toolcrib.v1 import grants_pb2, grants_pb2_grpc, registry_pb2, registry_pb2_grpc
from tools.catalogue import load_version
from tools.source import BundleSource, compile_bundle

TENANT, AGENT = "crib", "caller"
CERTIFICATE_SECONDS = 3600


@dataclass(frozen=True)
class Play:
    """What is rehearsed.

    Attributes:
        bundle: Its folder.
        targets: Lines of toolcrib.toml.
        grants: A Cedar file.
        engine: For real sandboxes; None: plain processes.
        cache_dir: Where images' parts are; for real sandboxes.
    """

    bundle: Path
    targets: str
    grants: str
    engine: Engine | None = None
    cache_dir: Path = Path()


class Rehearsal:
    """The running broker, and its one agent."""

    def __init__(self, folder: Path, vault: DevVault, broker: Broker, source: BundleSource) -> None:
        self.folder, self.broker = folder, broker
        self._vault = vault
        version = load_version(source.descriptor_set, source.manifest_yaml, "sha256:" + "0" * 64)
        self._contracts = version.contracts
        self._channel: grpc.aio.Channel | None = None

    @property
    def config(self) -> Path:
        """For the command line."""
        return self.folder / "toolcrib.toml"

    def profile(self, name: str, role: str) -> Profile:
        """Issue a certificate."""
        folder = self.folder / f"{role}-{name}"
        folder.mkdir(exist_ok=True, mode=0o700)
        issued = self._vault.issue_certificate(
            f"spiffe://{TRUST_DOMAIN}/tenant/{TENANT}/{role}/{name}", CERTIFICATE_SECONDS
        )
        profile = Profile(self.broker.address, folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        profile.ca_path.write_text(issued.ca_pem)
        profile.cert_path.write_text(issued.cert_pem)
        write_private(profile.key_path, issued.key_pem.reveal())
        return profile

    async def call(self, method: str, arguments: Mapping[str, Any]) -> Reply:
        """Call a tool as the agent."""
        contract = self._contracts[method]
        kind = message_factory.GetMessageClass(contract.request_descriptor)
        raw = json_format.ParseDict(dict(arguments), kind()).SerializeToString()
        self._channel = self._channel or self.profile(AGENT, "agent").connect_async()
        send = self._channel.unary_unary(f"/{method}", request_serializer=None, response_deserializer=None)
        try:
            answer = await send(raw, timeout=30)
        except grpc.aio.AioRpcError as error:
            return read_error(error)
        return Reply("OK", json.loads(contract.result_json(answer)))

    async def press(
        self, method: str, arguments: Mapping[str, Any], *, per_second: float, seconds: float
    ) -> list[Reply]:
        """Call a tool at a steady pace, whether the calls before were answered or not."""
        loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        calls = []
        for number in range(round(per_second * seconds)):
            await asyncio.sleep(max(began + number / per_second - loop.time(), 0))
            calls.append(asyncio.create_task(self.call(method, arguments)))
        return await asyncio.gather(*calls)

    async def close(self) -> None:
        """Close the agent's channel."""
        if self._channel is not None:
            await self._channel.close()

    async def set_up(self, play: Play, source: BundleSource, image_id: str) -> None:
        """Register the bundle, review it, and apply the grants."""
        request = registry_pb2.RegisterToolRequest(
            descriptor_set=source.descriptor_set, manifest_yaml=source.manifest_yaml, image_id=image_id
        )
        async with self.profile("ada", "author").connect_async() as channel:
            version = (await registry_pb2_grpc.RegistryStub(channel).RegisterTool(request)).version
        names = {"bundle": version.bundle, "version": version.version}
        async with self.profile("rob", "reviewer").connect_async() as channel:
            registry, grants = registry_pb2_grpc.RegistryStub(channel), grants_pb2_grpc.GrantsStub(channel)
            review = registry_pb2.ReviewVersionRequest(digest=version.digest, accept=True, **names)
            await registry.ReviewVersion(review)
            await registry.MoveAlias(registry_pb2.MoveAliasRequest(alias="stable", **names))
            files = [grants_pb2.GrantFile(name="test.cedar", text=play.grants)]
            plan = await grants.PlanGrants(grants_pb2.PlanGrantsRequest(files=files))
            await grants.ApplyGrants(grants_pb2.ApplyGrantsRequest(files=files, base_digest=plan.base_digest))


@asynccontextmanager
async def rehearse(vault: DevVault, play: Play) -> AsyncIterator[Rehearsal]:
    """Hold a broker that is ready for the agent's calls."""
    source = compile_bundle(play.bundle)
    # A short folder: unix sockets lie in it, and their paths have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="tc-") as name, _processes(Path(name), source):
        folder = Path(name)
        _write_settings(folder, vault, play)
        hooks = Hooks() if play.engine else Hooks(driver_factory=_process_driver(folder))
        image_id = IMAGE
        if play.engine:
            packed = await asyncio.to_thread(pack, play.bundle, play.engine, play.cache_dir)
            image_id = packed.image_id
        async with Broker(read_settings(folder / "toolcrib.toml"), hooks) as broker:
            rehearsal = Rehearsal(folder, vault, broker, source)
            try:
                await rehearsal.set_up(play, source, image_id)
                yield rehearsal
            finally:
                await rehearsal.close()


def _process_driver(folder: Path) -> Any:
    return lambda _settings, epoch: UnsandboxedDriver(
        folder / "processes.sock", epoch.installation, epoch.number
    )


@contextmanager
def _processes(folder: Path, source: BundleSource) -> Iterator[None]:
    """Hold what runs the handlers as plain processes."""
    for name, data in source.files.items():
        path = folder / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    listener, log = folder / "processes.sock", folder / "processes.log"
    command = (sys.executable, "-m", "tests.chaos.process_engine", str(listener), str(folder / "bundle"))
    process = child_process.start(Launch(command, ROOT, log))
    try:
        for _ in attempts(10.0):
            if listener.exists():
                break
        else:
            raise RuntimeError(f"the process engine did not start: {child_process.read_end(log)}")
        yield
    finally:
        child_process.stop(process, signal.SIGKILL)


def _write_settings(folder: Path, vault: DevVault, play: Play) -> None:
    server = vault.issue_certificate(
        f"spiffe://{TRUST_DOMAIN}/broker", CERTIFICATE_SECONDS, server_names=("localhost", HOST)
    )
    (folder / "server.pem").write_text(server.cert_pem)
    (folder / "ca.pem").write_text(server.ca_pem)
    write_private(folder / "server.key", server.key_pem.reveal())
    write_private(folder / "broker.key", secrets.token_hex(32))
    write_private(folder / "role_id", vault.role_id.reveal())
    secret_id = vault.write("auth/approle/role/toolcrib-broker/secret-id")["data"]["secret_id"]
    write_private(folder / "secret_id", secret_id)
    write_private(folder / "token", vault.root_token.reveal())
    vault.install_tenant_key(TENANT)
    engine = f'[engine]\nurl = "{play.engine.base_url}"\n' if play.engine else ""
    (folder / "toolcrib.toml").write_text(f"""\
environments = ["dev"]
run_dir = "run"
development = true

[server]
listen = "{HOST}:0"
certificate = "server.pem"
private_key = "server.key"
client_ca = "ca.pem"
trust_domain = "{TRUST_DOMAIN}"

[state]
path = "state.db"
key_file = "broker.key"
epoch_seconds = 15

[vault]
address = "{vault.address}"

[vault.login]
method = "approle"
role_id_file = "role_id"
secret_id_file = "secret_id"

{engine}
{play.targets}

# What is rehearsed is not who is turned away on a busy machine.
[sandboxes.pool]
max_wait_seconds = 60

[tenants.{TENANT}]
max_concurrent_calls = 256
targets = ["*"]
vault_roles = ["*"]
""")
