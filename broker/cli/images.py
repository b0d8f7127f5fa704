"""`toolcrib images`: what sandboxes are made from: built, listed, verified, and removed when unused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from broker.cli.bundles import bundle_errors
from broker.cli.connection import connect, profile_option, read_all
from broker.cli.output import (
    UNHEALTHY,
    USAGE,
    CommandFailed,
    list_output_option,
    output_option,
    progress,
    show,
    show_one,
    to_printable,
)
from broker.cli.times import write_short_id
from broker.image_uses import ImageUses, join_uses, read_image_uses
from broker.packing import gather
from broker.settings import Settings, SettingsInvalid, environment_variable, read_settings
from broker.store.records import StoreError
from sandboxes import image_shelf
from sandboxes.engine import DEFAULT_URL, Engine
from sandboxes.image_store import StoredImage
from sandboxes.images import build_base, build_bundle, compare_bundle
from toolcrib.v1 import registry_pb2, registry_pb2_grpc

Uses = Mapping[str, frozenset[str]]

engine_option = click.option(
    "--engine", "engine_url", metavar="URL", help="The engine (or DOCKER_HOST, or the usual socket)."
)
cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".toolcrib/cache"),
    show_default=True,
    help="Where downloaded parts are kept.",
)
config_option = click.option(
    "--config",
    "configs",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="toolcrib.toml of an installation that uses the engine; repeatable.",
)


@click.group()
def images() -> None:
    """Build, list, verify and remove what sandboxes are made from."""


@images.command("build")
@click.argument(
    "folder",
    metavar="[DIR]",
    required=False,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@click.option("--base", "is_base", is_flag=True, help="The base image alone.")
@engine_option
@cache_option
@output_option
def build(folder: Path | None, is_base: bool, engine_url: str | None, cache: Path, form: str) -> None:
    """Build the image of the bundle in DIR, or the base image.

    What is there already is not built again. Registering a bundle does this by itself.
    """
    if (folder is None) != is_base:
        raise CommandFailed("name the folder of a bundle, or say --base", USAGE)
    with _engine(engine_url) as engine, progress("image"):
        if folder is None:
            image_id = build_base(engine, cache, _say)
        else:
            parts = gather(folder, engine, cache, _say)
            image_id = build_bundle(engine, parts.base_id, parts.manifest.bundle, parts.files)
        image = image_shelf.find_image(engine, image_id)
    show_one(_describe(image), form)


@images.command("list")
@engine_option
@config_option
@profile_option
@list_output_option
def list_images(engine_url: str | None, configs: tuple[Path, ...], profile: str | None, form: str) -> None:
    """List the images on the engine, and what uses them.

    Who uses an image is known with --config, of every tenant, or with --profile, of that one tenant.
    """
    installations = [_read(config) for config in configs]
    known = [_uses(settings).images for settings in installations]
    if profile is not None or (not configs and environment_variable("TOOLCRIB_PROFILE")):
        known.append(_ask_uses(profile))
    with _engine(_url(engine_url, installations)) as engine:
        found = image_shelf.list_images(engine)
    rows = [_row(image, known, bool(configs), form) for image in found]
    show(rows, form, empty="no images of ours; `toolcrib images build` makes them", whole=("image", "kind"))


@images.command("verify")
@click.argument("what", metavar="[IMAGE|DIR]", default="")
@engine_option
@cache_option
@output_option
@click.pass_context
def verify(context: click.Context, what: str, engine_url: str | None, cache: Path, form: str) -> None:
    """Compare images with what they should be. Without an argument: every image of ours.

    An image's files are summed up and compared with its labels, its names with its content. For the folder
    of a bundle, the image is built once more and compared. Exit code 3 when something is wrong.
    """
    with _engine(engine_url) as engine, progress("verifying"):
        if what and Path(what).is_dir():
            verdicts = [_verify_folder(engine, Path(what), cache)]
        else:
            chosen = [image_shelf.find_image(engine, what)] if what else image_shelf.list_images(engine)
            verdicts = [_verify_image(engine, image) for image in chosen]
    _show_verdicts(verdicts, form)
    if not verdicts or any(verdict.problems for verdict in verdicts):
        context.exit(UNHEALTHY)


@images.command("prune")
@config_option
@engine_option
@click.option(
    "--older-than",
    "hours",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Younger ones stay: they may be about to be registered.",
)
@click.option("--apply", "is_applied", is_flag=True, help="Remove them. Without it: only the plan.")
@output_option
def prune(
    configs: tuple[Path, ...], engine_url: str | None, hours: float, is_applied: bool, form: str
) -> None:
    """Remove images that no registered version uses.

    What is used is read from the state of the installation, of every tenant. Name each installation that
    has its images on the engine. Only images of ours are removed, none by force, and none with a container.
    """
    if not configs:
        raise CommandFailed("which images are used cannot be known: name --config toolcrib.toml", USAGE)
    installations = [_read(config) for config in configs]
    uses = [_uses(settings) for settings in installations]
    used = join_uses(pair for use in uses for pair in _pairs(use.images))
    with _engine(_url(engine_url, installations)) as engine:
        _refuse_strangers(engine, {use.installation for use in uses})
        fates = image_shelf.plan_removal(engine, used, timedelta(hours=hours), datetime.now(UTC))
        left = dict(_remove(engine, fates)) if is_applied else {}
    word = "removed" if is_applied else "would be removed"
    rows = [
        {**_name(fate.image, form), "fate": f"stays: {kept}" if kept else word}
        for fate in fates
        for kept in [fate.kept or left.get(fate.image.id, "")]
    ]
    show(rows, form, empty="no images of ours", whole=("image",))
    if not is_applied and any(not fate.kept for fate in fates):
        click.echo("nothing was removed: say --apply", err=True)


def _remove(engine: Engine, fates: list[image_shelf.Fate]) -> list[tuple[str, str]]:
    return [(image.id, reason) for image, reason in image_shelf.remove(engine, fates)]


def _refuse_strangers(engine: Engine, known: set[str]) -> None:
    strangers = sorted(image_shelf.find_installations(engine) - known)
    if strangers:
        raise CommandFailed(
            f"installation {', '.join(strangers)} has containers on this engine, and which images it uses "
            "cannot be known: name its --config, too",
            UNHEALTHY,
        )


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What is wrong with an image."""

    image: str
    bundle: str
    problems: list[str]


def _verify_folder(engine: Engine, folder: Path, cache: Path) -> _Verdict:
    parts = gather(folder, engine, cache, _say)
    name, problem = compare_bundle(engine, parts.base_id, parts.manifest.bundle, parts.files)
    return _Verdict(name, parts.manifest.bundle, [problem] if problem else [])


def _verify_image(engine: Engine, image: StoredImage) -> _Verdict:
    return _Verdict(image.id, image.bundle, image_shelf.find_problems(engine, image))


def _show_verdicts(verdicts: list[_Verdict], form: str) -> None:
    if form == "json":
        show([asdict(verdict) for verdict in verdicts], form, empty="")
        return
    rows = [
        {
            "image": write_short_id(verdict.image) if verdict.image.startswith("sha256:") else verdict.image,
            "bundle": verdict.bundle,
            "verdict": "wrong" if verdict.problems else "as it should be",
        }
        for verdict in verdicts
    ]
    show(rows, form, empty="no images of ours", whole=("image", "verdict"))
    for verdict in verdicts:
        for problem in verdict.problems:
            click.echo(to_printable(f"{verdict.image}: {problem}"), err=True)


def _describe(image: StoredImage) -> dict[str, object]:
    return {
        "image": image.id,
        "name": ", ".join(image.tags),
        "bundle": image.bundle,
        "key": image.key,
        "content": image.content.base,
        "added": image.content.bundle,
    }


def _row(image: StoredImage, known: list[Uses], is_whole: bool, form: str) -> dict[str, object]:
    users = sorted({name for uses in known for name in uses.get(image.id, ())})
    unused = "no" if is_whole else "unknown"
    size = f"{image.size_bytes / 1_000_000:.1f} MB" if form == "table" else image.size_bytes
    since = image.since.isoformat(timespec="seconds").replace("+00:00", "Z") if image.since else ""
    row = {**_name(image, form), "kind": image.kind, "size": size}
    row |= {"age": _age(image)} if form == "table" else {"since": since, "names": " ".join(image.tags)}
    return {**row, "used": ", ".join(users) or unused}


def _name(image: StoredImage, form: str) -> dict[str, object]:
    return {"image": write_short_id(image.id) if form == "table" else image.id, "bundle": image.bundle}


def _age(image: StoredImage) -> str:
    """Say how long an image is here, in the unit that suits it."""
    if image.since is None:
        return "unknown"
    hours = (datetime.now(UTC) - image.since).total_seconds() / 3600
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"


def _ask_uses(profile: str | None) -> Uses:
    """Ask the broker for the versions of the profile's tenant."""
    with connect(profile) as channel:
        stub = registry_pb2_grpc.RegistryStub(channel)
        versions = read_all(stub.ListVersions, registry_pb2.ListVersionsRequest(page_size=500), "versions")
    used = [version for version in versions if version.state != registry_pb2.REJECTED]
    return join_uses((version.image_id, f"{version.bundle} {version.version}") for version in used)


def _pairs(uses: Uses) -> Iterator[tuple[str, str]]:
    return ((image_id, name) for image_id, names in uses.items() for name in names)


def _read(config: Path) -> Settings:
    try:
        return read_settings(config)
    except SettingsInvalid as error:
        raise CommandFailed(str(error), USAGE) from error


def _uses(settings: Settings) -> ImageUses:
    try:
        return read_image_uses(settings.state.path)
    except StoreError as error:
        raise CommandFailed(f"which images are used cannot be known: {error}", UNHEALTHY) from error


def _url(named: str | None, installations: list[Settings]) -> str | None:
    """Choose the engine: named on the line, else the installation's."""
    return named or (installations[0].engine.url if installations else None)


@contextmanager
def _engine(named: str | None) -> Iterator[Engine]:
    url = named or environment_variable("DOCKER_HOST") or DEFAULT_URL
    with bundle_errors(), closing(Engine(url, timeout_seconds=60)) as engine:
        engine.check()
        yield engine


def _say(step: str) -> None:
    click.echo(f"· {step}", err=True)
