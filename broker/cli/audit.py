"""`toolcrib audit`: the chain of decisions, walked from its first record; the broker may run meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import click

from broker.audit import START, Anchor, Broken, Verified, verify
from broker.cli.output import UNHEALTHY, USAGE, CommandFailed, output_option, progress, show_one
from broker.keys import read_key_file
from broker.settings import SettingsInvalid, read_settings
from broker.store.protocol import StoreError
from broker.store.sqlite import read_audit

file_path = click.Path(path_type=Path, dir_okay=False)


@click.group()
def audit() -> None:
    """Check the audit log."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the chain lies, and its key."""

    state_db: Path
    key_file: Path


@audit.command("verify")
@click.option("--config", type=file_path, metavar="FILE", help="toolcrib.toml, which names the next two.")
@click.option("--state-db", type=file_path, metavar="FILE", help="The state, or a copy of it.")
@click.option("--key-file", type=file_path, metavar="FILE", help="The broker's key file.")
@click.option("--anchor", metavar="N:HASH", help="A head seen earlier: the chain must go through it.")
@output_option
def verify_chain(
    config: Path | None, state_db: Path | None, key_file: Path | None, anchor: str | None, form: str
) -> None:
    """Walk the chain of audit records and check each one's hash.

    Finds what was changed, removed, put in or moved; exit code 3 says where. Keep the head that it prints in
    another place and give it as --anchor the next time: that finds records cut off at the end, too.
    """
    try:
        places = _find(config, state_db, key_file)
        expected = Anchor.parse(anchor) if anchor else START
        keys = read_key_file(places.key_file)
    except (SettingsInvalid, ValueError) as error:
        raise CommandFailed(str(error), USAGE) from error
    with progress("verifying"):
        found = asyncio.run(_walk(places.state_db, keys.audit_key_id, keys.audit_key, expected))
    if isinstance(found, Broken):
        text = f"the chain is broken: record {found.sequence} {found.why}"
        raise CommandFailed(text, UNHEALTHY, details={"sequence": found.sequence, "why": found.why})
    show_one({"records": found.head.sequence, "head": str(found.head), "key_id": keys.audit_key_id}, form)


async def _walk(state_db: Path, key_id: str, key: bytes, anchor: Anchor) -> Verified | Broken:
    try:
        return await verify(read_audit(state_db), {key_id: key}, anchor)
    except StoreError as error:
        raise CommandFailed(str(error), UNHEALTHY) from error


def _find(config: Path | None, state_db: Path | None, key_file: Path | None) -> Places:
    if config is not None and state_db is None and key_file is None:
        state = read_settings(config).state
        return Places(state.path, state.key_file)
    if config is None and state_db is not None and key_file is not None:
        return Places(state_db, key_file)
    raise SettingsInvalid("give --config FILE, or --state-db FILE with --key-file FILE")
