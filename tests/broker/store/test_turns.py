"""Whose change is written first: one that nobody waits for comes last, and whatever comes after sees it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from broker.store.database import MAX_LATE, Database, Turn, connect


class Bench:
    """A bare database that keeps what was written in the order in which it was."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self.connection = connect(path, writes=True)
        self.connection.execute("CREATE TABLE epochs (number INTEGER)")
        self.connection.execute("INSERT INTO epochs VALUES (1)")
        self.connection.execute("CREATE TABLE notes (text TEXT)")
        self.database = Database(path, self.connection, 1)

    async def note(self, text: str, turn: Turn = Turn.NEXT) -> None:
        await self.database.write(_insert(text), turn)

    def begin(self, text: str, turn: Turn) -> asyncio.Task[None]:
        return asyncio.create_task(self.note(text, turn))

    async def notes(self, *, sees_late: bool = True) -> list[str]:
        return await self.database.read(
            lambda connection: [row["text"] for row in connection.execute("SELECT text FROM notes")],
            sees_late=sees_late,
        )


def _insert(text: str) -> Callable[[sqlite3.Connection], None]:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes VALUES (?)", (text,))

    return change


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "notes.db")
    yield bench
    await bench.database.close()


async def test_writes_first_what_may_come_first(bench: Bench) -> None:
    tasks = [bench.begin("late", Turn.LAST), bench.begin("first", Turn.FIRST)]
    await asyncio.gather(*tasks)
    assert await bench.notes() == ["first", "late"]


async def test_keeps_the_order_of_what_comes_next(bench: Bench) -> None:
    tasks = [bench.begin("late", Turn.LAST), bench.begin("next", Turn.NEXT), bench.begin("first", Turn.FIRST)]
    await asyncio.gather(*tasks)
    assert await bench.notes() == ["late", "next", "first"]


async def test_shows_what_is_late_to_a_query(bench: Bench) -> None:
    task = bench.begin("late", Turn.LAST)
    await asyncio.sleep(0)
    assert await bench.notes() == ["late"]
    await task


async def test_writes_what_is_late_although_nothing_else_comes(bench: Bench) -> None:
    async with asyncio.timeout(5):
        await bench.note("late", Turn.LAST)
    assert await bench.notes(sees_late=False) == ["late"]


async def test_writes_what_is_late_although_others_never_stop_coming(bench: Bench) -> None:
    late = [bench.begin(f"late {number}", Turn.LAST) for number in range(MAX_LATE)]
    async with asyncio.timeout(5):
        while not late[0].done():
            await bench.note("first", Turn.FIRST)
    assert (await bench.notes()).count("first") < MAX_LATE


async def test_writes_one_that_is_late_although_others_never_stop_coming(bench: Bench) -> None:
    late = bench.begin("late", Turn.LAST)
    async with asyncio.timeout(5):
        while not late.done():
            await asyncio.gather(*(bench.note("first", Turn.FIRST) for _ in range(3)))
    assert (await bench.notes()).count("first") <= 3 * (MAX_LATE + 3)


async def test_writes_what_is_late_before_it_closes(bench: Bench, tmp_path: Path) -> None:
    task = bench.begin("late", Turn.LAST)
    await asyncio.sleep(0)
    await bench.database.close()
    await task
    with sqlite3.connect(tmp_path / "notes.db") as connection:
        assert connection.execute("SELECT text FROM notes").fetchall() == [("late",)]
    connection.close()
