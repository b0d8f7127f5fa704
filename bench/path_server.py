"""The whole path without sandbox and Vault, in a process of its own: prints its port, runs until stdin ends.

    python -m bench.path_server FOLDER [PROFILE]

Real are the door, the stages, the SQLite store, the sealing and the grants. A tool answers at once in the
broker itself, and data keys are made here. With a second argument the profile of the event loop's thread is
written there at the end.
"""

from __future__ import annotations

import asyncio
import base64
import cProfile
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import uvloop

from broker.api.tools_door import ToolsDoor
from broker.brakes import Brakes
from broker.catalogue import Catalogue
from broker.cipher import TenantCipher
from broker.cleaning import Cleaner
from broker.debts import Debts
from broker.grant_book import GrantBook
from broker.heap import settle_heap
from broker.keys import TenantKeys
from broker.leaks import LeakAlarm
from broker.logs import log_as_json
from broker.metrics import Metrics
from broker.model import Call
from broker.path import Path as CallPath
from broker.path import Stages
from broker.policy.files import digest_files
from broker.settings import Tenant, Workflows
from broker.stages.admit import Admission
from broker.stages.authenticate import Authenticator
from broker.stages.authorize import Authorizer
from broker.stages.claim import Claimer
from broker.stages.gate import Gate
from broker.stages.mint import Minter
from broker.stages.reserve import Reserver
from broker.stages.run import Runner
from broker.stages.sanitize import Sanitizer
from broker.stages.settle import Settler
from broker.stages.validate import Validator
from broker.store.options import StoreOptions
from broker.store.protocol import Store
from broker.store.records import AuditEvent, GrantFiles, VersionRow
from broker.store.sqlite import open_store
from broker.tenure import Tenure
from broker.trail import Recorder
from broker.workflows import WorkflowBook
from credentials.secret import Secret
from credentials.transit import DataKey
from sandboxes.egress.process import EgressProcess
from sandboxes.outcome import AnswerSign, OutcomeKind, RawOutcome
from toolcrib.handler.v1 import handler_pb2
from tools.catalogue import ToolVersion, load_version
from tools.source import compile_bundle

SHOP = Path(__file__).parents[1] / "tools" / "bundles" / "shop"
IMAGE = "sha256:" + "0" * 64
LOOKUP, DRAFT = "shop.v1.Orders/LookupOrder", "shop.v1.Orders/CreateRefundDraft"
TENANT = Tenant()
GRANTS = """
@id("bench")
permit (
    principal == Agent::"bench",
    action in [Action::"shop.v1.Orders/LookupOrder", Action::"shop.v1.Orders/CreateRefundDraft"],
    resource == Environment::"dev"
);
"""
TRUST_DOMAIN = "bench"
IDENTITY = f"spiffe://{TRUST_DOMAIN}/tenant/shop/agent/bench"
BEAT_SECONDS = 3.0
RESPONSES = {
    LOOKUP: """{"order": {"orderId": "A-1042", "state": "ORDER_STATE_PAID",
      "total": {"minorUnits": "12900", "currency": "EUR"},
      "customer": {"customerId": "c-7", "name": "Ada Tester", "note": "Please ring twice."},
      "payments": [{"paymentId": "p-1", "amount": {"minorUnits": "12900", "currency": "EUR"},
        "method": "card:4242"}], "placed": "2026-11-01T10:00:00Z"}}""",
    DRAFT: """{"draftId": "d-1", "orderId": "A-1042", "amount": {"minorUnits": "100", "currency": "EUR"}}""",
}


def utc_now() -> datetime:
    return datetime.now(UTC)


def load_shop() -> tuple[ToolVersion, bytes, str]:
    """Load the shop's tools, wanting neither credentials nor targets; with the bundle's two parts."""
    source = compile_bundle(SHOP)
    head = source.manifest_yaml.partition("\ntools:")[0]
    tools = "".join(
        f"  shop.v1.Orders/{name}: {{deadline_seconds: 10}}\n"
        for name in ("LookupOrder", "CreateRefundDraft", "IssueRefund", "LookupRefund")
    )
    manifest = f"{head}\ntools:\n{tools}"
    return load_version(source.descriptor_set, manifest, IMAGE), source.descriptor_set, manifest


class OwnKeys:
    """Makes data keys without Vault."""

    async def make_data_key(self, tenant: str) -> DataKey:
        key = os.urandom(32)
        return DataKey(Secret(base64.b64encode(key).decode()), key)

    async def unwrap(self, tenant: str, wrapped: bytes) -> Secret:
        return Secret(base64.b64encode(wrapped).decode())


class NoVault:
    """Mints nothing: nobody asks it to."""

    async def mint(self, *_: Any) -> list[Any]:
        raise AssertionError("the tools of this benchmark want no credential")

    async def end(self, *_: Any) -> datetime:
        raise AssertionError("there is no lease")


class InstantTool:
    """Answers at once; looks like a sandbox to the broker."""

    image_id, uid, is_alive = IMAGE, 1, True

    def __init__(self, responses: Mapping[str, bytes]) -> None:
        self._responses = responses
        self.container_id = uuid.uuid4().hex
        self.made = datetime.now(UTC)
        self.gone: datetime | None = None

    async def run(self, start: handler_pb2.Start, _seconds: float, _answer: AnswerSign) -> RawOutcome:
        return RawOutcome(OutcomeKind.RESULT, response=self._responses[start.method])

    def cancel(self, reason: str) -> None:
        """Nothing listens."""

    async def end(self) -> bool:
        self.gone = self.gone or datetime.now(UTC)
        return True


class InstantPlaces:
    """Gives each call a tool of its own; looks like the stage that gives places in sandboxes."""

    def __init__(self, responses: Mapping[str, bytes]) -> None:
        self._responses = responses

    @contextmanager
    def __call__(self, _call: Call) -> Iterator[InstantPlace]:
        yield InstantPlace(InstantTool(self._responses))


class InstantPlace:
    """What a call has of `InstantPlaces`."""

    def __init__(self, tool: InstantTool) -> None:
        self._tool = tool

    async def sandbox(self) -> tuple[InstantTool, None]:
        return self._tool, None

    async def let_calls_pass(self, _sandbox: InstantTool) -> None:
        """Nothing here takes the kernel's time."""


async def fill(store: Store) -> ToolVersion:
    """Register the shop's tools and apply the grants."""
    version, descriptor_set, manifest = load_shop()
    now = utc_now()
    event = AuditEvent("bench", "shop", "", now)
    row = VersionRow(
        "shop", version.bundle, version.version, version.digest, "REGISTERED", descriptor_set, manifest,
        IMAGE, "ada", now,
    )  # fmt: skip
    await store.put_version(row, event)
    await store.review_version(replace(row, state="USABLE", reviewed_by="rob", reviewed=now), event)
    await store.move_alias("shop", version.bundle, "stable", version.version, event)
    files = {"bench.cedar": GRANTS}
    await store.apply_grants("shop", GrantFiles(files, digest_files(files)), "", event)
    return version


async def make_path(store: Store, cipher: TenantCipher) -> CallPath:
    """Put the stages together."""
    version = await fill(store)
    catalogue = Catalogue(store)
    await catalogue.load()
    grants = GrantBook(store, catalogue, ("dev",), {})
    await grants.load()
    brakes, tenants, keys = Brakes(), {"shop": TENANT}, TenantKeys(b"k" * 32)
    debts = Debts(NoVault(), store)
    alarm = LeakAlarm(store, debts)
    workflows = WorkflowBook(keys, Workflows.model_validate({}), utc_now)
    await workflows.load(store)
    responses = {
        method: contract.canonical(contract.parse_result_json(text))
        for method, text in RESPONSES.items()
        if (contract := version.contracts[method])
    }
    places: Any = InstantPlaces(responses)
    return CallPath(
        Stages(
            recorder=Recorder(store, workflows.note),
            authenticate=Authenticator(TRUST_DOMAIN, ["shop"], utc_now, brakes),
            admit=Admission(tenants, 1000),
            validate=Validator(catalogue, store, keys, ("dev",), workflows),
            claim=Claimer(store, workflows),
            authorize=Authorizer(catalogue, grants, tenants, workflows, brakes),
            gate=Gate(grants, workflows),
            place=places,
            reserve=Reserver(store, workflows, None, cipher.prepare),
            mint=Minter(NoVault(), debts),
            run=Runner(EgressProcess({}), store, alarm),
            sanitize=Sanitizer(alarm, Cleaner()),
            settle=Settler(store, workflows),
        )
    )


async def serve(folder: Path) -> None:
    """Listen with the certificates in a folder, and wait."""
    cipher = TenantCipher()
    store = await open_store(folder / "state.db", StoreOptions(b"a" * 32, "k1", cipher=cipher))
    cipher.connect(store, OwnKeys())
    tenure = Tenure(store, BEAT_SECONDS)
    tenure.start()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((ToolsDoor(await make_path(store, cipher), Metrics()),))
    pair = ((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes())
    ca = (folder / "ca.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([pair], ca, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    settle_heap()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)
    await tenure.close()
    await store.close()


def main() -> None:
    """Serve; under a profile where one is asked for."""
    folder = Path(sys.argv[1])
    log_as_json((folder / "log").open("w"))
    if len(sys.argv) < 3:
        uvloop.run(serve(folder))
        return
    profile = cProfile.Profile()
    profile.enable()
    uvloop.run(serve(folder))
    profile.disable()
    profile.dump_stats(sys.argv[2])


if __name__ == "__main__":
    main()
