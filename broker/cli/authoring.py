"""`toolcrib tools init` and `generate`: a new bundle, and what its author's own tests need."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath

import click

from broker.cli.bundles import bundle_errors, folder_argument
from broker.cli.output import USAGE, CommandFailed
from tools.errors import BundleInvalid
from tools.skeleton import KINDS, plan_bundle, write_bundle
from tools.source import generate_code


@click.command()
@click.argument("name")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to write it. Default: ./NAME.",
)
@click.option(
    "--effect",
    type=click.Choice(KINDS),
    default="read",
    show_default=True,
    help="read: one tool that answers; write: one that changes a target, with its probe.",
)
def init(name: str, folder: Path | None, effect: str) -> None:
    """Write a new bundle called NAME: contract, manifest, handler, examples.

    It passes `check` and runs as it is. Nothing is ever overwritten.
    """
    place = folder or Path(name)
    try:
        files = plan_bundle(name, effect)
        write_bundle(files, place)
    except BundleInvalid as error:
        text = "\n".join(f"{fault.field}: {fault.description}" for fault in error.violations)
        raise CommandFailed(text, USAGE) from error
    except OSError as error:
        raise CommandFailed(f"{error.filename}: cannot be written ({error.strerror})", USAGE) from error
    for file in files:
        click.echo(place / file)
    fakes = " --fakes" if effect == "write" else ""
    click.echo(f"now: toolcrib tools check {place} && toolcrib tools test {place}{fakes}", err=True)


@click.command()
@folder_argument
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where to write it. Default: DIR/.generated, which is no part of the bundle.",
)
def generate(folder: Path, out: Path | None) -> None:
    """Write the Python code of the contract in DIR, for tests with `toolcrib.handler.testing`.

    The bundle's image gets the same code by itself. Put DIR and the folder on PYTHONPATH.
    """
    place = out or folder / ".generated"
    with bundle_errors():
        code = generate_code(folder)
    linked = None if out else _find_link(folder, [f".generated/{name}" for name in code])
    if linked is not None:
        raise CommandFailed(
            f"{linked}: is a link, and what it leads to would be overwritten: remove it", USAGE
        )
    try:
        for name, data in code.items():
            file = place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            click.echo(file)
    except OSError as error:
        raise CommandFailed(f"{error.filename}: cannot be written ({error.strerror})", USAGE) from error


def _find_link(folder: Path, names: Iterable[str]) -> Path | None:
    """Find a link on the way to files of a folder: who wrote the folder may mean files of ours."""
    parts = (folder / part for name in names for part in (PurePath(name), *PurePath(name).parents))
    return next((path for path in parts if path != folder and path.is_symlink()), None)
