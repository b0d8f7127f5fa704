"""How the command line speaks: tables for people, JSON for programs, CSV for spreadsheets, errors that help.

Exit codes, the same for every command:

    0    done
    1    the broker refused, or what it allowed went wrong
    2    wrong usage, configuration or profile
    3    something is missing, broken or unhealthy: doctor, check, verify, and a broker that cannot start
    4    the broker cannot be reached
    130  interrupted
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import IO, Any, TypeVar

import click

OK, REFUSED, USAGE, UNHEALTHY, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130
NARROWEST = 8
FORMULA_SIGNS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
"""A spreadsheet takes a cell that begins with one of these for a formula, which may run a program or send
data away; what stands in a cell was often chosen by an agent or a tool."""
LATER_CELL = re.compile(rf"(;\s*)(?=[{re.escape(FORMULA_SIGNS)}])")
"""Where a spreadsheet whose country separates by semicolons would begin another such cell."""

Row = Mapping[str, object]
Command = TypeVar("Command", bound=Callable[..., Any] | click.Command)


class CommandFailed(click.ClickException):
    """Ends a command with a message and an exit code.

    Attributes:
        details: What a program may want to know of it: reason, violations, call_id, ….
    """

    def __init__(self, message: str, exit_code: int, *, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc] # click reads it from the instance
        self.details = dict(details or {})
        context = click.get_current_context(silent=True)
        self._form = context.params.get("form", "table") if context else "table"

    def format_message(self) -> str:
        """Say it without what a terminal would obey: a tool or another server may have worded it."""
        return to_printable(self.message)

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it on stderr: as JSON where the command was asked for JSON."""
        if self._form != "json":
            super().show(file)
            return
        error = {"message": self.message, **self.details, "exit_code": self.exit_code}
        click.echo(to_json({"error": error}), file=file, err=True)


class Commands(click.Group):
    """A group that imports a command when it is named, and answers Ctrl-C with exit code 130.

    What `serve` needs takes a second to import; who calls a tool should not wait for it.

    Attributes:
        places: Where commands are that were not imported yet, by name: "module:attribute".
    """

    def __init__(self, *args: Any, places: Mapping[str, str] | None = None, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.places = dict(places or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every command, imported or not."""
        return sorted({*super().list_commands(ctx), *self.places})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command; imports it at its first use."""
        if cmd_name in self.places and cmd_name not in self.commands:
            module, _, attribute = self.places[cmd_name].partition(":")
            self.add_command(getattr(import_module(module), attribute), cmd_name)
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


def _output_option(forms: Sequence[str], text: str) -> Callable[[Command], Command]:
    return click.option(
        "-o", "--output", "form", type=click.Choice(forms), default="table", show_default=True, help=text
    )


output_option = _output_option(["table", "json"], "For people or for programs.")
list_output_option = _output_option(["table", "json", "csv"], "For people, programs or spreadsheets.")


def to_json(value: object) -> str:
    """Write a value as JSON for people and programs; what a terminal would obey is escaped."""
    text = json.dumps(value, indent=2, default=str, ensure_ascii=False)
    return "".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text)


def show(
    rows: Sequence[Row],
    form: str,
    *,
    empty: str,
    whole: Collection[str] = (),
    headings: Sequence[str] = (),
) -> None:
    """Print rows as a table of at most the terminal's width, as JSON, or as CSV.

    Args:
        rows: All with the same keys, which are the headings.
        form: "table", "json" or "csv".
        empty: What a table says when there are no rows.
        whole: Columns that are never cut, such as ids that other commands take.
        headings: Of a CSV without rows.
    """
    if form == "json":
        click.echo(to_json(list(rows)))
    elif form == "csv":
        click.echo(to_csv(rows, headings), nl=False)
    elif not rows:
        click.echo(empty, err=True)
    else:
        for line in table(rows, terminal_columns(), whole):
            click.echo(line)


def to_csv(rows: Sequence[Row], headings: Sequence[str] = ()) -> str:
    """Write rows as CSV with a line of headings (RFC 4180: CRLF, doubled quotes).

    Several values in one cell are joined with "; ". Text that a spreadsheet would take for a formula gets an
    apostrophe in front, after a semicolon too (OWASP, "CSV Injection"); what a terminal would obey is
    escaped.
    """
    names = list(rows[0]) if rows else list(headings)
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\r\n")
    if names:
        writer.writerow(names)
    writer.writerows([_to_cell(row[name]) for name in names] for row in rows)
    return page.getvalue()


def _to_cell(value: object) -> str | int | float:
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple):
        return _to_cell("; ".join(map(_to_text, value)))
    text = _to_text(value)
    risky = text[:1] in FORMULA_SIGNS or text.lstrip()[:1] in FORMULA_SIGNS
    text = LATER_CELL.sub(r"\1'", text)
    return to_printable(f"'{text}" if text and risky else text)


def _to_text(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, Mapping) else str(value)


def show_one(record: Row, form: str) -> None:
    """Print one record as lines of name and value, as wide as the terminal where words allow; or as JSON."""
    if form == "json":
        click.echo(to_json(dict(record)))
        return
    width = max(len(name) for name in record)
    for name, value in record.items():
        lines = [part for line in to_printable(str(value)).split("\n") for part in wrap(line, width + 2)]
        click.echo(f"{name.replace('_', ' '):<{width}}  {lines[0]}".rstrip())
        for line in lines[1:]:
            click.echo(f"{'':<{width}}  {line}".rstrip())


def wrap(line: str, left: int = 0) -> list[str]:
    """Break a line at its blanks where it is wider than the terminal; ids, paths and addresses stay whole.

    Args:
        line: Printable text.
        left: Columns that stand before each of the lines.
    """
    columns = max(terminal_columns() - left, NARROWEST)
    if len(line) <= columns:
        return [line]
    return textwrap.wrap(line, columns, break_long_words=False, break_on_hyphens=False) or [""]


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Say on stderr what takes longer than a moment, and how long it took; plain when not a terminal."""
    began = time.monotonic()
    is_terminal = sys.stderr.isatty()
    if is_terminal:
        click.echo(f"{what} …", err=True, nl=False)
    try:
        yield
    finally:
        seconds = time.monotonic() - began
        if is_terminal:
            click.echo(f"\r{what} · {seconds:.1f} s", err=True)
        elif seconds > 1:
            click.echo(f"{what} · {seconds:.1f} s", err=True)


def terminal_columns() -> int:
    """Tell how wide a line may be: 80 where there is no terminal."""
    return shutil.get_terminal_size((80, 24)).columns


def table(rows: Sequence[Row], columns: int, whole: Collection[str] = ()) -> Iterator[str]:
    """Lay rows out in columns; what does not fit is cut from the widest that may be cut."""
    names = list(rows[0])
    cells = [[to_printable(" ".join(str(row[name]).split())) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[at]) for line in cells)) for at, name in enumerate(names)]
    while sum(widths) + 2 * (len(widths) - 1) > columns:
        cuttable = [at for at, name in enumerate(names) if name not in whole and widths[at] > NARROWEST]
        if not cuttable:
            break
        widths[max(cuttable, key=lambda at: widths[at])] -= 1
    for line in [[name.upper().replace("_", " ") for name in names], *cells]:
        yield "  ".join(_fit(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _fit(cell: str, width: int) -> str:
    return f"{cell:<{width}}" if len(cell) <= width else cell[: width - 1] + "…"


def to_printable(text: str) -> str:
    """Show what a terminal would obey (escape sequences from a tool's log, say) instead of sending it."""
    return "".join(sign if sign.isprintable() or sign in "\t\n" else repr(sign)[1:-1] for sign in text)
