"""How the command line speaks: tables for people, JSON for programs, errors that say what to do.

Exit codes: 0 done · 1 refused or failed by the broker · 2 wrong usage or configuration · 3 something is
missing or unhealthy (doctor, check, verify) · 4 the broker cannot be reached · 130 interrupted.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import click

OK, REFUSED, USAGE, UNHEALTHY, UNREACHABLE = 0, 1, 2, 3, 4

Row = Mapping[str, object]


class CommandFailed(click.ClickException):
    """Ends a command with a message and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def show(rows: Sequence[Row], form: str, *, empty: str) -> None:
    """Print rows as a table of at most the terminal's width, or as JSON.

    Args:
        rows: All with the same keys, which are the headings.
        form: "table" or "json".
        empty: What a table says when there are no rows.
    """
    if form == "json":
        click.echo(json.dumps(list(rows), indent=2, default=str, ensure_ascii=False))
    elif not rows:
        click.echo(empty)
    else:
        for line in _table(rows, shutil.get_terminal_size((80, 24)).columns):
            click.echo(line)


def show_one(record: Row, form: str) -> None:
    """Print one record as lines of name and value, or as JSON."""
    if form == "json":
        click.echo(json.dumps(dict(record), indent=2, default=str, ensure_ascii=False))
        return
    width = max(len(name) for name in record)
    for name, value in record.items():
        lines = str(value).splitlines() or [""]
        click.echo(f"{name:<{width}}  {lines[0]}")
        for line in lines[1:]:
            click.echo(f"{'':<{width}}  {line}")


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Say on stderr what takes longer than a moment, and how long it took; plain when not a terminal."""
    began = time.monotonic()
    if sys.stderr.isatty():
        click.echo(f"{what} …", err=True, nl=False)
    yield
    seconds = time.monotonic() - began
    if sys.stderr.isatty():
        click.echo(f"\r{what} · {seconds:.1f} s", err=True)
    elif seconds > 1:
        click.echo(f"{what} · {seconds:.1f} s", err=True)


def _table(rows: Sequence[Row], columns: int) -> Iterator[str]:
    names = list(rows[0])
    cells = [[str(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[at]) for line in cells)) for at, name in enumerate(names)]
    # What does not fit is taken from the widest column, until it fits.
    while sum(widths) + 2 * (len(widths) - 1) > columns and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    for line in [[name.upper().replace("_", " ") for name in names], *cells]:
        yield "  ".join(_fit(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _fit(cell: str, width: int) -> str:
    flat = " ".join(cell.split())
    return f"{flat:<{width}}" if len(flat) <= width else flat[: width - 1] + "…"
