"""`toolcrib tools watch`: check and test again whenever a file of the bundle changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import watchfiles

from broker.cli.bundles import folder_argument
from broker.cli.checking import check
from broker.cli.output import CommandFailed
from broker.cli.trying import TrialOptions, read_options, run_trial, trial_options
from tools.examples import FOLDER

_DEBOUNCE_MILLIS = 400
_STEP_MILLIS = 100
_MOMENT_MILLIS = 500


class OwnFiles(watchfiles.DefaultFilter):
    """Changes of the bundle's own files: not of hidden ones, nor of what a run of ours writes."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self._folder = folder.resolve()
        super().__init__(ignore_paths=[cache.resolve()])

    def __call__(self, change: watchfiles.Change, path: str) -> bool:
        """Tell whether a change counts."""
        found = Path(path)
        inside = found.relative_to(self._folder).parts if found.is_relative_to(self._folder) else ()
        return not any(part.startswith(".") for part in inside) and super().__call__(change, path)


@click.command()
@folder_argument
@trial_options
def watch(folder: Path, **given: Any) -> None:
    """Check and test the bundle in DIR now, and again whenever one of its files changes.

    When only examples changed, only they are run. Ctrl-C ends it.
    """
    options = read_options(given)
    examples = (folder / FOLDER).resolve()
    try:
        changes = _observe(folder, options.cache)
        next(changes)  # from here on a change is seen, also one that is made while the first run runs
        _run(folder, options, only_examples=False)
        for changed in filter(None, changes):
            click.clear()
            _run(folder, options, only_examples=all(path.is_relative_to(examples) for path in changed))
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def _observe(folder: Path, cache: Path) -> Iterator[set[Path]]:
    """Give what changed, again and again; an empty set where nothing did for a moment."""
    watching = watchfiles.watch(
        folder,
        watch_filter=OwnFiles(folder, cache),
        debounce=_DEBOUNCE_MILLIS,
        step=_STEP_MILLIS,
        rust_timeout=_MOMENT_MILLIS,
        yield_on_timeout=True,
    )
    return ({Path(path).resolve() for _, path in changes} for changes in watching)


def _run(folder: Path, options: TrialOptions, *, only_examples: bool) -> None:
    """Check, unless only examples changed, then test; what is wrong is said, and watching goes on."""
    if only_examples or _succeeds(lambda: _check(folder)):
        _succeeds(lambda: run_trial(folder, options))
    now = datetime.now().astimezone()
    click.echo(f"{now:%H:%M:%S} watching {folder}; Ctrl-C ends it", err=True)


def _check(folder: Path) -> None:
    click.get_current_context().invoke(check, folder=folder)


def _succeeds(work: Callable[[], object]) -> bool:
    try:
        work()
    except CommandFailed as error:
        error.show()
        return False
    except click.exceptions.Exit as error:
        return error.exit_code == 0
    return True
