"""Turns at a login that exists once."""

from __future__ import annotations

import asyncio

import pytest

from credentials.turns import Turns

LOGIN = ("database_static", "reports")


@pytest.fixture
def turns() -> Turns:
    return Turns()


async def is_free(turns: Turns) -> bool:
    return await turns.take(LOGIN, 0.02)


async def test_gives_a_login_to_one_call_at_a_time(turns: Turns) -> None:
    assert await is_free(turns)
    assert not await is_free(turns)


async def test_gives_it_to_the_next_after_the_end(turns: Turns) -> None:
    assert await is_free(turns)
    turns.belongs_to(LOGIN, "first")
    waiting = asyncio.create_task(turns.take(LOGIN, 5))
    await asyncio.sleep(0)
    turns.end(LOGIN, "first")
    assert await waiting


async def test_frees_nothing_for_anothers_end(turns: Turns) -> None:
    assert await is_free(turns)
    turns.belongs_to(LOGIN, "first")
    turns.end(LOGIN, "another")
    assert not await is_free(turns)


async def test_frees_a_login_that_could_not_be_read(turns: Turns) -> None:
    assert await is_free(turns)
    turns.fail(LOGIN, [])
    assert await is_free(turns)


async def test_keeps_a_login_whose_end_is_owed(turns: Turns) -> None:
    assert await is_free(turns)
    turns.fail(LOGIN, ["owed"])
    assert not await is_free(turns)
    turns.end(LOGIN, "owed")
    assert await is_free(turns)


async def test_keeps_a_login_until_all_that_an_earlier_run_owed_is_ended(turns: Turns) -> None:
    await turns.hold(LOGIN, "one")
    await turns.hold(LOGIN, "two")
    turns.end(LOGIN, "one")
    assert not await is_free(turns)
    turns.end(LOGIN, "two")
    assert await is_free(turns)


async def test_keeps_other_logins_free(turns: Turns) -> None:
    await turns.hold(LOGIN, "one")
    assert await turns.take(("database_static", "orders"), 0.02)


async def test_lets_nobody_end_what_another_has(turns: Turns) -> None:
    assert turns.may_end(LOGIN, "one")
    await turns.hold(LOGIN, "one")
    assert turns.may_end(LOGIN, "one")
    assert not turns.may_end(LOGIN, "another")
