"""The numbered steps of the schema: run once, checked, and never by an older program."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.store.records import StoreError
from broker.store.schema import FOLDER, Migration, migrate, read_migrations, split_statements

STEPS = read_migrations()
NEXT = Migration(len(STEPS) + 1, "later", "CREATE TABLE later (x TEXT);")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    yield connection
    connection.close()


def tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_makes_the_tables_and_notes_each_step(connection: sqlite3.Connection) -> None:
    migrate(connection, STEPS)
    assert {"calls", "claims", "charges", "leases", "audit"} <= tables(connection)
    noted = connection.execute("SELECT number, name, checksum FROM migrations").fetchall()
    assert noted == [(step.number, step.name, step.checksum) for step in STEPS]


def test_runs_each_step_once(connection: sqlite3.Connection) -> None:
    migrate(connection, STEPS)
    migrate(connection, STEPS)
    assert connection.execute("SELECT count(*) FROM migrations").fetchone() == (len(STEPS),)


def test_runs_only_the_steps_that_are_new(connection: sqlite3.Connection) -> None:
    migrate(connection, STEPS)
    migrate(connection, [*STEPS, NEXT])
    assert "later" in tables(connection)


def test_refuses_a_database_of_a_newer_program(connection: sqlite3.Connection) -> None:
    migrate(connection, [*STEPS, NEXT])
    with pytest.raises(StoreError, match="newer Toolcrib"):
        migrate(connection, STEPS)


def test_refuses_a_database_whose_steps_were_others(connection: sqlite3.Connection) -> None:
    migrate(connection, [replace(STEPS[0], sql="-- changed\n" + STEPS[0].sql), *STEPS[1:]])
    with pytest.raises(StoreError, match="not the one"):
        migrate(connection, STEPS)


def test_leaves_nothing_of_a_step_that_fails(connection: sqlite3.Connection) -> None:
    broken = replace(NEXT, sql=NEXT.sql + "\nCREATE TABLE later (x TEXT);")
    with pytest.raises(sqlite3.Error):
        migrate(connection, [*STEPS, broken])
    connection.execute("ROLLBACK")
    assert "later" not in tables(connection)
    migrate(connection, [*STEPS, NEXT])


def test_refuses_steps_with_a_gap(tmp_path: Path) -> None:
    shutil.copy(FOLDER / f"{STEPS[0].name}.sql", tmp_path / "0002_first.sql")
    with pytest.raises(StoreError, match="incomplete"):
        read_migrations(tmp_path)


def test_splits_a_script_into_whole_statements() -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  DELETE FROM b;\n  DELETE FROM c;\nEND;\n"
    assert list(split_statements(f"-- why; why\nSELECT 1;\n{trigger}")) == [
        "-- why; why\nSELECT 1;\n",
        trigger,
    ]


def test_refuses_a_script_whose_last_statement_has_no_end() -> None:
    with pytest.raises(StoreError, match="no end"):
        list(split_statements("SELECT 1;\nSELECT 2"))
