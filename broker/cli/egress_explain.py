"""`toolcrib egress explain`: would a tool's request get out, by which rule, and why not."""

from __future__ import annotations

from typing import Any

import click

from broker.cli.connection import ask, connect, profile_option
from broker.cli.output import USAGE, CommandFailed, output_option, show_one
from toolcrib.v1 import egress_pb2, egress_pb2_grpc


@click.command("explain")
@click.argument("url", metavar="URL")
@click.option(
    "--tool", required=True, metavar="TOOL", help="Whose request; e.g. github.v1.GitHub/SearchIssues."
)
@click.option("--method", default="GET", show_default=True, metavar="M", help="Of the request, e.g. POST.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="That it has; repeatable.")
@click.option("--agent", default="", metavar="NAME", help="Look at this agent's grants too.")
@click.option("--environment", default="", metavar="E", help="Of its call. Default: the broker's first one.")
@click.option("--version", default="", metavar="V", help="Or alias of the bundle. Default: stable.")
@profile_option
@output_option
def explain(  # noqa: PLR0913 - one parameter an option
    *,
    url: str,
    tool: str,
    method: str,
    headers: tuple[str, ...],
    agent: str,
    environment: str,
    version: str,
    profile: str | None,
    form: str,
) -> None:
    """Say whether a tool may send a request to URL, by which rule, and if not, what to change.

    Nothing is sent and no name is looked up. Without --agent it says what manifest and targets allow; with
    it, what the agent's grants leave of that. Conditions of grants hang on the call and are not looked at.
    """
    if environment and not agent:
        raise CommandFailed("--environment is where an agent calls: name the --agent too", USAGE)
    request = egress_pb2.ExplainEgressRequest(
        tool=tool,
        version=version,
        method=method,
        url=url,
        headers=dict(map(_read_header, headers)),
        agent=agent,
        environment=environment,
    )
    with connect(profile) as channel:
        found = ask(egress_pb2_grpc.EgressStub(channel).ExplainEgress, request)
    show_one(describe(found) if form == "json" else summarize(found), form)


def _read_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name:
        raise CommandFailed(f'--header "{text}": write "NAME: VALUE"', USAGE)
    return name, value.strip()


def describe(found: Any) -> dict[str, object]:
    """Say all of an answer, with the names of the public API."""
    return {
        "allowed": found.allowed,
        "check": found.check,
        "why": found.why,
        "target": found.target,
        "rule": found.rule,
        "grant_rule": found.grant_rule,
        "grant_id": found.grant_id,
        "opened": found.opened,
        "injected": found.injected,
        "injected_form": found.injected_form,
        "dropped_headers": list(found.dropped_headers),
    }


def summarize(found: Any) -> dict[str, object]:
    """Say for people what there is to say."""
    lines = {
        "answer": "allowed" if found.allowed else f"refused, by the check {found.check}",
        "why": found.why,
        "target": f"{found.target}{', TLS is opened on the way' if found.opened else ''}"
        if found.target
        else "",
        "rule": found.rule,
        "grant": found.grant_id,
        "grant_rule": found.grant_rule,
        "adds": f"{found.injected} as {found.injected_form}" if found.injected else "",
        "leaves_out": ", ".join(found.dropped_headers),
    }
    return {name: text for name, text in lines.items() if text}
