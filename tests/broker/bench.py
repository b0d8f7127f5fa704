"""Single stages on a store in memory, with the shop's tools registered and no grants."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from broker.brakes import Brakes
from broker.catalogue import Catalogue
from broker.grant_book import GrantBook
from broker.keys import TenantKeys
from broker.model import Call, Caller, CallState, Role
from broker.request import Peer, Request
from broker.settings import Tenant, Workflows
from broker.stages.authenticate import Authenticator
from broker.stages.authorize import Authorizer
from broker.stages.claim import Claimed, Claimer
from broker.stages.reserve import Reserver
from broker.stages.validate import Validator
from broker.store.memory import MemoryStore
from broker.store.records import AuditEvent, ClaimScope, VersionRow
from broker.trail import Recorder, Trail
from broker.workflows import WorkflowBook
from tools.catalogue import load_version
from tools.source import BundleSource, compile_bundle

SHOP = Path(__file__).parents[2] / "tools" / "bundles" / "shop"
METHOD = "shop.v1.Orders/CreateRefundDraft"
IMAGE = "sha256:" + "0" * 64
ARGUMENTS = b'{"orderId": "A-1042", "amount": {"minorUnits": "100", "currency": "EUR"}, "comment": "broken"}'
DESK = Caller("shop", "refund-desk", Role.AGENT, "", "spiffe://x/tenant/shop/agent/refund-desk")


@lru_cache
def shop_source() -> BundleSource:
    """Compile the shop once."""
    return compile_bundle(SHOP)


def now() -> datetime:
    return datetime.now(UTC)


def make_book() -> WorkflowBook:
    """Make a book in which no workflow is open and nothing is held."""
    return WorkflowBook(TenantKeys(b"k" * 32), Workflows.model_validate({}), now)


class Bench:
    """Stages that need neither Vault nor engine."""

    def __init__(self, store: MemoryStore, catalogue: Catalogue) -> None:
        self.store = store
        self.catalogue = catalogue
        grants = GrantBook(store, catalogue, ("dev",), {})
        self.workflows = make_book()
        self.recorder = Recorder(store, self.workflows.note)
        self.brakes = Brakes()
        self.authenticate = Authenticator("x", ["shop"], now, self.brakes)
        self.validate = Validator(catalogue, store, TenantKeys(b"k" * 32), ("dev",), self.workflows)
        self.claim = Claimer(store, self.workflows)
        self.authorize = Authorizer(
            catalogue,
            grants,
            {"shop": Tenant(targets=("*",), vault_roles=("*",))},
            self.workflows,
            self.brakes,
        )
        self.reserve = Reserver(store, self.workflows)

    @classmethod
    async def make(cls, store: MemoryStore | None = None) -> Bench:
        store = store or MemoryStore()
        source = shop_source()
        version = load_version(source.descriptor_set, source.manifest_yaml, IMAGE)
        event = AuditEvent("test", "shop", "", now())
        row = VersionRow(
            "shop",
            version.bundle,
            version.version,
            version.digest,
            "REGISTERED",
            source.descriptor_set,
            source.manifest_yaml,
            IMAGE,
            "ada",
            now(),
        )
        await store.put_version(row, event)
        await store.review_version(replace(row, state="USABLE", reviewed_by="rob", reviewed=now()), event)
        await store.move_alias("shop", version.bundle, "stable", version.version, event)
        catalogue = Catalogue(store)
        await catalogue.load()
        return cls(store, catalogue)

    def request(self, key: str = "k1", environment: str = "dev") -> Request:
        metadata = {"toolcrib-idempotency-key": key, "toolcrib-environment": environment}
        return Request(Peer(b""), METHOD, ARGUMENTS, math.inf, is_json=True, metadata=metadata)

    def trail(self) -> Trail:
        trail = self.recorder.begin(self.request())
        trail.caller = DESK
        return trail

    async def make_call(self, key: str = "k1") -> tuple[Call, Trail]:
        trail = self.trail()
        return await self.validate(self.request(key), DESK, trail), trail

    def claimed(self, key: str) -> Claimed:
        return Claimed(ClaimScope("shop", "dev", DESK.name, METHOD, key))

    async def finish_a_write(self) -> None:
        """Leave a call under key k1 that SUCCEEDED."""
        call, trail = await self.make_call()
        scope = self.claimed("k1").scope
        assert scope is not None
        await self.store.claim(scope, call.digest, call.call_id)
        await self.store.reserve(trail.record(CallState.RESERVED), scope, (), trail.event("test"))
        await self.store.dispatch(call.call_id, ())
        done: Any = replace(trail.record(CallState.SUCCEEDED), result=b"")
        await self.store.complete(done, trail.event("test"))
