"""`toolcrib grants`: grant files checked, compared and applied as a plan."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from broker.cli.connection import ask, connect, profile_option, read_all
from broker.cli.output import (
    REFUSED,
    UNHEALTHY,
    USAGE,
    CommandFailed,
    Commands,
    list_output_option,
    output_option,
    progress,
    show,
    to_json,
)
from broker.cli.times import write_second
from toolcrib.v1 import grants_pb2, grants_pb2_grpc

files_argument = click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)
)
COLOURS = {"+": "green", "-": "red"}
EXTRA = "destinations.toml"


@click.group(
    cls=Commands,
    places={"explain": "broker.cli.reviewing:explain", "unused": "broker.cli.reviewing:unused"},
)
def grants() -> None:
    """Say who may call what, as reviewed files that are applied as a plan.

    FILES are NAME.cedar and destinations.toml, or folders of them. Together they are the whole of a tenant's
    grants: what is in no file is removed.
    """


@grants.command()
@files_argument
@profile_option
@output_option
def check(files: tuple[Path, ...], profile: str | None, form: str) -> None:
    """Check FILES against the tools' contracts. Changes nothing; exit code 3 when they are not right."""
    plan = _plan(read_files(files), profile)
    if form == "json":
        click.echo(to_json({"changes": len(plan.changes)}))
    else:
        click.echo(f"the files are right; applying them would make {_count(plan.changes)}")


@grants.command()
@files_argument
@profile_option
@output_option
def diff(files: tuple[Path, ...], profile: str | None, form: str) -> None:
    """Show, policy by policy, what applying FILES would change."""
    _show_changes(_plan(read_files(files), profile).changes, form)


@grants.command("apply")
@files_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@profile_option
@output_option
def apply_files(files: tuple[Path, ...], yes: bool, profile: str | None, form: str) -> None:
    """Replace the tenant's grants by FILES, after showing what changes.

    Refused when somebody else changed the grants after the plan was made.
    """
    messages = read_files(files)
    plan = _plan(messages, profile)
    if form != "json":
        _show_changes(plan.changes, form)
    if not plan.changes and form != "json":
        return
    if plan.changes and not yes and not _confirm(f"apply {_count(plan.changes)}?"):
        raise CommandFailed("nothing was applied", REFUSED)
    request = grants_pb2.ApplyGrantsRequest(files=messages, base_digest=plan.base_digest)
    with connect(profile) as channel:
        applied = ask(grants_pb2_grpc.GrantsStub(channel).ApplyGrants, request)
    if form == "json":
        click.echo(to_json({"digest": applied.digest, "changes": _describe(applied.changes)}))
    else:
        click.echo(f"applied {_count(applied.changes)}; the grants are now {applied.digest[:16]}")


@grants.command("list")
@profile_option
@list_output_option
def list_grants(profile: str | None, form: str) -> None:
    """List the grants in force."""
    with connect(profile) as channel:
        stub = grants_pb2_grpc.GrantsStub(channel)
        found = read_all(stub.ListGrants, grants_pb2.ListGrantsRequest(page_size=500), "grants")
    rows: list[dict[str, object]] = [
        {
            "id": grant.id,
            "effect": f"{grant.effect}, ask" if grant.ask else grant.effect,
            "file": grant.file,
            "applied": write_second(grant, "applied"),
            "by": grant.applied_by.rpartition("/")[2],
        }
        for grant in found
    ]
    if form != "table":
        rows = [{**row, "policy": grant.policy} for row, grant in zip(rows, found, strict=True)]
    show(rows, form, empty="no grants: every call is refused", whole=("id",))


def read_files(paths: tuple[Path, ...]) -> list[grants_pb2.GrantFile]:
    """Read grant files, and those in folders, by their names.

    Raises:
        CommandFailed: One cannot be read, or a folder has none.
    """
    found: list[grants_pb2.GrantFile] = []
    try:
        for path in (file for given in paths for file in _expand(given)):
            found.append(grants_pb2.GrantFile(name=path.name, text=path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CommandFailed(f"{error.filename}: cannot be read ({error.strerror})", USAGE) from error
    except UnicodeDecodeError as error:
        raise CommandFailed(f"{path}: is not UTF-8: {error}", USAGE) from error
    return found


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    inside = [*sorted(path.glob("*.cedar")), *path.glob(EXTRA)]
    if not inside:
        raise CommandFailed(f"{path}: has no .cedar file; name the files or their folder", USAGE)
    return inside


def _plan(messages: list[grants_pb2.GrantFile], profile: str | None) -> grants_pb2.PlanGrantsResponse:
    try:
        with connect(profile) as channel, progress("checking"):
            stub = grants_pb2_grpc.GrantsStub(channel)
            plan: grants_pb2.PlanGrantsResponse = ask(
                stub.PlanGrants, grants_pb2.PlanGrantsRequest(files=messages)
            )
    except CommandFailed as error:
        if error.details.get("reason") == "GRANTS_INVALID":
            raise CommandFailed(error.message, UNHEALTHY, details=error.details) from error
        raise
    return plan


def _confirm(question: str) -> bool:
    """Ask; whoever cannot answer has not agreed."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
        return False


def _count(changes: Any) -> str:
    return f"{len(changes) or 'no'} change{'' if len(changes) == 1 else 's'}"


def _describe(changes: Any) -> list[dict[str, object]]:
    return [
        {
            "kind": grants_pb2.GrantChange.Kind.Name(change.kind),
            "id": change.id,
            "before": change.before,
            "after": change.after,
        }
        for change in changes
    ]


def _show_changes(changes: Any, form: str) -> None:
    if form == "json":
        click.echo(to_json(_describe(changes)))
        return
    for change in changes:
        click.echo(f"{grants_pb2.GrantChange.Kind.Name(change.kind).lower()} {change.id}")
        for line in _compare(change.before, change.after):
            click.secho(f"  {line}", fg=COLOURS.get(line[:1]))
    if not changes:
        click.echo("no changes: the grants in force are these already")


def _compare(before: str, after: str) -> Iterator[str]:
    """Compare two texts line by line, whole, without the headers of a patch."""
    for line in difflib.ndiff(before.splitlines(), after.splitlines()):
        if not line.startswith("?"):
            yield line.rstrip()
