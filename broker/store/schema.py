"""The database's schema: the numbered steps of migrations/, each run once in a transaction of its own.

Rules:
1. Steps are numbered from 1 without a gap; the checksum of each is kept when it ran.
2. A database with a step that this program does not know, or knows otherwise, is refused and left as it is.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.store.records import StoreError

FOLDER = Path(__file__).parent / "migrations"

_CREATE_LIST = """
CREATE TABLE IF NOT EXISTS migrations (
  number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the step's text, hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read_migrations(folder: Path = FOLDER) -> Sequence[Migration]:
    """Read the steps that this program knows, in order.

    Raises:
        StoreError: They are not numbered from 1 without a gap.
    """
    steps = [
        Migration(int(path.name[:4]), path.stem, path.read_text())
        for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    ]
    if not steps or [step.number for step in steps] != list(range(1, len(steps) + 1)):
        raise StoreError(f"{folder}: the schema's steps are incomplete; install the program again")
    return steps


def migrate(connection: sqlite3.Connection, steps: Sequence[Migration]) -> None:
    """Bring a database to the schema of this program.

    Raises:
        StoreError: It was made by a newer program, or by another one.
    """
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute(_CREATE_LIST)
    done = check_schema(connection, steps)
    connection.execute("COMMIT")
    for step in steps[done:]:
        connection.execute("BEGIN EXCLUSIVE")
        for statement in split_statements(step.sql):
            connection.execute(statement)
        connection.execute("INSERT INTO migrations VALUES (?, ?, ?)", (step.number, step.name, step.checksum))
        connection.execute("COMMIT")


def check_schema(connection: sqlite3.Connection, steps: Sequence[Migration]) -> int:
    """See that the steps a database has are steps of this program.

    Returns:
        How many there are.

    Raises:
        StoreError: It was made by a newer program, or by another one.
    """
    rows = connection.execute("SELECT number, name, checksum FROM migrations ORDER BY number").fetchall()
    if len(rows) > len(steps):
        raise StoreError(
            f"it has schema {rows[-1][0]} ({rows[-1][1]}), made by a newer Toolcrib; this one knows "
            f"{len(steps)}. Start the newer one, or restore a backup made before it"
        )
    for step, row in zip(steps, rows, strict=False):
        if (step.number, step.checksum) != (row[0], row[2]):
            raise StoreError(f"its schema step {row[0]} ({row[1]}) is not the one that this Toolcrib knows")
    return len(rows)


def split_statements(sql: str) -> Iterator[str]:
    """Split a script into statements (`executescript` would commit the transaction around it)."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        raise StoreError(f"a statement has no end: {statement.strip()[:60]}")
