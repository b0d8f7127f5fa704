"""A write in doubt that is sent again: it may ask of its HTTP targets what its grant left, and no more."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.doubts import Doubts
from broker.errors import CallError
from broker.fence import Fence
from broker.keys import TenantKeys
from broker.model import CallRecord, CallState
from broker.policy.files import digest_files
from broker.request import Peer, Request
from broker.resolution import Resolution, Tuning
from broker.store.records import AuditEvent, GrantFiles
from sandboxes.nests import Nest
from sandboxes.outcome import OutcomeKind, RawOutcome
from sandboxes.proxy.access import HttpAccess
from tests.broker.bench import Bench, now
from tests.broker.office import register
from tests.broker.test_resolution import FakeDriver, Quick
from tests.broker.workshop import FakeEngine, MoodyStore, Workshop
from toolcrib.handler.v1 import handler_pb2
from tools.source import compile_bundle

CRM = Path(__file__).parents[2] / "tools" / "bundles" / "crm"
METHOD = "crm.v1.Crm/AddNote"
NOTE = b'{"contactId": "C-1001", "text": "called"}'
WRITTEN = RawOutcome(OutcomeKind.RESULT, response=b"\x0a\x03N-7\x12\x06C-1001")
QUICK = Tuning(look_seconds=0.01, first_pause_seconds=0.001, longest_pause_seconds=0.002, max_tries=3)
RULE = "POST /v1/contacts/C-1001/notes"
GRANT = f"""
@id("notes") @targets("crm") @egress("crm {RULE}")
permit (principal == Agent::"refund-desk", action == Action::"{METHOD}", resource == Environment::"dev");
"""


class Watched(FakeEngine):
    """Notes what each call may ask of its HTTP targets."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._desk = desk

    @asynccontextmanager
    async def open(self, call_id: str, nest: Nest, names: Sequence[str], *more: Any) -> AsyncIterator[Any]:
        self._desk.narrowed += map(narrowed, more[0])
        async with super().open(call_id, nest, names) as egress:
            yield egress


class Desk(Workshop):
    """A workshop whose tool adds notes to contacts; its first answer gets lost.

    Attributes:
        narrowed: The grant's rules that each run was held to.
    """

    def make_engine(self) -> FakeEngine:
        self.narrowed: list[list[str] | None] = []
        self.grants.targets = {"crm": "http"}
        self.tool = self.add_note
        return Watched(self)

    async def add_note(self, _start: handler_pb2.Start) -> RawOutcome:
        return RawOutcome(OutcomeKind.CRASHED) if self.runs == 1 else WRITTEN

    async def apply(self, grants: str) -> None:
        """Put other grants in force."""
        files = {"a.cedar": grants}
        held = await self.store.grant_files("shop")
        event = AuditEvent("test", "shop", "", now())
        await self.store.apply_grants("shop", GrantFiles(files, digest_files(files)), held.digest, event)
        await self.grants.refresh("shop")

    async def lose(self) -> CallRecord:
        """Leave a call in doubt."""
        key = {"toolcrib-idempotency-key": "k1"}
        with pytest.raises(CallError, match="not known yet"):
            await self.path.answer(Request(Peer(b""), METHOD, NOTE, math.inf, is_json=True, metadata=key))
        return (await self.store.in_doubt())[0]

    async def resolve(self, call: CallRecord) -> CallRecord:
        """Let a call be resolved."""
        fence = Fence(FakeDriver(), self.debts, _nothing, self.store.epoch.number)  # type: ignore[arg-type]
        inquirer = Quick(self.path, self.catalogue, self.grants, TenantKeys(b"k" * 32))
        resolution = Resolution(self.store, Doubts(), fence, inquirer, self.brakes, QUICK)
        resolution.start()
        async with asyncio.timeout(10):
            while True:
                found = await self.store.get_call("shop", call.call_id)
                if found is not None and found.state is not CallState.IN_DOUBT:
                    break
                await asyncio.sleep(0.005)
        await resolution.close()
        return found


async def _nothing() -> list[str]:
    return []


@pytest.fixture
async def desk() -> Desk:
    source = compile_bundle(CRM)
    manifest = yaml.safe_load(source.manifest_yaml)
    manifest["credentials"] = {}
    for tool in manifest["tools"].values():
        tool["credentials"] = []
    store = MoodyStore()
    catalogue = await register(store, replace(source, manifest_yaml=yaml.safe_dump(manifest)))
    desk = Desk(Bench(store, catalogue), store)
    await desk.apply(GRANT)
    return desk


def narrowed(access: HttpAccess) -> list[str] | None:
    return None if access.narrowed is None else [rule.text for rule in access.narrowed]


async def test_keeps_to_what_the_grant_left(desk: Desk) -> None:
    found = await desk.resolve(await desk.lose())
    assert (found.state, desk.runs) == (CallState.SUCCEEDED, 2)
    assert desk.narrowed == [[RULE], [RULE]]


async def test_is_as_free_as_the_grant_was(desk: Desk) -> None:
    await desk.apply(GRANT.replace(f'@egress("crm {RULE}")', ""))
    await desk.resolve(await desk.lose())
    assert desk.narrowed == [None, None]


async def test_goes_to_a_person_where_the_grant_is_not_there_any_more(desk: Desk) -> None:
    call = await desk.lose()
    await desk.apply(GRANT.replace('@id("notes")', '@id("other")'))
    found = await desk.resolve(call)
    assert (found.state, desk.runs) == (CallState.NEEDS_HUMAN, 1)
    assert 'grant "notes", which may have narrowed its requests, is not there any more' in found.message


async def test_goes_to_a_person_where_a_forbid_has_the_grants_id_by_now(desk: Desk) -> None:
    call = await desk.lose()
    scope = f'principal == Agent::"refund-desk", action == Action::"{METHOD}", resource'
    await desk.apply(f'@id("notes") forbid ({scope});')
    assert ((await desk.resolve(call)).state, desk.runs) == (CallState.NEEDS_HUMAN, 1)


async def test_waits_while_the_grants_do_not_check(desk: Desk) -> None:
    call = await desk.lose()
    desk.grants.targets = {}  # the target went out of the operator's file
    await desk.grants.refresh("shop")
    resolving = asyncio.create_task(desk.resolve(call))
    await asyncio.sleep(0.3)
    assert (desk.runs, await desk.states()) == (1, [CallState.IN_DOUBT])
    desk.grants.targets = {"crm": "http"}
    await desk.grants.refresh("shop")
    assert (await resolving).state is CallState.SUCCEEDED
    assert desk.narrowed == [[RULE], [RULE]]
