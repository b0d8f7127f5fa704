"""`toolcrib tools register|versions|review|promote`: a bundle's way from a folder to its callers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import click
import grpc

from broker.cli.connection import RPC_SECONDS, ask, connect, profile_option, read_all
from broker.cli.output import (
    REFUSED,
    UNHEALTHY,
    USAGE,
    CommandFailed,
    list_output_option,
    output_option,
    progress,
    show,
    show_one,
)
from broker.cli.times import write_second, write_short_id
from broker.packing import pack
from broker.settings import SettingsInvalid, environment_variable, read_settings
from sandboxes.engine import DEFAULT_URL, Engine
from sandboxes.outcome import SandboxError
from sandboxes.runtimes import RUNTIMES
from toolcrib.v1 import registry_pb2, registry_pb2_grpc
from tools.errors import BundleInvalid
from tools.manifest import read_manifest
from tools.source import compile_bundle

folder_argument = click.argument(
    "folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False)
)
REGISTER_SECONDS = 4 * RPC_SECONDS


@click.command()
@folder_argument
@click.option("--engine", "engine_url", metavar="URL", help="The broker's engine (or DOCKER_HOST).")
@click.option(
    "--image-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Instead of an engine: sandboxes.image_dir of a broker that uses bubblewrap.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Read from the broker's toolcrib.toml which of the two it is.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".toolcrib/cache"),
    show_default=True,
    help="Where downloaded parts are kept.",
)
@profile_option
@output_option
def register(  # noqa: PLR0913 - one parameter an option
    *,
    folder: Path,
    engine_url: str | None,
    image_dir: Path | None,
    config: Path | None,
    cache: Path,
    profile: str | None,
    form: str,
) -> None:
    """Build the image of the bundle in DIR and register it as a new version.

    The image is built where the broker has its images, so say this on its host. Somebody else reviews the
    version before it can be used.
    """
    if len([named for named in (engine_url, image_dir, config) if named is not None]) > 1:
        raise CommandFailed("--engine, --image-dir and --config: say one of them", USAGE)
    with connect(profile) as channel:
        with bundle_errors():
            place = image_dir or (find_place(config, folder) if config else engine_url)
        request = _pack(folder, place or environment_variable("DOCKER_HOST") or DEFAULT_URL, cache)
        with progress("registering"):
            stub = registry_pb2_grpc.RegistryStub(channel)
            version = ask(stub.RegisterTool, request, REGISTER_SECONDS).version
    show_one(describe_version(version), form)
    if form != "json" and version.state == registry_pb2.REGISTERED:
        click.echo(
            f"now another person: toolcrib tools review {version.bundle} {version.version} --accept", err=True
        )


@click.command()
@click.argument("bundle", default="", metavar="[BUNDLE]")
@profile_option
@list_output_option
def versions(bundle: str, profile: str | None, form: str) -> None:
    """List the registered versions, newest first."""
    with connect(profile) as channel:
        found = _list(channel, bundle)
    if form != "table":
        show([describe_version(version) for version in found], form, empty="")
        return
    rows = [
        {
            "bundle": version.bundle,
            "version": version.version,
            "state": registry_pb2.VersionState.Name(version.state),
            "aliases": ", ".join(version.aliases),
            "registered": write_second(version, "registered"),
            "by": _name(version.registered_by),
            "reviewed_by": _name(version.reviewed_by),
        }
        for version in found
    ]
    show(rows, form, empty="no versions", whole=("bundle", "version"))


@click.command()
@click.argument("bundle")
@click.argument("version")
@click.option("--accept/--reject", "accept", default=None, help="The decision. Without it: only show.")
@click.option("--digest", default="", metavar="HEX", help="Refuse to decide on any other content.")
@click.option("--comment", default="", help="Why; is recorded.")
@profile_option
@output_option
def review(  # noqa: PLR0913 - one parameter an option
    *,
    bundle: str,
    version: str,
    accept: bool | None,
    digest: str,
    comment: str,
    profile: str | None,
    form: str,
) -> None:
    """Show a version and what it changes, and accept or reject it. Not for who registered it."""
    from broker.cli.comparing import (  # noqa: PLC0415 - it imports this module
        compare_registered,
        describe_differences,
        show_differences,
    )

    with connect(profile) as channel:
        found = _find(channel, bundle, version)
        if accept is not None:
            request = registry_pb2.ReviewVersionRequest(
                bundle=bundle,
                version=version,
                digest=digest or found.digest,
                accept=accept,
                comment=comment,
            )
            stub = registry_pb2_grpc.RegistryStub(channel)
            found = ask(stub.ReviewVersion, request).version
        changes = compare_registered(channel, bundle, version) if accept is None else []
    if form == "json":
        show_one({**describe_version(found), "changes": describe_differences(changes)}, form)
        return
    show_one(describe_version(found), form)
    if accept:
        click.echo(f"now: toolcrib tools promote {bundle} {version}", err=True)
    if accept is None:
        click.echo("\nwhat it changes of the stable version")
        show_differences(changes, form)


@click.command()
@click.argument("bundle")
@click.argument("version")
@click.option("--alias", default="stable", show_default=True, help="stable or canary.")
@profile_option
@output_option
def promote(bundle: str, version: str, alias: str, profile: str | None, form: str) -> None:
    """Point an alias at a reviewed version: what callers of the bundle get."""
    with connect(profile) as channel:
        stub = registry_pb2_grpc.RegistryStub(channel)
        request = registry_pb2.MoveAliasRequest(bundle=bundle, alias=alias, version=version)
        moved = ask(stub.MoveAlias, request).version
    show_one(describe_version(moved), form)


def find_place(config: Path, folder: Path) -> str | Path:
    """Say where a broker has the images of a bundle's isolation class.

    Args:
        config: The broker's toolcrib.toml.
        folder: The bundle's.

    Returns:
        The engine's URL, or the folder of a driver without an engine.

    Raises:
        BundleInvalid: The bundle is not right.
        CommandFailed: The configuration cannot be used, or no driver serves the class.
    """
    try:
        settings = read_settings(config)
    except SettingsInvalid as error:
        raise CommandFailed(str(error), USAGE) from error
    isolation = read_manifest(compile_bundle(folder).manifest_yaml).isolation
    driver = settings.sandboxes.classes.get(isolation)
    if driver is None:
        text = (
            f'{config}: sandboxes.classes: no driver serves the class "{isolation}" that tool.yaml asks for'
        )
        raise CommandFailed(text, UNHEALTHY)
    if driver in RUNTIMES:
        return settings.engine.url
    if settings.sandboxes.image_dir is None:
        raise CommandFailed(f"{config}: sandboxes.image_dir: is required for {driver}", USAGE)
    return settings.sandboxes.image_dir


def _pack(folder: Path, place: str | Path, cache: Path) -> registry_pb2.RegisterToolRequest:
    with bundle_errors(), ExitStack() as stack:
        where = place if isinstance(place, Path) else stack.enter_context(closing(Engine(place)))
        if isinstance(where, Engine):
            where.check()
        with progress("image"):
            return pack(folder, where, cache, lambda text: click.echo(f"· {text}", err=True))


@contextmanager
def bundle_errors() -> Iterator[None]:
    """Say what is wrong with a bundle, place by place, or with where images are built."""
    try:
        yield
    except BundleInvalid as error:
        lines = [f"  {item.field}: {item.description}" for item in error.violations]
        details = {
            "reason": "BUNDLE_INVALID",
            "violations": [{"field": v.field, "description": v.description} for v in error.violations],
        }
        text = "\n".join(["BUNDLE_INVALID: the bundle is not fit to be registered", *lines])
        raise CommandFailed(text, UNHEALTHY, details=details) from error
    except SandboxError as error:
        raise CommandFailed(str(error), UNHEALTHY) from error


def _list(channel: grpc.Channel, bundle: str) -> list[Any]:
    stub = registry_pb2_grpc.RegistryStub(channel)
    request = registry_pb2.ListVersionsRequest(bundle=bundle, page_size=500)
    return read_all(stub.ListVersions, request, "versions")


def _find(channel: grpc.Channel, bundle: str, version: str) -> Any:
    for found in _list(channel, bundle):
        if found.version == version:
            return found
    raise CommandFailed(
        f'bundle "{bundle}" has no version "{version}"; `toolcrib tools versions` names them', REFUSED
    )


def describe_version(version: Any) -> dict[str, object]:
    """Write a registered version as a record."""
    return {
        "bundle": version.bundle,
        "version": version.version,
        "state": registry_pb2.VersionState.Name(version.state),
        "digest": version.digest,
        "image": write_short_id(version.image_id),
        "aliases": ", ".join(version.aliases),
        "registered": write_second(version, "registered"),
        "registered_by": version.registered_by,
        "reviewed": write_second(version, "reviewed"),
        "reviewed_by": version.reviewed_by,
        "tools": "\n".join(version.tools),
    }


def _name(spiffe_id: str) -> str:
    return spiffe_id.rpartition("/")[2]
