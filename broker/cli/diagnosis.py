"""`toolcrib doctor`: a line a finding, and how to mend it."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from pathlib import Path

import click

from broker.cli.output import (
    UNHEALTHY,
    USAGE,
    CommandFailed,
    output_option,
    progress,
    to_json,
    to_printable,
)
from broker.doctor import Finding, Level, examine
from broker.settings import SettingsInvalid, read_settings

COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The broker's toolcrib.toml.",
)
@output_option
@click.pass_context
def doctor(context: click.Context, config: Path, form: str) -> None:
    """Examine an installation: engine, Vault, roles, clock, certificates, state, leftovers.

    Only looks, so a broker may run meanwhile. Exit code 3 when there is a problem.
    """
    logging.getLogger("credentials").setLevel(logging.CRITICAL)  # the findings say it
    try:
        settings = read_settings(config)
    except SettingsInvalid as error:
        raise CommandFailed(str(error), USAGE) from error
    with progress("examining"):
        findings = asyncio.run(examine(settings))
    if form == "json":
        click.echo(to_json([_describe(finding) for finding in findings]))
    else:
        for finding in findings:
            _print(finding)
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    if problems:
        click.echo(f"{problems} problem{'' if problems == 1 else 's'}", err=True)
        context.exit(UNHEALTHY)


def _describe(finding: Finding) -> dict[str, str]:
    return {
        "subject": finding.subject,
        "level": finding.level.value,
        "text": finding.text,
        "remedy": finding.remedy,
    }


def _print(finding: Finding) -> None:
    """Print one line; on a terminal it is wrapped under its own beginning."""
    level = click.style(f"{finding.level.value:<8}", fg=COLOURS[finding.level])
    text = f"{finding.subject}: {finding.text}"
    if finding.remedy:
        text += f" → {finding.remedy}"
    text = to_printable(text)
    if sys.stdout.isatty():
        width = shutil.get_terminal_size((80, 24)).columns - 9
        text = click.formatting.wrap_text(text, max(width, 30)).replace("\n", "\n" + " " * 9)
    click.echo(f"{level} {text}")
