"""`toolcrib workflows`: one task of one agent, and what it holds by now."""

from __future__ import annotations

import re

import click

from broker.cli.connection import ask, connect, profile_option
from broker.cli.output import USAGE, CommandFailed, Commands, output_option, show_one, to_json
from broker.cli.times import write_second, write_time
from toolcrib.v1 import workflows_pb2, workflows_pb2_grpc

_TTL = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@click.group(cls=Commands)
def workflows() -> None:
    """Open workflows, and see what they hold."""


@workflows.command("open")
@click.option("--agent", required=True, metavar="NAME", help="For which agent of the tenant.")
@click.option("--environment", default="", metavar="E", help="Default: the broker's first one.")
@click.option("--ttl", default="", metavar="TIME", help="For example 30m or 8h. Default: the most there is.")
@click.option("--description", default="", metavar="TEXT", help="What the task is, for people.")
@profile_option
@output_option
def open_workflow(
    *, agent: str, environment: str, ttl: str, description: str, profile: str | None, form: str
) -> None:
    """Open a workflow for an agent, and print its handle. For orchestrators.

    The agent sends it with its calls: `toolcrib call --workflow HANDLE`, or metadata toolcrib-workflow. It is
    of use to that agent alone.
    """
    request = workflows_pb2.OpenWorkflowRequest(
        agent=agent, environment=environment, description=description, ttl_seconds=_read_ttl(ttl)
    )
    with connect(profile) as channel:
        opened = ask(workflows_pb2_grpc.WorkflowsStub(channel).OpenWorkflow, request)
    if form == "json":
        said = {"handle": opened.handle, "id": opened.workflow_id, "expires": write_time(opened, "expires")}
        click.echo(to_json(said))
        return
    click.echo(opened.handle)
    click.echo(f"workflow {opened.workflow_id} until {write_second(opened, 'expires')}", err=True)


@workflows.command("show")
@click.argument("workflow_id", metavar="[ID]", default="")
@click.option("--agent", default="", metavar="NAME", help="Without ID: what this agent holds itself.")
@click.option("--environment", default="", metavar="E", help="Without ID. Default: the broker's first one.")
@profile_option
@output_option
def show_workflow(workflow_id: str, agent: str, environment: str, profile: str | None, form: str) -> None:
    """Show what a workflow holds; without ID, what an agent holds that calls without a handle."""
    if workflow_id and (agent or environment):
        raise CommandFailed("name an ID, or --agent and --environment", USAGE)
    request = workflows_pb2.GetWorkflowRequest(workflow_id=workflow_id, agent=agent, environment=environment)
    with connect(profile) as channel:
        found = ask(workflows_pb2_grpc.WorkflowsStub(channel).GetWorkflow, request).workflow
    labels = [
        {"label": label.label, "since": write_second(label, "since"), "call": label.call_id}
        for label in found.labels
    ]
    record: dict[str, object] = {
        "id": found.id or "(none: calls without a handle)",
        "agent": found.agent,
        "environment": found.environment,
        "description": found.description,
        "opened": write_second(found, "opened"),
        "by": found.opened_by.rpartition("/")[2],
        "expires": write_second(found, "expires"),
        "holds untrusted": "yes: destinations are gated" if found.holds_untrusted else "no",
    }
    if form == "json":
        click.echo(
            to_json({**record, "id": found.id, "holds untrusted": found.holds_untrusted, "labels": labels})
        )
        return
    show_one({name: value for name, value in record.items() if value}, form)
    for label in labels:
        click.echo(f"  {label['label']}  since {label['since']}  {label['call']}".rstrip())


def _read_ttl(text: str) -> int:
    if not text:
        return 0
    found = _TTL.fullmatch(text)
    if found is None:
        raise CommandFailed(f'--ttl: "{text}" is no time; write 30m or 8h', USAGE)
    return int(found[1]) * _SECONDS[found[2]]
