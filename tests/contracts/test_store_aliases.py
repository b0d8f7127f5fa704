"""Aliases go back the way they came, whatever keeps them."""

from __future__ import annotations

import pytest

from broker.store.protocol import Store
from broker.store.records import AliasElsewhere, AliasStep
from tests.contracts.stores import make_event, make_version, read_audit

BACK = AliasStep("acme", "shop", "stable", left="1.2.0", reached="1.1.0")


@pytest.fixture
async def moved(store: Store) -> Store:
    """A store whose alias came by three versions."""
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        await store.put_version(make_version(version), make_event())
        await store.move_alias("acme", "shop", "stable", version, make_event())
    return store


async def name_steps(store: Store, tenant: str = "acme", alias: str = "stable") -> list[str]:
    return list(await store.alias_steps(tenant, "shop", alias))


async def test_names_the_versions_that_an_alias_came_by(moved: Store) -> None:
    assert await name_steps(moved) == ["1.2.0", "1.1.0", "1.0.0"]


async def test_names_none_of_another_alias_or_tenant(moved: Store) -> None:
    assert await name_steps(moved, alias="canary") == []
    assert await name_steps(moved, tenant="b") == []


async def test_a_move_to_where_it_is_is_no_step(moved: Store) -> None:
    await moved.move_alias("acme", "shop", "stable", "1.2.0", make_event())
    assert await name_steps(moved) == ["1.2.0", "1.1.0", "1.0.0"]


async def test_goes_back_step_by_step(moved: Store) -> None:
    assert await moved.step_back(BACK, make_event()) == make_version("1.1.0", aliases=("stable",))
    assert await moved.get_version("acme", "shop", "1.2.0") == make_version("1.2.0")
    again = AliasStep("acme", "shop", "stable", left="1.1.0", reached="1.0.0")
    assert (await moved.step_back(again, make_event())).version == "1.0.0"
    assert await name_steps(moved) == ["1.0.0"]


async def test_goes_on_from_where_it_went_back_to(moved: Store) -> None:
    await moved.step_back(BACK, make_event())
    await moved.move_alias("acme", "shop", "stable", "1.2.0", make_event())
    assert await name_steps(moved) == ["1.2.0", "1.1.0", "1.0.0"]


@pytest.mark.parametrize(
    ("tenant", "left", "reached"),
    [("acme", "1.1.0", "1.0.0"), ("acme", "1.2.0", "1.0.0"), ("b", "1.2.0", "1.1.0")],
)
async def test_goes_back_no_other_way(moved: Store, tenant: str, left: str, reached: str) -> None:
    before = await read_audit(moved)
    with pytest.raises(AliasElsewhere):
        await moved.step_back(AliasStep(tenant, "shop", "stable", left, reached), make_event(tenant))
    assert await name_steps(moved) == ["1.2.0", "1.1.0", "1.0.0"]
    assert await read_audit(moved) == before


async def test_two_who_go_back_at_once_go_one_step(moved: Store) -> None:
    await moved.step_back(BACK, make_event())
    with pytest.raises(AliasElsewhere):
        await moved.step_back(BACK, make_event())


async def test_records_a_step_back(moved: Store) -> None:
    before = len(await read_audit(moved))
    await moved.step_back(BACK, make_event())
    assert len(await read_audit(moved)) == before + 1
