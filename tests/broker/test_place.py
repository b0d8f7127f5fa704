"""A call's place: taken before anything is reserved, fair, and given back on every way out."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from broker.errors import Failed, Refused
from broker.model import CallState, Mark
from broker.policy.files import digest_files
from broker.stock import Stock
from broker.store.records import AuditEvent, GrantFiles
from sandboxes.outcome import OutcomeKind, RawOutcome, SandboxUnavailable
from sandboxes.pool_memory import Memory
from sandboxes.pool_stock import Kind
from tests.broker.workshop import GRANTS, Workshop


@pytest.fixture
async def shop() -> AsyncIterator[Workshop]:
    found = await Workshop.open()
    yield found
    await found.pool.close()


async def stall() -> None:
    await asyncio.Event().wait()


async def apply(shop: Workshop, grants: str) -> None:
    files = {"a.cedar": grants} if grants else {}
    base = (await shop.store.grant_files("shop")).digest
    event = AuditEvent("test", "shop", "", datetime.now(UTC))
    await shop.store.apply_grants("shop", GrantFiles(files, digest_files(files)), base, event)
    await shop.grants.refresh("shop")


def make_scarce(shop: Workshop) -> None:
    """Leave memory for one sandbox."""
    shop.pool._memory = Memory(200)


async def test_refuses_before_anything_is_reserved_or_minted(shop: Workshop):
    make_scarce(shop)
    shop.engine.creating = stall
    first, _ = await shop.begin(shop.draft("k1"), lambda trail: bool(trail.leases))
    minted = set(shop.vault.live)
    with pytest.raises(Refused) as refusal:
        await shop.path.answer(shop.draft("k2"))
    assert refusal.value.reason_name == "TOO_MANY_CALLS"
    assert refusal.value.retry_after_seconds is not None
    assert shop.vault.live == minted
    first.cancel()
    await asyncio.wait([first])
    assert CallState.REFUSED in await shop.states()


async def test_gives_the_key_of_a_refused_call_back(shop: Workshop):
    make_scarce(shop)
    engine = asyncio.Event()
    shop.engine.creating = engine.wait
    first, _ = await shop.begin(shop.draft("k1"), lambda trail: bool(trail.leases))
    with pytest.raises(Refused):
        await shop.path.answer(shop.draft("k2"))
    first.cancel()
    while shop.path.running:
        await asyncio.sleep(0)
    engine.set()
    await shop.path.answer(shop.draft("k2"))
    assert shop.runs == 1


async def test_needs_no_sandbox_to_replay_an_answer(shop: Workshop):
    await shop.path.answer(shop.draft())
    await shop.pool.close()
    assert (await shop.path.answer(shop.draft())).replayed


async def test_makes_a_sandbox_while_the_call_is_minted(shop: Workshop):
    made = asyncio.Event()

    async def note() -> None:
        made.set()

    shop.engine.creating = note
    shop.vault.minting = made.wait
    await shop.path.answer(shop.draft())


async def test_leaves_no_sandbox_when_the_mint_fails(shop: Workshop):
    async def fail() -> None:
        raise RuntimeError("no credential")

    shop.vault.minting = fail
    with pytest.raises(Exception, match="the broker failed"):
        await shop.path.answer(shop.draft())
    await asyncio.sleep(0.01)
    assert not shop.pool._holders
    assert shop.runs == 0


async def test_says_that_no_driver_serves_the_class(shop: Workshop):
    shop.pool._drivers = {}
    with pytest.raises(Refused, match="no driver serves the class") as refusal:
        await shop.path.answer(shop.lookup())
    assert refusal.value.reason_name == "SANDBOX_UNAVAILABLE"


async def test_runs_nothing_when_none_can_be_made(shop: Workshop):
    async def fail() -> None:
        raise SandboxUnavailable("the engine is gone")

    shop.engine.creating = fail
    with pytest.raises(Exception, match="the engine is gone"):
        await shop.path.answer(shop.draft())
    assert await shop.states() == [CallState.FAILED]
    assert shop.is_clean()


async def test_ends_waiting_for_a_sandbox_at_the_deadline(shop: Workshop):
    shop.engine.creating = stall
    request = replace(shop.lookup(), deadline=asyncio.get_running_loop().time() + 0.3)
    with pytest.raises(Exception, match="the time was up") as error:
        await shop.path.answer(request)
    assert error.value.reason_name == "DEADLINE_EXCEEDED"  # type: ignore[attr-defined]
    assert request.deadline < math.inf


async def test_ends_the_sandbox_then_the_way_out_then_the_leases(shop: Workshop):
    order: list[str] = []

    async def note() -> None:
        order.append("lease")

    shop.vault.ending = note
    shop.engine.ended = lambda: order.append("sandbox")
    shop.engine.closed = lambda: order.append("way out")
    await shop.path.answer(shop.lookup())
    assert order[:1] == ["sandbox"]
    assert list(dict.fromkeys(order)) == ["sandbox", "way out", "lease"]


@pytest.mark.parametrize(
    ("outcome", "marks"),
    [
        (RawOutcome(OutcomeKind.CRASHED, log="little"), ()),
        (RawOutcome(OutcomeKind.FAILURE, log="so much", log_truncated=True), (Mark.TRUNCATED,)),
        (RawOutcome(OutcomeKind.OUTPUT_TOO_LARGE), (Mark.TRUNCATED,)),
    ],
)
async def test_marks_a_call_of_whose_output_a_part_is_missing(
    shop: Workshop, outcome: RawOutcome, marks: tuple[Mark, ...]
):
    async def tool(_start: object) -> RawOutcome:
        return outcome

    shop.tool = tool
    with contextlib.suppress(Failed):
        await shop.path.answer(shop.lookup())
    (call,) = await shop.calls()
    assert call.marks == marks


def kind_of(shop: Workshop, stock: Stock) -> Kind:
    (entry,) = shop.catalogue.entries("shop")
    return stock.kind("shop", entry.version)


async def test_names_the_kind_by_tenant_version_and_manifest(shop: Workshop):
    stock = Stock(shop.catalogue, shop.grants)
    kind, (entry,) = kind_of(shop, stock), shop.catalogue.entries("shop")
    assert (kind.tenant, kind.digest, kind.has_nest) == ("shop", entry.version.digest, True)
    assert stock.is_wanted(kind)
    assert stock.kind("rival", entry.version) != kind


async def test_wants_nothing_of_a_version_that_is_not_usable_any_more(shop: Workshop):
    stock = Stock(shop.catalogue, shop.grants)
    kind, (entry,) = kind_of(shop, stock), shop.catalogue.entries("shop")
    shop.catalogue._entries["shop"] = {
        ("shop", entry.row.version): replace(entry, row=replace(entry.row, state="REJECTED"))
    }
    assert not stock.is_wanted(kind)


async def test_wants_nothing_that_no_grant_names_any_more(shop: Workshop):
    stock = Stock(shop.catalogue, shop.grants)
    kind = kind_of(shop, stock)
    await apply(shop, "")
    assert not stock.is_wanted(kind)


async def test_wants_nothing_while_the_grants_are_broken(shop: Workshop):
    stock = Stock(shop.catalogue, shop.grants)
    kind = kind_of(shop, stock)
    await apply(shop, "permit (nonsense")
    assert not stock.is_wanted(kind)


async def test_wants_another_kind_when_a_grants_limits_change(shop: Workshop):
    stock = Stock(shop.catalogue, shop.grants)
    before = kind_of(shop, stock)
    await apply(shop, GRANTS.replace("@targets", '@limit_calls("5/1h")\n@targets'))
    after = kind_of(shop, stock)
    assert (stock.is_wanted(before), stock.is_wanted(after)) == (False, True)


async def test_keeps_the_kind_when_something_else_changes(shop: Workshop):
    stock = Stock(shop.catalogue, shop.grants)
    before = kind_of(shop, stock)
    await apply(shop, GRANTS + "\n// a remark\n")
    assert kind_of(shop, stock) == before
    assert stock.is_wanted(before)


async def test_reviews_the_pool_when_grants_or_versions_change(shop: Workshop):
    reviews: list[str] = []
    shop.grants.on_change = lambda: reviews.append("grants")
    shop.catalogue.on_change = lambda: reviews.append("versions")
    await apply(shop, "")
    await shop.catalogue.refresh("shop")
    assert reviews == ["grants", "versions"]
