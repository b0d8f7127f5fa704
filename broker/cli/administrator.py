"""What commands share that ask Vault as an administrator.

The administrator's token comes from a file or from stdin: a command line and an environment can be read by
others. It is used for these requests and kept nowhere.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from broker.cli.output import REFUSED, UNHEALTHY, USAGE, CommandFailed
from broker.doctor.files import is_open_to_others
from broker.settings import Settings, SettingsInvalid, read_settings
from broker.vault_wish import vault_peer
from credentials.errors import Cause
from credentials.secret import Secret
from credentials.transport import HvacTransport
from credentials.vault_api import VaultApi, VaultFault

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The broker's toolcrib.toml.",
)


def token_option(*, required: bool) -> Callable[[Command], Command]:
    """Return the option that names the administrator's token."""
    return click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
        required=required,
        metavar="FILE|-",
        help="An administrator's Vault token: a file that only you can read, or - for stdin.",
    )


def read_config(config: Path) -> Settings:
    """Read toolcrib.toml.

    Raises:
        CommandFailed: It cannot be used.
    """
    try:
        return read_settings(config)
    except SettingsInvalid as error:
        raise CommandFailed(str(error), USAGE) from error


def read_token(file: Path) -> Secret:
    """Read the administrator's token.

    Raises:
        CommandFailed: The file cannot be read, others may read it, or it is empty.
    """
    if str(file) == "-":
        text = sys.stdin.readline()
    else:
        try:
            if is_open_to_others(file):
                raise CommandFailed(f"{file}: others may read it; chmod 600 {file}", USAGE)
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandFailed(f"{file}: the token cannot be read", USAGE) from error
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise CommandFailed(f"{'stdin' if str(file) == '-' else file}: holds no token", USAGE)
    return Secret(token)


def ask_vault(settings: Settings, work: Callable[[VaultApi], Awaitable[T]]) -> T:
    """Do something with a connection of our own.

    Raises:
        CommandFailed: Vault refused it, or gave no answer.
    """

    async def run() -> T:
        transport = HvacTransport(vault_peer(settings))
        try:
            return await work(_NamingApi(transport))
        finally:
            await transport.close()

    try:
        return asyncio.run(run())
    except VaultFault as fault:
        if fault.cause is Cause.DENIED:
            raise CommandFailed(f"Vault denies it to this token: {fault}", REFUSED) from fault
        raise CommandFailed(f"Vault: {fault}", UNHEALTHY) from fault


class _NamingApi(VaultApi):
    """Says at which path Vault refused: an administrator's token may lack one right of many."""

    async def ask(
        self,
        method: str,
        path: str,
        token: Secret | None,
        body: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = True,
    ) -> dict[str, Any]:
        """Send one request; see `Transport.ask`."""
        try:
            return await super().ask(method, path, token, body, repeatable=repeatable)
        except VaultFault as fault:
            raise VaultFault(f"{method} {path}: {fault}", fault.cause) from fault
