"""`toolcrib audit`: the chain of decisions, walked from its first record; the broker may run meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from broker.audit import START, Anchor, ChainBroken, Walk
from broker.cli.output import UNHEALTHY, USAGE, CommandFailed, Commands, output_option, progress, show_one
from broker.keys import TenantKeys, read_key_file
from broker.settings import SettingsInvalid, read_settings
from broker.store.records import StoreError
from broker.store.sqlite import read_audit

file_path = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Commands, places={"reconcile": "broker.cli.reconciling:reconcile"})
def audit() -> None:
    """Check the audit log, alone and against Vault's."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the chain lies, its key, and the head that it must go through."""

    state_db: Path
    keys: TenantKeys
    anchor: Anchor

    def walk(self) -> Walk:
        """Make the check of this chain."""
        return Walk({self.keys.audit_key_id: self.keys.audit_key}, self.anchor)


def chain_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where the chain is."""
    for option in (
        click.option("--anchor", metavar="N:HASH", help="A head seen earlier: the chain must go through it."),
        click.option("--key-file", type=file_path, metavar="FILE", help="The broker's key file."),
        click.option("--state-db", type=file_path, metavar="FILE", help="The state, or a copy of it."),
        click.option("--config", type=file_path, metavar="FILE", help="toolcrib.toml; it names both."),
    ):
        command = option(command)
    return command


def find_chain(
    config: Path | None, state_db: Path | None, key_file: Path | None, anchor: str | None
) -> Places:
    """Find the chain that the options name.

    Raises:
        CommandFailed: They name none, the settings or the key cannot be read, or the anchor is none.
    """
    try:
        state_path, key_path = _find(config, state_db, key_file)
        return Places(state_path, read_key_file(key_path), Anchor.parse(anchor) if anchor else START)
    except (SettingsInvalid, ValueError) as error:
        raise CommandFailed(str(error), USAGE) from error


def say_broken(broken: ChainBroken) -> CommandFailed:
    """Say where our chain does not hold."""
    found = broken.found
    return CommandFailed(str(broken), UNHEALTHY, details={"sequence": found.sequence, "why": found.why})


@audit.command("verify")
@chain_options
@output_option
def verify_chain(
    config: Path | None, state_db: Path | None, key_file: Path | None, anchor: str | None, form: str
) -> None:
    """Walk the chain of audit records and check each one's hash.

    Finds what was changed, removed, put in or moved; exit code 3 says where. Keep the head that it prints in
    another place and give it as --anchor the next time: that finds records cut off at the end, too.
    """
    places = find_chain(config, state_db, key_file, anchor)
    with progress("verifying"):
        head = asyncio.run(_walk(places))
    show_one({"records": head.sequence, "head": str(head), "key_id": places.keys.audit_key_id}, form)


async def _walk(places: Places) -> Anchor:
    walk = places.walk()
    try:
        async for _ in walk.check(read_audit(places.state_db)):
            pass
        walk.end()
    except ChainBroken as broken:
        raise say_broken(broken) from broken
    except StoreError as error:
        raise CommandFailed(str(error), UNHEALTHY) from error
    return walk.head


def _find(config: Path | None, state_db: Path | None, key_file: Path | None) -> tuple[Path, Path]:
    if config is not None and state_db is None and key_file is None:
        state = read_settings(config).state
        return state.path, state.key_file
    if config is None and state_db is not None and key_file is not None:
        return state_db, key_file
    raise SettingsInvalid("give --config FILE, or --state-db FILE with --key-file FILE")
