"""`toolcrib tools diff`: what a version of a bundle changes, for its reviewer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import grpc

from broker.cli.bundles import bundle_errors
from broker.cli.connection import ask, connect, profile_option
from broker.cli.output import UNHEALTHY, USAGE, CommandFailed, output_option, to_json, to_printable, wrap
from toolcrib.v1 import registry_pb2, registry_pb2_grpc
from tools.breaking import BufFailed
from tools.differences import Difference, Subject, find_differences, sort_by_weight
from tools.manifest import read_manifest
from tools.source import compile_bundle

STABLE = "stable"


@click.command()
@click.argument("what", metavar="DIR|BUNDLE")
@click.argument("versions", nargs=-1, metavar="[V1 [V2]]")
@profile_option
@output_option
def diff(what: str, versions: tuple[str, ...], profile: str | None, form: str) -> None:
    """Show what changes for callers and reviewers.

    DIR: from the stable version to the folder. BUNDLE V: from the stable version to V. BUNDLE V1 V2: from V1
    to V2. A line that begins with "!" is one that a reviewer must look at, with the reason.
    """
    if len(versions) > 2:
        raise CommandFailed("say DIR, BUNDLE V, or BUNDLE V1 V2", USAGE)
    folder = Path(what)
    if not versions and not (folder / "tool.yaml").is_file():
        raise CommandFailed(
            f"{what}: is no bundle's folder; of registered versions say BUNDLE V1 [V2]", USAGE
        )
    with connect(profile) as channel:
        found = compare_registered(channel, what, *versions) if versions else _compare_folder(channel, folder)
    show_differences(found, form)


def compare_registered(channel: grpc.Channel, bundle: str, version: str, later: str = "") -> list[Difference]:
    """Compare two registered versions, or the stable one with one.

    Raises:
        CommandFailed: There is no such version, or they cannot be compared.
        grpc.RpcError: The broker refused or cannot be reached.
    """
    new = _read(channel, bundle, later or version)
    return _compare(_read(channel, bundle, version) if later else _read_stable(channel, bundle), new)


def _compare_folder(channel: grpc.Channel, folder: Path) -> list[Difference]:
    with bundle_errors():
        source = compile_bundle(folder)
        bundle = read_manifest(source.manifest_yaml).bundle
    return _compare(_read_stable(channel, bundle), Subject(source.descriptor_set, source.manifest_yaml))


def _compare(old: Subject | None, new: Subject) -> list[Difference]:
    try:
        with bundle_errors():
            return find_differences(old, new)
    except BufFailed as error:
        raise CommandFailed(str(error), UNHEALTHY) from error


def _read_stable(channel: grpc.Channel, bundle: str) -> Subject | None:
    try:
        return _read(channel, bundle, STABLE)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:  # its first version: everything is new
            return None
        raise


def _read(channel: grpc.Channel, bundle: str, version: str) -> Subject:
    stub = registry_pb2_grpc.RegistryStub(channel)
    found: Any = ask(stub.GetVersion, registry_pb2.GetVersionRequest(bundle=bundle, version=version))
    return Subject(found.descriptor_set, found.manifest_yaml, found.version.image_id)


def show_differences(found: Sequence[Difference], form: str) -> None:
    """Print the lines, those that a reviewer must look at first, and their number; or all as JSON."""
    if form == "json":
        click.echo(to_json(describe_differences(found)))
        return
    if not found:
        click.echo("the contract and tool.yaml are the same; the program is not compared", err=True)
    for one in sort_by_weight(found):
        why = f"  ({one.look})" if one.look else ""
        # Broken here, and set in: text of an author's must not look like a line of ours.
        first, *more = wrap(to_printable(" ".join(f"{one.where}: {one.change}{why}".split())), 4)
        click.echo(f"{click.style('!', fg='yellow') if one.look else ' '} {first}")
        for line in more:
            click.echo(f"    {line}")
    counts = Counter(one.look for one in sort_by_weight(found) if one.look)
    if counts:
        looks = ", ".join(f"{look} ({count:,})" for look, count in counts.items())
        click.echo(f"to look at: {looks}", err=True)


def describe_differences(found: Sequence[Difference]) -> list[dict[str, str]]:
    """Give the lines as records for programs."""
    return [{"where": one.where, "change": one.change, "look": one.look} for one in found]
