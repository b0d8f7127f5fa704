"""`toolcrib audit reconcile`: our record and Vault's own audit log, compared lease by lease, offline."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import click

from broker.audit import ChainBroken
from broker.cli.audit import Places, chain_options, find_chain, say_broken
from broker.cli.output import (
    UNHEALTHY,
    USAGE,
    CommandFailed,
    list_output_option,
    progress,
    show,
    table,
    terminal_columns,
    to_printable,
)
from broker.reconciliation.comparison import Comparison, LogLines, compare
from broker.reconciliation.differences import Difference
from broker.reconciliation.ledger import Window
from broker.reconciliation.vault_log import LogHidden
from broker.store.records import StoreError
from broker.store.sqlite import read_audit

HEADINGS = ("difference", "call", "lease", "accessor", "file", "line", "record", "look_at")


def _read_moment(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise click.BadParameter(f'"{value}" is no time with its zone; write 2026-11-21T12:00:00Z')
    return moment


@click.command("reconcile")
@click.option(
    "--vault-log",
    "logs",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    multiple=True,
    required=True,
    metavar="FILE",
    help="Vault's audit log; several times, oldest first, where it was rotated; - for stdin.",
)
@click.option(
    "--since",
    callback=_read_moment,
    metavar="TIME",
    help="Only what was made from then on (with its zone).",
)
@click.option("--until", callback=_read_moment, metavar="TIME", help="Only what was made until then.")
@chain_options
@list_output_option
@click.pass_context
def reconcile(  # noqa: PLR0913 - one parameter an option
    context: click.Context,
    *,
    logs: Sequence[Path],
    since: datetime | None,
    until: datetime | None,
    config: Path | None,
    state_db: Path | None,
    key_file: Path | None,
    anchor: str | None,
    form: str,
) -> None:
    """Compare our record with Vault's own audit log, lease by lease.

    Every child token and lease must have been made and ended on both sides, for the same call. Each
    difference is one row; exit code 3 when there is one, or when our own chain does not hold. Both sides may
    be in use meanwhile; of copies, copy the state first, or name --until.
    """
    places = find_chain(config, state_db, key_file, anchor)
    with ExitStack() as stack, progress("comparing"):
        lines = LogLines([_open(path, stack) for path in logs])
        found = asyncio.run(_compare(places, lines, Window(since, until)))
    if not found.lines:
        raise CommandFailed("Vault's log is empty: nothing was compared", UNHEALTHY)
    rows = [_describe(one, logs, lines) for one in found.differences]
    if form != "table":
        show(rows, form, empty="", headings=HEADINGS)
    else:
        _print(rows)
    _summarize(found)
    if found.differences:
        context.exit(UNHEALTHY)


async def _compare(places: Places, lines: LogLines, window: Window) -> Comparison:
    try:
        return await compare(
            lambda sequence: read_audit(places.state_db, sequence), places.walk(), lines, window
        )
    except ChainBroken as broken:
        raise say_broken(broken) from broken
    except LogHidden as hidden:
        raise CommandFailed(f"Vault's log cannot be compared: {hidden}", USAGE) from hidden
    except StoreError as error:
        raise CommandFailed(str(error), UNHEALTHY) from error


def _open(path: Path, stack: ExitStack) -> BinaryIO:
    if str(path) == "-":
        return sys.stdin.buffer
    try:
        return stack.enter_context(path.open("rb"))
    except OSError as error:
        raise CommandFailed(f"{path}: cannot be read ({error.strerror})", USAGE) from error


def _describe(one: Difference, logs: Sequence[Path], lines: LogLines) -> dict[str, object]:
    number, line = lines.locate(one.line) if one.line else (0, 0)
    return {
        "difference": one.kind.value,
        "call": one.call_id,
        "lease": one.lease_id,
        "accessor": one.accessor,
        "file": str(logs[number]) if line else "",
        "line": line or "",
        "record": one.record or "",
        "look_at": one.detail,
    }


def _print(rows: Sequence[dict[str, object]]) -> None:
    """Print a line for each difference, and under it what to look at."""
    if not rows:
        return
    short = [{name: row[name] for name in ("difference", "call", "line", "record")} for row in rows]
    columns = terminal_columns()
    head, *lines = table(short, columns, ("call", "line", "record"))
    click.echo(head)
    for line, row in zip(lines, rows, strict=True):
        click.echo(line)
        known = [str(row[name]) for name in ("lease", "accessor") if row[name]]
        about = f" ({', '.join(known)})" if known else ""
        text = to_printable(f"{row['look_at']}{about}")
        click.echo(textwrap.fill(text, columns, initial_indent="  ", subsequent_indent="  "))


def _summarize(found: Comparison) -> None:
    count, differences = found.count, len(found.differences)
    parts = [f"{count.agree} agree", f"{count.open} open", f"{differences} different"]
    if count.given_up:
        parts.insert(2, f"{count.given_up} given up before use")
    click.echo(f"leases: {', '.join(parts)}; {found.lines} lines; our head {found.head}", err=True)
    if found.hidden:
        click.echo(
            f"the log hides {found.hidden} lease ids or accessors, so their ends are not seen: tune the "
            "mounts sys/ and auth/token/ as docs/review.md says",
            err=True,
        )
