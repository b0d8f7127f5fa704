"""How `toolcrib vault` says what it found and what it would write: for people and for programs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

import click

from broker.cli.output import to_printable
from credentials.bootstrap.plan import Change, Kind, Plan
from credentials.bootstrap.review import shorten
from credentials.role_check import Finding

COLOURS = {"add": "green", "change": "yellow", "problem": "red", "warning": "yellow"}
INDENT = " " * 9


def show_plan(plan: Plan) -> None:
    """Print a plan for people: what is added and changed, line by line, and what is left to do."""
    for change in plan.changes:
        kind = click.style(f"{change.kind.value:<8}", fg=COLOURS[change.kind.value])
        click.echo(f"{kind} {to_printable(change.item.subject)}")
        for line in _lines(change):
            click.secho(INDENT + to_printable(line), fg={"+": "green", "-": "red"}.get(line[:1]))
    show_findings(plan.problems)
    if not plan.changes:
        click.echo("nothing to do: Vault holds this already")


def _lines(change: Change) -> Iterator[str]:
    """Say what is written, field by field; a text line by line."""
    for name, (before, after) in change.fields.items():
        if name == "policy":
            old, new = (str(value or "").strip().splitlines() for value in (before, after))
            yield from (line.rstrip() for line in difflib.ndiff(old, new) if not line.startswith("?"))
            continue
        if change.kind is Kind.CHANGE:
            yield f"- {name} = {shorten(before)}"
        yield f"+ {name} = {shorten(after)}"


def show_findings(findings: Sequence[Finding]) -> None:
    """Print findings, a line each."""
    for finding in findings:
        level = _level(finding)
        text = to_printable(f"{finding.subject}: {finding.problem} → {finding.remedy}")
        click.echo(f"{click.style(f'{level:<8}', fg=COLOURS[level])} {text}")


def _level(finding: Finding) -> str:
    return "warning" if finding.is_warning else "problem"


def describe_finding(finding: Finding) -> dict[str, str]:
    """Say a finding for programs."""
    return {
        "level": _level(finding),
        "subject": finding.subject,
        "problem": finding.problem,
        "remedy": finding.remedy,
    }


def describe_plan(plan: Plan, *, applied: bool) -> dict[str, object]:
    """Say a plan for programs."""
    return {
        "applied": applied,
        "changes": [
            {
                "kind": change.kind.value,
                "subject": change.item.subject,
                "path": change.item.path,
                "fields": {
                    name: {"before": before, "after": after}
                    for name, (before, after) in change.fields.items()
                },
            }
            for change in plan.changes
        ],
        "problems": [describe_finding(finding) for finding in plan.problems],
    }
