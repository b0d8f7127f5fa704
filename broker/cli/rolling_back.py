"""`toolcrib tools rollback`: an alias back at the version that it named before."""

from __future__ import annotations

import click

from broker.cli.bundles import describe_version
from broker.cli.connection import ask, connect, profile_option
from broker.cli.output import output_option, show_one
from toolcrib.v1 import registry_pb2, registry_pb2_grpc


@click.command()
@click.argument("bundle")
@click.option("--alias", default="stable", show_default=True, help="stable or canary.")
@click.option("--leave", default="", metavar="VERSION", help="Refuse unless the alias names this one now.")
@profile_option
@output_option
def rollback(bundle: str, alias: str, leave: str, profile: str | None, form: str) -> None:
    """Point an alias back at the version that it named before.

    Said again it goes one step further back. Calls that run go on; the next ones get the earlier version.
    """
    with connect(profile) as channel:
        stub = registry_pb2_grpc.RegistryStub(channel)
        request = registry_pb2.MoveAliasRequest(bundle=bundle, alias=alias, back=True, leaves=leave)
        moved = ask(stub.MoveAlias, request)
    show_one({**describe_version(moved.version), "left": moved.left}, form)
    if form != "json":
        click.echo(f"{alias} of {bundle}: {moved.left} → {moved.version.version}", err=True)
