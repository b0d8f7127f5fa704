"""`toolcrib store` and `toolcrib tenants`: copies of the state, and what is to be forgotten for good."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from broker.cli.connection import ask, connect, profile_option
from broker.cli.output import UNHEALTHY, USAGE, CommandFailed, output_option, progress, show_one
from broker.keys import read_key_file
from broker.settings import Settings, SettingsInvalid, read_settings
from broker.store.backup import backup_store, restore_store
from broker.store.options import DAY_SECONDS, StoreOptions
from broker.store.records import StoreError
from toolcrib.v1 import operations_pb2, operations_pb2_grpc

T = TypeVar("T")

file_path = click.Path(path_type=Path, dir_okay=False)
config_option = click.option(
    "--config", type=file_path, required=True, metavar="FILE", help="toolcrib.toml, which names the state."
)


@click.group()
def store() -> None:
    """Back the broker's state up, and put a backup in its place."""


@store.command("backup")
@config_option
@click.argument("to", type=file_path, metavar="FILE")
@output_option
def back_up(config: Path, to: Path, form: str) -> None:
    """Copy the state into FILE, which is not there yet. The broker may run meanwhile.

    Requests, results and tool logs stay sealed in it: without Vault's keys they cannot be read.
    """
    settings = _read(config)
    with progress("backing up"):
        made = _run(backup_store(settings.state.path, to))
    show_one({"backup": to, "of": made.isoformat()}, form)


@store.command("restore")
@config_option
@click.argument("backup", type=file_path, metavar="FILE")
@click.option(
    "--accept-unknown-after",
    "grace_seconds",
    type=click.FloatRange(min=0),
    default=float(DAY_SECONDS),
    show_default=True,
    metavar="SECONDS",
    help="How long agents may still ask again for what they asked before.",
)
@output_option
def restore(config: Path, backup: Path, grace_seconds: float, form: str) -> None:
    """Put the backup FILE in place of the state. No broker may run on it.

    Whatever was open in the backup is in doubt. What was done after it is not known any more: until the time
    of grace is over, a write with an unknown key is refused (STATE_RESTORED) unless its agent says that the
    key is younger than the restore. What was there before is kept beside it.
    """
    settings = _read(config)
    try:
        keys = read_key_file(settings.state.key_file)
    except SettingsInvalid as error:
        raise CommandFailed(str(error), USAGE) from error
    options = StoreOptions(keys.audit_key, keys.audit_key_id, epoch_seconds=settings.state.epoch_seconds)
    wait_seconds = settings.state.epoch_seconds * 1.5
    with progress("restoring"):
        done = _run(
            restore_store(
                backup, settings.state.path, options, grace_seconds=grace_seconds, wait_seconds=wait_seconds
            )
        )
    show_one(
        {
            "restored": settings.state.path,
            "backup_of": done.backup_at.isoformat(),
            "restored_at": done.restored_at.isoformat(),
            "in_doubt": done.in_doubt,
            "before": done.replaced or "nothing",
        },
        form,
    )


@click.group()
def tenants() -> None:
    """Forget what is kept of a tenant."""


@tenants.command("erase")
@click.argument("tenant", metavar="TENANT")
@click.option("--yes", is_flag=True, help="Do not ask.")
@profile_option
def erase(tenant: str, yes: bool, profile: str | None) -> None:
    """Destroy the key of what is kept of TENANT: requests, results, files and tool logs.

    They cannot be read again by anybody, backups included once the tenant's key in Vault is deleted, too.
    The audit stays and still verifies. For operators, of their own tenant.
    """
    if not yes:
        click.confirm(f'Erase what is kept of tenant "{tenant}" for good?', abort=True, err=True)
    with connect(profile) as channel:
        stub = operations_pb2_grpc.OperationsStub(channel)
        ask(stub.EraseTenant, operations_pb2.EraseTenantRequest(tenant=tenant))
    click.echo(f"erased what was kept of {tenant}")


def _read(config: Path) -> Settings:
    try:
        return read_settings(config)
    except SettingsInvalid as error:
        raise CommandFailed(str(error), USAGE) from error


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except StoreError as error:
        raise CommandFailed(str(error), UNHEALTHY) from error
