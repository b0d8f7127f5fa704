"""`toolcrib vault`: set Vault up for the broker and its tools, review what stands there, see what differs.

The administrator's token comes from a file or from stdin: a command line and an environment can be read by
others. It is used for these requests and kept nowhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from broker.cli.administrator import ask_vault, config_option, read_config, read_token, token_option
from broker.cli.output import (
    UNHEALTHY,
    USAGE,
    CommandFailed,
    output_option,
    progress,
    show_one,
    to_json,
)
from broker.cli.vault_report import describe_finding, describe_plan, show_findings, show_plan
from broker.settings import Settings, SettingsInvalid
from broker.store.inspection import look_into
from broker.store.records import StoreError
from broker.vault_wish import Need, make_wish, open_session, read_folder, read_needs
from credentials.bootstrap.blueprint import Wish, list_policies
from credentials.bootstrap.plan import NotTaken, Plan, apply_plan, make_plan
from credentials.bootstrap.review import review_as_administrator, review_as_broker
from credentials.bootstrap.roles import RoleDefinition, RolesInvalid, read_roles
from credentials.errors import CredentialsError
from credentials.policies import BROKER_POLICY_NAME
from credentials.role_check import Finding
from credentials.vault_api import VaultApi
from tools.errors import BundleInvalid

T = TypeVar("T")

folder_path = click.Path(path_type=Path, file_okay=False)
roles_option = click.option(
    "--roles",
    "roles_files",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="Roles to write, as TOML; may be given again.",
)
bundles_argument = click.argument("bundles", type=folder_path, nargs=-1, metavar="[BUNDLE]...")


@click.group()
def vault() -> None:
    """Set Vault up for the broker and its tools, and review what stands there."""


@vault.command()
@click.option("--plan", "what", flag_value="plan", help="Show what would be written.")
@click.option("--apply", "what", flag_value="apply", help="Show it, and write it.")
@config_option
@token_option(required=True)
@roles_option
@click.option(
    "--cidr",
    "cidrs",
    multiple=True,
    metavar="CIDR",
    help="From where the broker may use its login; may be given again.",
)
@bundles_argument
@output_option
@click.pass_context
def bootstrap(  # noqa: PLR0913 - one parameter an option
    context: click.Context,
    *,
    what: str | None,
    config: Path,
    token_file: Path,
    roles_files: tuple[Path, ...],
    cidrs: tuple[str, ...],
    bundles: tuple[Path, ...],
    form: str,
) -> None:
    """Write what the registered tools, and those in the folders BUNDLE, need in Vault.

    Engines, policies, the token role, the broker's login, roles, keys of tenants. It adds and changes what is
    its own, and removes nothing. What only you can do it names: then the exit code is 3.
    """
    if what is None:
        raise CommandFailed("say --plan, to see what would be written, or --apply, to write it", USAGE)
    settings = read_config(config)
    wish = _wish(settings, bundles, _read_roles(roles_files), cidrs)
    token = read_token(token_file)

    async def work(api: VaultApi) -> Plan:
        plan = await make_plan(api, token, wish)
        if form == "table":
            show_plan(plan)
        if what == "apply":
            await apply_plan(api, token, plan)
        return plan

    plan = _as_administrator(settings, work)
    if form == "json":
        click.echo(to_json(describe_plan(plan, applied=what == "apply")))
    elif plan.changes:
        done = "written" if what == "apply" else "to be written: --apply writes it"
        click.echo(f"{len(plan.changes)} change{'' if len(plan.changes) == 1 else 's'} {done}", err=True)
    if plan.problems:
        context.exit(UNHEALTHY)


@vault.command()
@click.option("--broker", "only_broker", is_flag=True, help="The policy of the broker's session only.")
@click.option(
    "--tool",
    "tools",
    type=folder_path,
    multiple=True,
    metavar="BUNDLE",
    help="Of the tools in this folder only.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="toolcrib.toml: its registered tools are included.",
)
@output_option
def policy(*, only_broker: bool, tools: tuple[Path, ...], config: Path | None, form: str) -> None:
    """Print the policies, exactly as they have to stand in Vault. Asks nobody."""
    if config is None and not tools:
        raise CommandFailed("name --config FILE, --tool BUNDLE, or both", USAGE)
    settings = read_config(config) if config else None
    needs = [_read_folder(folder) for folder in tools]
    if settings is not None and not (tools and not only_broker):
        needs += _registered(settings)
    texts = {
        item.subject.removeprefix("policy "): str(item.values["policy"])
        for item in list_policies(make_wish(settings, needs))
    }
    chosen = {
        name: text
        for name, text in texts.items()
        if (name == BROKER_POLICY_NAME and (only_broker or not tools))
        or (name != BROKER_POLICY_NAME and not only_broker)
    }
    if form == "json":
        show_one(chosen, form)
        return
    for name, text in chosen.items():
        click.echo(f"# Policy {name}\n{text}")


@vault.command()
@config_option
@token_option(required=False)
@roles_option
@bundles_argument
@output_option
@click.pass_context
def check(
    context: click.Context,
    *,
    config: Path,
    token_file: Path | None,
    roles_files: tuple[Path, ...],
    bundles: tuple[Path, ...],
    form: str,
) -> None:
    """Say what in Vault differs from what it should hold, is too broad, or is missing.

    Looks with the broker's own login; with --token-file at what only an administrator sees, too. Changes
    nothing. Exit code 3 when there is a problem.
    """
    logging.getLogger("credentials").setLevel(logging.CRITICAL)  # the findings say it
    settings = read_config(config)
    wish = _wish(settings, bundles, _read_roles(roles_files))
    token = read_token(token_file) if token_file else None
    with progress("looking"):
        findings = asyncio.run(_review(settings, wish))
        if token is not None:
            found = _as_administrator(settings, lambda api: review_as_administrator(api, token, wish))
            seen = {finding.subject.removeprefix("Vault's ") for finding in findings}
            findings += [one for one in found if one.subject not in seen]
    if form == "json":
        click.echo(to_json([describe_finding(finding) for finding in findings]))
    else:
        show_findings(findings)
    if any(not finding.is_warning for finding in findings):
        context.exit(UNHEALTHY)
    if not findings:
        click.echo("Vault holds what it should", err=True)


async def _review(settings: Settings, wish: Wish) -> list[Finding]:
    """Look as the broker, with a session that is ended again."""
    try:
        async with open_session(settings) as session:
            return await session.ask("review", lambda api, token: review_as_broker(api, token, wish))
    except (CredentialsError, SettingsInvalid) as error:
        return [Finding("the broker's login", str(error), "compare it with docs/vault.md")]


def _as_administrator(settings: Settings, work: Callable[[VaultApi], Awaitable[T]]) -> T:
    try:
        return ask_vault(settings, work)
    except NotTaken as error:
        raise CommandFailed(str(error), UNHEALTHY) from error


# --- what is asked for ---
def _wish(
    settings: Settings,
    bundles: Sequence[Path],
    definitions: Sequence[RoleDefinition],
    cidrs: Sequence[str] = (),
) -> Wish:
    needs = [*_registered(settings), *(_read_folder(folder) for folder in bundles)]
    return make_wish(settings, needs, definitions, cidrs)


def _registered(settings: Settings) -> list[Need]:
    """Read what registered tools need; before a broker's first start there are none."""
    if not settings.state.path.exists():
        return []
    try:
        return read_needs(look_into(settings.state.path).manifests)
    except StoreError as error:
        raise CommandFailed(str(error), UNHEALTHY) from error


def _read_folder(folder: Path) -> Need:
    try:
        return read_folder(folder)
    except OSError as error:
        raise CommandFailed(
            f"{folder}: has no tool.yaml that can be read ({error.strerror})", USAGE
        ) from error
    except BundleInvalid as error:
        raise CommandFailed(f"{folder}: {error}", USAGE) from error


def _read_roles(files: Sequence[Path]) -> list[RoleDefinition]:
    try:
        return read_roles(files)
    except RolesInvalid as error:
        raise CommandFailed(str(error), USAGE) from error
