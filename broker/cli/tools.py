"""`toolcrib tools`: which tools there are, what they take, and what a client of them needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from broker.cli.connection import ask, connect, profile_option, read_all
from broker.cli.output import (
    REFUSED,
    USAGE,
    CommandFailed,
    Commands,
    list_output_option,
    output_option,
    show,
    show_one,
    to_json,
)
from toolcrib.v1 import broker_pb2, broker_pb2_grpc, options_pb2
from tools.client_view import write_proto_sources

BUNDLES = ("register", "versions", "review", "promote")
KIT = {
    "check": "broker.cli.checking:check",
    "init": "broker.cli.authoring:init",
    "generate": "broker.cli.authoring:generate",
    "test": "broker.cli.trying:try_bundle",
    "watch": "broker.cli.watching:watch",
    "diff": "broker.cli.comparing:diff",
    "rollback": "broker.cli.rolling_back:rollback",
}


@click.group(cls=Commands, places={name: f"broker.cli.bundles:{name}" for name in BUNDLES} | KIT)
def tools() -> None:
    """Find tools, export their clients, register and review bundles."""


@tools.command("list")
@profile_option
@list_output_option
def list_tools(profile: str | None, form: str) -> None:
    """List the usable tools."""
    with connect(profile) as channel:
        found = _list(channel)
    rows = [_summarize(tool) for tool in found]
    if form != "table":
        rows = [
            {**row, "scope": tool.scope, "bundle": tool.bundle, "reach": options_pb2.Reach.Name(tool.reach)}
            for row, tool in zip(rows, found, strict=True)
        ]
    show(
        rows, form, empty="no usable tools: register a bundle, have it reviewed, promote it", whole=("tool",)
    )


@tools.command()
@click.argument("tool")
@click.option("--version", default="", metavar="V", help="A version or an alias. Default: stable.")
@profile_option
@output_option
def describe(tool: str, version: str, profile: str | None, form: str) -> None:
    """Describe TOOL: what it does, and the JSON Schemas of its arguments and its result."""
    with connect(profile) as channel:
        stub = broker_pb2_grpc.BrokerStub(channel)
        found = ask(stub.DescribeTool, broker_pb2.DescribeToolRequest(name=tool, version=version))
    record = {
        **_summarize(found.tool),
        "scope": found.tool.scope,
        "reach": options_pb2.Reach.Name(found.tool.reach),
        "bundle": found.tool.bundle,
    }
    schemas = {
        "arguments": json.loads(found.request_json_schema),
        "result": json.loads(found.response_json_schema),
    }
    if form == "json":
        click.echo(to_json({**record, **schemas}))
        return
    show_one(record, form)
    for title, schema in schemas.items():
        click.echo(f"\n{title}\n{to_json(schema)}")


@tools.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.argument("name", metavar="[BUNDLE|TOOL]", default="")
@click.option("--version", default="", metavar="V", help="A version or an alias. Default: stable.")
@profile_option
@output_option
def export(folder: Path, name: str, version: str, profile: str | None, form: str) -> None:
    """Write the client view into DIR: .proto sources and a descriptor set.

    What any language's protoc needs to make a client; it imports nothing of Toolcrib. Without a name: of
    every bundle.
    """
    with connect(profile) as channel:
        views = _read_views(channel, name, version)
    written: list[Path] = []
    try:
        for bundle, view in views.items():
            written += write_proto_sources(view, folder)
            file = folder / f"{bundle}.binpb"
            file.write_bytes(view)
            written.append(file)
    except OSError as error:
        raise CommandFailed(f"{error.filename}: cannot be written ({error.strerror})", USAGE) from error
    show([{"written": str(path)} for path in written], form, empty="nothing to export", whole=("written",))


def _read_views(channel: Any, name: str, version: str) -> dict[str, bytes]:
    """Read a client view a bundle, by the bundle's name; one tool of each stands for it."""
    chosen = {tool.bundle: tool.name for tool in _list(channel) if name in ("", tool.bundle, tool.name)}
    if not chosen and "/" in name:  # a tool that has no stable version yet; the broker says what is wrong
        chosen = {name.partition("/")[0]: name}
    if not chosen:
        asked = f'no usable tool or bundle is named "{name}"' if name else "there are no usable tools"
        raise CommandFailed(f"{asked}; `toolcrib tools list` names what there is", REFUSED)
    stub = broker_pb2_grpc.BrokerStub(channel)
    return {
        bundle: ask(
            stub.DescribeTool, broker_pb2.DescribeToolRequest(name=tool, version=version)
        ).client_descriptor_set
        for bundle, tool in chosen.items()
    }


def _list(channel: Any) -> list[Any]:
    stub = broker_pb2_grpc.BrokerStub(channel)
    return read_all(stub.ListTools, broker_pb2.ListToolsRequest(page_size=500), "tools")


def _summarize(tool: Any) -> dict[str, object]:
    return {
        "tool": tool.name,
        "effect": options_pb2.Effect.Name(tool.effect),
        "version": tool.version,
        "description": tool.description,
    }
