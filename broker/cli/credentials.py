"""`toolcrib credentials rotate`: new passwords and secrets, while the broker runs.

Each rotation says what it will do and what it did, and never a value. It does not go through the broker:
Vault's own audit log says who rotated what and when.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from broker.cli.administrator import ask_vault, config_option, read_config, read_token, token_option
from broker.cli.output import UNHEALTHY, USAGE, CommandFailed, output_option, progress, to_json, to_printable
from broker.settings import AppRoleLogin, Settings, SettingsInvalid
from broker.vault_wish import make_wish, open_session
from credentials.engines import ENGINES
from credentials.engines.oauth2.assertion import AssertionKey, read_key
from credentials.engines.oauth2.role import FOLDER, key_name
from credentials.errors import CredentialsError
from credentials.logins import LoginInvalid, read_source
from credentials.rotation import Rotation
from credentials.rotation.passwords import (
    name_database_user,
    name_directory_user,
    rotate_database_user,
    rotate_directory_user,
    rotate_shared_login,
)
from credentials.rotation.secret_id import BrokerLogin, FileNotWritten, list_secret_ids, rotate_secret_id
from credentials.rotation.secret_values import DEFAULT_LENGTH, generate_value, rotate_values
from credentials.secret import Secret
from credentials.vault_api import VaultApi

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])
NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}$")
SHARED = [name for name, engine in ENGINES.items() if engine.exclusive]
MAX_INPUT_CHARACTERS = 1024 * 1024

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def _check_secret(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not NAME.match(value.removeprefix(FOLDER)):
        raise click.BadParameter(f"a secret's name has a-z, 0-9, - and _; an oauth2 role's is {FOLDER}ROLE")
    return value


def _check_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not NAME.match(value):
        raise click.BadParameter("a name has a-z, 0-9, - and _")
    return value


@click.group()
def credentials() -> None:
    """Rotate what Vault and the broker log in with; publish the keys of oauth2 roles."""


@credentials.group()
def rotate() -> None:
    """Rotate a password or a secret; calls go on meanwhile."""


@rotate.command()
@click.argument("target", metavar="TARGET", callback=_check_name)
@config_option
@token_option(required=True)
@yes_option
@output_option
def database(*, target: str, config: Path, token_file: Path, yes: bool, form: str) -> None:
    """Give Vault's own user at the database TARGET a new password.

    Afterwards nobody but Vault knows it, you included: have another way into the database.
    """
    settings, token = read_config(config), read_token(token_file)
    mount = _mount(settings, "database")
    username = ask_vault(settings, lambda api: name_database_user(api, token, mount, target))
    _confirm(
        f"{username} at {target} gets a new password; afterwards nobody but Vault knows it, and nobody can "
        "log in as this user by hand.",
        yes,
    )
    _do(settings, form, lambda api: rotate_database_user(api, token, mount, target))


@rotate.command()
@config_option
@token_option(required=True)
@yes_option
@output_option
def ldap(*, config: Path, token_file: Path, yes: bool, form: str) -> None:
    """Give Vault's own user in the directory a new password.

    Afterwards nobody but Vault knows it, you included: have another way into the directory.
    """
    settings, token = read_config(config), read_token(token_file)
    mount = _mount(settings, "ldap")
    binddn = ask_vault(settings, lambda api: name_directory_user(api, token, mount))
    _confirm(
        f"{binddn} gets a new password; afterwards nobody but Vault knows it, and nobody can log in as this "
        "user by hand.",
        yes,
    )
    _do(settings, form, lambda api: rotate_directory_user(api, token, mount))


@rotate.command()
@click.argument("engine", type=click.Choice(SHARED))
@click.argument("role", metavar="ROLE", callback=_check_name)
@config_option
@token_option(required=True)
@yes_option
@output_option
def static(*, engine: str, role: str, config: Path, token_file: Path, yes: bool, form: str) -> None:
    """Give the login of ROLE, which calls share, a new password now.

    Each call's end does it anyway. It takes the login away from a call that has it.
    """
    settings, token = read_config(config), read_token(token_file)
    _confirm(f"The login of {role} gets a new password; a call that has it now may fail.", yes)
    mounts = make_wish(settings, []).mounts
    _do(settings, form, lambda api: rotate_shared_login(api, token, mounts, engine, role))


@rotate.command("secret-id")
@config_option
@token_option(required=True)
@yes_option
@output_option
def secret_id(*, config: Path, token_file: Path, yes: bool, form: str) -> None:
    """Give the broker a new secret id, and destroy all others of its role.

    Run it on the broker's machine, as who may write its secret_id_file. The running broker keeps its session
    and reads the file at its next login.
    """
    settings, token = read_config(config), read_token(token_file)
    login = _read_login(settings)
    known = ask_vault(settings, lambda api: list_secret_ids(api, token, login))
    _confirm(
        f"A new secret id of {login.role} is written to {login.file}; all others ({len(known)}) are "
        "destroyed, also those of other brokers with this role.",
        yes,
    )
    try:
        _do(settings, form, lambda api: rotate_secret_id(api, token, login))
    except FileNotWritten as error:
        raise CommandFailed(str(error), UNHEALTHY) from error


@rotate.command()
@click.argument("name", metavar="NAME", callback=_check_secret)
@click.option(
    "--generate",
    "generated",
    multiple=True,
    metavar="KEY[:LENGTH]",
    help=f"Make a value of {DEFAULT_LENGTH} letters and digits, or so many; may be given again.",
)
@click.option("--destroy-older", is_flag=True, help="Destroy the versions of before, for good.")
@config_option
@token_option(required=True)
@yes_option
@output_option
def kv(  # noqa: PLR0913 - one parameter an option
    *,
    name: str,
    generated: tuple[str, ...],
    destroy_older: bool,
    config: Path,
    token_file: Path,
    yes: bool,
    form: str,
) -> None:
    """Write a new version of the secret NAME; of an oauth2 role it is oauth2/ROLE.

    The values come from stdin, as a JSON object, after the token's line where that comes from stdin as well;
    or they are made by --generate. Keys that are not named keep their values.
    """
    settings, token = read_config(config), read_token(token_file)
    values = _generate(generated) if generated else _read_values(sys.stdin.read(MAX_INPUT_CHARACTERS))
    if destroy_older:
        _confirm(f"The older versions of {name} are destroyed for good.", yes)
    path = (_mount(settings, "kv"), name)
    _do(settings, form, lambda api: rotate_values(api, token, path, values, destroy_older=destroy_older))


@credentials.command()
@click.argument("role", metavar="ROLE", callback=_check_name)
@config_option
def jwks(*, role: str, config: Path) -> None:
    """Print the public half of the key of the oauth2 ROLE, as a JWK set.

    By it an authorization server knows the assertions that Vault signs for this role. Each version that Vault
    still has is in it.
    """
    settings = read_config(config)
    try:
        key = asyncio.run(_read_key(settings, role))
    except (SettingsInvalid, CredentialsError) as error:
        raise CommandFailed(str(error), UNHEALTHY) from error
    click.echo(to_json(key.to_jwks()))


async def _read_key(settings: Settings, role: str) -> AssertionKey:
    mount = make_wish(settings, []).mounts["transit"]
    async with open_session(settings) as session:
        subject = f"the key of the oauth2 role {role}"
        return await session.ask(subject, lambda api, token: read_key(api, token, mount, key_name(role)))


def _mount(settings: Settings, engine: str) -> str:
    return make_wish(settings, []).mount(engine)


def _read_login(settings: Settings) -> BrokerLogin:
    login = settings.vault.login
    if not isinstance(login, AppRoleLogin):
        text = f'the broker logs in by "{login.method}": only the method "approle" has a secret id'
        raise CommandFailed(text, USAGE)
    try:
        role_id = read_source(login.role_id_file)
    except LoginInvalid as error:
        raise CommandFailed(str(error), USAGE) from error
    return BrokerLogin(role_id, login.secret_id_file, login.mount, login.role)


def _confirm(text: str, yes: bool) -> None:
    if yes:
        return
    click.echo(to_printable(text), err=True)
    if not sys.stdin.isatty():
        raise CommandFailed("say --yes to go on", USAGE)
    click.confirm("Go on?", abort=True, err=True)


def _do(settings: Settings, form: str, work: Callable[[VaultApi], Awaitable[Rotation]]) -> None:
    with progress("rotating"):
        made = ask_vault(settings, work)
    if form == "json":
        described = {"rotated": made.subject, "done": made.done, "remaining": made.remaining}
        click.echo(to_json(described))
        return
    for line in made.done:
        click.echo(to_printable(line))
    for line in made.remaining:
        click.echo(to_printable(f"to do: {line}"), err=True)


def _generate(asked: Sequence[str]) -> dict[str, Secret]:
    values = {}
    for item in asked:
        key, colon, length = item.partition(":")
        if not key or key in values or bool(colon) != length.isdecimal():
            raise CommandFailed(f"--generate {item}: expected KEY or KEY:LENGTH, each key once", USAGE)
        try:
            values[key] = generate_value(int(length or DEFAULT_LENGTH))
        except ValueError as error:
            raise CommandFailed(f"--generate {item}: {error}", USAGE) from error
    return values


def _read_values(text: str) -> dict[str, Secret]:
    """Read a JSON object of strings; nothing of it is told in an error."""
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except ValueError:
        pairs = None
    good = isinstance(pairs, list) and pairs and all(_is_pair(item) for item in pairs)
    if not good or len({key for key, _ in pairs}) != len(pairs):
        raise CommandFailed("stdin: expected a JSON object of strings, each key once", USAGE)
    return {key: Secret(value) for key, value in pairs}


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and all(isinstance(part, str) for part in item)
