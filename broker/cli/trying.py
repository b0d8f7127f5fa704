"""`toolcrib tools test`: a bundle's own examples, each in its real sandbox."""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from broker.cli.bundles import bundle_errors, find_place, folder_argument
from broker.cli.output import (
    REFUSED,
    UNHEALTHY,
    USAGE,
    CommandFailed,
    output_option,
    progress,
    to_json,
    to_printable,
)
from broker.packing import Place, open_folders, pack
from broker.settings import environment_variable
from broker.trial.bench import Address, Bench, check_examples, find_untried
from broker.trial.judging import Verdict, try_examples
from sandboxes.bubblewrap_driver import BubblewrapDriver
from sandboxes.docker_driver import DockerDriver
from sandboxes.egress.process import EgressError
from sandboxes.engine import DEFAULT_URL, Engine
from sandboxes.runtimes import RUNC, RUNSC
from sandboxes.sandbox import Driver
from tools.catalogue import ToolVersion, load_version
from tools.errors import BundleInvalid
from tools.examples import Example, read_examples

RUNTIME_OF = {"container": RUNC, "strong": RUNSC}
_TARGET = re.compile(r"(?P<name>[a-z][a-z0-9_-]{0,62})=(?P<host>[A-Za-z0-9_.:-]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class TrialOptions:
    """How a bundle is tried.

    Attributes:
        engine_url: None for DOCKER_HOST or the usual socket.
        config: A broker's toolcrib.toml, whose engine or images are used.
        isolation: Instead of the class that tool.yaml asks for; empty for that.
        chosen: Only examples with this in their name.
    """

    engine_url: str | None
    config: Path | None
    cache: Path
    isolation: str
    without_docker: bool
    fakes_allowed: bool
    real_targets: Mapping[str, Address]
    chosen: str = ""


def trial_options(command: Any) -> Any:
    """Add the options of `test`, which `watch` has as well."""
    options = (
        click.option(
            "--engine", "engine_url", metavar="URL", help="The engine (or DOCKER_HOST, or the usual socket)."
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Use the engine, or the images, of the broker with this toolcrib.toml.",
        ),
        click.option(
            "--without-docker", is_flag=True, help="Use bubblewrap, which is weaker, and no engine."
        ),
        click.option(
            "--isolation",
            type=click.Choice(sorted(RUNTIME_OF)),
            default=None,
            help="Another class than the one that tool.yaml asks for.",
        ),
        click.option(
            "--fakes",
            "fakes_allowed",
            is_flag=True,
            help="Let fakes run: programs of DIR, outside of a sandbox.",
        ),
        click.option(
            "--target",
            "targets",
            multiple=True,
            metavar="NAME=HOST:PORT",
            help="A real target instead of its fake; repeatable.",
        ),
        click.option(
            "--only", "chosen", default="", metavar="TEXT", help="Only examples with TEXT in their name."
        ),
        click.option(
            "--cache",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path(".toolcrib/cache"),
            show_default=True,
            help="Where downloaded parts are kept.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def read_options(given: Mapping[str, Any]) -> TrialOptions:
    """Make the options of a trial of those of a command.

    Raises:
        CommandFailed: Two contradict each other, or a target cannot be read.
    """
    places = [name for name in ("engine_url", "config", "without_docker") if given[name]]
    if len(places) > 1:
        raise CommandFailed("--engine, --config and --without-docker: say one of them", USAGE)
    if given["without_docker"] and given["isolation"] == "strong":
        raise CommandFailed("--without-docker cannot serve the class strong: see docs/runtimes.md", USAGE)
    targets: dict[str, Address] = {}
    for text in given["targets"]:
        found = _TARGET.fullmatch(text)
        if found is None:
            raise CommandFailed(
                f"--target {text}: say NAME=HOST:PORT, for example orders-db=127.0.0.1:5432", USAGE
            )
        targets[found["name"]] = (found["host"], int(found["port"]))
    return TrialOptions(
        engine_url=given["engine_url"],
        config=given["config"],
        cache=given["cache"],
        isolation=given["isolation"] or "",
        without_docker=given["without_docker"],
        fakes_allowed=given["fakes_allowed"],
        real_targets=targets,
        chosen=given["chosen"],
    )


@click.command("test")
@folder_argument
@trial_options
@output_option
def try_bundle(folder: Path, form: str, **given: Any) -> None:
    """Run the examples of the bundle in DIR, each in a sandbox of its own; needs no broker.

    Their targets are fakes of theirs, or real ones that --target names. Exit code 1 when one fails.
    """
    verdicts = run_trial(folder, read_options(given), form)
    if any(verdict.problem for verdict in verdicts):
        click.get_current_context().exit(REFUSED)


def run_trial(folder: Path, options: TrialOptions, form: str = "table") -> list[Verdict]:
    """Try the examples of a folder, and print what became of each.

    Raises:
        CommandFailed: They could not be tried.
    """
    with bundle_errors():
        with _example_errors(folder):
            examples = [one for one in read_examples(folder) if options.chosen in one.name]
        if not examples:
            which = (
                f"no example has {options.chosen!r} in its name" if options.chosen else "it has no example"
            )
            raise CommandFailed(f"{folder}: {which}: write some into examples/*.yaml", UNHEALTHY)
        with ExitStack() as stack:
            version, driver = _prepare(folder, options, stack)
            bench = Bench(folder, version, driver, options.real_targets, options.fakes_allowed)
            with _example_errors(folder):
                check_examples(bench, examples)
            try:
                verdicts = asyncio.run(_try_all(bench, examples, form))
            except EgressError as error:
                raise CommandFailed(str(error), UNHEALTHY) from error
    _sum_up(bench, examples, verdicts, form)
    return verdicts


@contextmanager
def _example_errors(folder: Path) -> Iterator[None]:
    """Say what is wrong with examples, which are no part of what is registered."""
    try:
        yield
    except BundleInvalid as error:
        faults = [{"field": fault.field, "description": fault.description} for fault in error.violations]
        lines = [f"  {fault['field']}: {fault['description']}" for fault in faults]
        text = "\n".join([f"{folder}: its examples cannot be run", *lines])
        raise CommandFailed(text, UNHEALTHY, details={"violations": faults}) from error


def _prepare(folder: Path, options: TrialOptions, stack: ExitStack) -> tuple[ToolVersion, Driver]:
    """Build the bundle's image where its sandboxes run, and say what runs them."""
    place: Place | str = options.cache.absolute()
    if options.config is not None:
        place = find_place(options.config, folder)
    elif not options.without_docker:
        place = options.engine_url or environment_variable("DOCKER_HOST") or DEFAULT_URL
    if isinstance(place, str):
        place = stack.enter_context(closing(_find_engine(place)))
    with progress("image"):
        packed = pack(folder, place, options.cache.absolute(), lambda text: click.echo(f"· {text}", err=True))
    version = load_version(packed.descriptor_set, packed.manifest_yaml, packed.image_id)
    # Its own: no broker's reaper looks for it, and it for no broker's.
    installation = f"try-{os.getpid()}-{uuid.uuid4().hex[:12]}"
    if isinstance(place, Path):
        return version, BubblewrapDriver(open_folders(place), installation, epoch=1)
    isolation = options.isolation or version.manifest.isolation
    return version, DockerDriver(place, installation, epoch=1, runtime=RUNTIME_OF[isolation])


def _find_engine(url: str) -> Engine:
    engine = Engine(url)
    if not engine.answers():
        engine.close()
        raise CommandFailed(
            f"no Docker Engine answers at {engine.base_url}: start it, name it with --engine, or say "
            "--without-docker, which is weaker",
            UNHEALTHY,
        )
    engine.check()
    return engine


async def _try_all(bench: Bench, examples: Sequence[Example], form: str) -> list[Verdict]:
    """Try all, print each as it ends; the driver is closed on every path."""
    verdicts = []
    try:
        await bench.driver.start()
        async for verdict in try_examples(bench, examples):
            verdicts.append(verdict)
            if form != "json":
                _print(verdict)
    finally:
        await bench.driver.close()
    return verdicts


def _print(verdict: Verdict) -> None:
    mark = click.style("failed", fg="red") if verdict.problem else click.style("ok", fg="green")
    example = verdict.example
    where = f"({example.file}, {verdict.seconds * 1000:.0f} ms)"
    click.echo(f"{mark}  {to_printable(f'{example.name}  {where}')}")
    for text, heading in ((verdict.problem, ""), (verdict.log, "    log:")):
        if text and heading:
            click.echo(heading)
        for line in text.splitlines():
            click.echo(f"    {to_printable(line)}".rstrip())


def _sum_up(bench: Bench, examples: Sequence[Example], verdicts: Sequence[Verdict], form: str) -> None:
    if form == "json":
        rows = [
            {
                "name": verdict.example.name,
                "file": verdict.example.file,
                "tool": verdict.example.method,
                "passed": not verdict.problem,
                "problem": verdict.problem,
                "log": verdict.log,
                "millis": round(verdict.seconds * 1000),
            }
            for verdict in verdicts
        ]
        click.echo(to_json(rows))
        return
    failed = sum(bool(verdict.problem) for verdict in verdicts)
    click.echo(
        f"{len(verdicts) - failed} of {len(verdicts)} examples went as they should, on {bench.driver.name}",
        err=True,
    )
    for method in find_untried(bench, examples):
        click.echo(f"note: no example calls {method}", err=True)
