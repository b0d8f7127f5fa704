"""`toolcrib tools check`: what is wrong with a bundle's folder, each fault with file, line and remedy."""

from __future__ import annotations

from pathlib import Path

import click

from broker.cli.output import UNHEALTHY, output_option, progress, show, to_json, to_printable
from broker.packing import read_dependencies
from tools.catalogue import ToolVersion
from tools.check import Checked, Fault, check_bundle


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--strict", is_flag=True, help="Take warnings for errors: exit code 3.")
@output_option
@click.pass_context
def check(context: click.Context, folder: Path, strict: bool, form: str) -> None:
    """Check the bundle in DIR, and say what is wrong, where, and what to do.

    Needs no broker. Errors are what registration refuses. Warnings are advice; a comment on the line, "check:
    accept CODE", accepts one. Whether callers would break is checked when the bundle is registered.
    """
    with progress("checking the bundle"):
        checked = check_bundle(folder, [read_dependencies])
    if form == "json":
        click.echo(to_json([_describe(fault) for fault in checked.faults]))
    else:
        _print(checked, folder)
    if checked.errors or (strict and checked.faults):
        context.exit(UNHEALTHY)


def _print(checked: Checked, folder: Path) -> None:
    if checked.version is not None:
        show(_list_tools(checked.version), "table", empty="no tools", whole=("tool",))
    for fault in checked.faults:
        click.echo(to_printable(str(fault)), err=True)
    errors, warnings = len(checked.errors), len(checked.faults) - len(checked.errors)
    found = [
        _count(errors, "error"),
        _count(warnings, "warning"),
        _count(checked.accepted, "accepted warning"),
    ]
    counted = ", ".join(text for text in found if text)
    if checked.version is None:
        click.echo(f"{folder} is not fit to be registered: {counted}", err=True)
        return
    name = f"{checked.version.bundle} {checked.version.version}"
    click.echo(f"{name} is fit to be registered" + (f": {counted}" if counted else ""), err=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}" if number else ""


def _list_tools(version: ToolVersion) -> list[dict[str, str]]:
    return [
        {
            "tool": contract.method,
            "effect": contract.effect.name,
            "scope": contract.scope,
            "hidden": ", ".join(contract.policy_hidden),
        }
        for contract in version.contracts.values()
    ]


def _describe(fault: Fault) -> dict[str, str | int]:
    return {
        "file": fault.place.file,
        "line": fault.place.line,
        "column": fault.place.column,
        "severity": fault.severity.value,
        "code": fault.code,
        "field": fault.field,
        "message": fault.message,
        "remedy": fault.remedy,
    }
