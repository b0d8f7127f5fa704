"""What the catalogue shows is what was decided last; one bad version keeps nobody from starting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.catalogue import Catalogue
from broker.errors import Refused
from broker.grant_book import GrantBook
from broker.policy.grants import GrantsInvalid
from broker.store.memory import MemoryStore
from broker.store.records import AuditEvent, Page, VersionRow
from tests.broker.bench import METHOD, Bench
from tests.broker.workshop import GRANTS

EVENT = AuditEvent("test", "shop", "", datetime.now(UTC))


class SlowStore(MemoryStore):
    """The first look of the test comes back late."""

    gate: asyncio.Event | None = None

    async def list_versions(self, *arguments: Any, **options: Any) -> Page[VersionRow]:
        page = await super().list_versions(*arguments, **options)
        if self.gate:
            gate, self.gate = self.gate, None
            await gate.wait()
        return page


async def reject(store: MemoryStore) -> None:
    row = await store.get_version("shop", "shop", "1.0.0")
    assert row is not None
    await store.review_version(replace(row, state="REJECTED"), EVENT)


async def test_an_older_look_never_replaces_a_newer_one():
    store = SlowStore()
    bench = await Bench.make(store)
    gate = store.gate = asyncio.Event()
    older = asyncio.create_task(bench.catalogue.refresh("shop"))
    await asyncio.sleep(0.02)
    await reject(store)
    newer = asyncio.create_task(bench.catalogue.refresh("shop"))
    await asyncio.sleep(0.02)
    gate.set()
    await asyncio.gather(older, newer)
    with pytest.raises(Refused) as refusal:
        bench.catalogue.resolve("shop", METHOD, "1.0.0")
    assert refusal.value.reason_name == "TOOL_NOT_USABLE"


async def test_leaves_out_a_version_that_todays_rules_refuse():
    store = MemoryStore()
    bench = await Bench.make(store)
    row = await store.get_version("shop", "shop", "1.0.0")
    assert row is not None
    underlined = row.manifest_yaml.replace("orders-db", "orders_db")
    rows: Sequence[VersionRow] = [
        replace(row, version="0.9.0", digest="0", manifest_yaml="bundle: ["),
        replace(row, version="0.8.0", digest="1", manifest_yaml=underlined),
    ]
    for bad in rows:
        await store.put_version(bad, EVENT)
    await bench.catalogue.refresh("shop")
    assert [bench.catalogue.find("shop", "shop", bad.version) for bad in rows] == [None, None]
    assert bench.catalogue.resolve("shop", METHOD, "")


def without_rules(manifest: str) -> str:
    """Write a manifest as one of kind http could be before it had to say what may be asked."""
    return manifest.replace("kind: postgresql", "kind: http")


async def replace_by_older_form(store: MemoryStore) -> Catalogue:
    """Have the shop's one version be of the older form when the broker starts again."""
    row = await store.get_version("shop", "shop", "1.0.0")
    assert row is not None
    older = MemoryStore()
    await older.put_version(replace(row, manifest_yaml=without_rules(row.manifest_yaml)), EVENT)
    catalogue = Catalogue(older)
    await catalogue.refresh("shop")
    return catalogue


async def test_says_of_a_version_of_an_older_form_that_it_is_left_out():
    bench = await Bench.make()
    catalogue = await replace_by_older_form(bench.store)
    with pytest.raises(Refused, match="left out") as refusal:
        catalogue.resolve("shop", METHOD, "1.0.0")
    assert refusal.value.reason_name == "TOOL_NOT_USABLE"
    assert list(catalogue.entries("shop")) == []


async def test_keeps_the_names_of_its_tools():
    """Else another bundle could take them, and with them the grants that name them."""
    bench = await Bench.make()
    catalogue = await replace_by_older_form(bench.store)
    ((row, methods),) = catalogue.registered("shop")
    assert (row.bundle, METHOD in methods) == ("shop", True)


async def test_grants_that_name_its_tools_go_on_to_check():
    """Else one bundle of an older form would end all grants of its tenant."""
    bench = await Bench.make()
    catalogue = await replace_by_older_form(bench.store)
    book = GrantBook(bench.store, catalogue, ("dev",), {"orders-db": "postgresql"})
    assert (await book.compile("shop", {"all.cedar": GRANTS})).policies
    with pytest.raises(GrantsInvalid):  # the control: what nobody knows is refused
        await book.compile("shop", {"all.cedar": GRANTS.replace("LookupOrder", "LookUpOrder")})
