"""The difference between what Vault holds and what it should hold, and the making of it.

Rules:

1. A plan adds and changes; what is not ours is neither read for its own sake nor removed.
2. What a plan cannot do it names, with the command for the operator.
3. After it was applied the same plan is empty; when it is not, that is an error and no success.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from credentials.bootstrap.blueprint import LoginRole, Wish, list_items
from credentials.bootstrap.foundations import find_missing
from credentials.bootstrap.items import Item, read_if_there
from credentials.engines import ENGINES
from credentials.policies import TOOL_POLICY_PREFIX
from credentials.role_check import Finding
from credentials.secret import Secret
from credentials.vault_api import VaultApi, take

_BUILT_IN = "database"
"""Vault does not list the type of the database engine; every Vault has it."""


class Kind(enum.StrEnum):
    """What a change does."""

    ADD = "add"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to write.

    Attributes:
        fields: What is there and what will be, by field; nothing is there for an addition.
        values: What is written.
    """

    kind: Kind
    item: Item
    fields: Mapping[str, tuple[Any, Any]]
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, and what the operator has to do beside it."""

    changes: tuple[Change, ...]
    problems: tuple[Finding, ...]


class NotTaken(Exception):
    """Vault accepted what was written, and holds something else."""


async def make_plan(api: VaultApi, token: Secret, wish: Wish) -> Plan:
    """Compare Vault with a wish.

    Args:
        api: With the administrator's rights.
        token: The administrator's token.
        wish: What should stand there.

    Raises:
        VaultFault: Vault gave no answer, or denies the token a look.
    """
    wish = replace(wish, engines=wish.engines | await find_installed_engines(api, token))
    lacking = await _find_lacking_plugins(api, token, wish)
    changes: list[Change] = []
    problems = [
        Finding(
            f"engine {plugin}", "this Vault does not have it", "use another one, or no tool that wants it"
        )
        for plugin in sorted(lacking)
    ]
    possible = _without(wish, lacking)
    taken: tuple[str, ...] = ()  # where another engine is mounted: what stands there is not ours
    for item in list_items(possible):
        if item.path.startswith(taken):
            continue
        differences = await _compare(api, token, item, changes, problems)
        if item.is_fixed and "type" in differences:
            taken += _places_below(item)
    problems += await _check_undefined(api, token, possible)
    problems += await find_missing(api, token, possible)
    problems += await _check_other_login(api, token, wish.login)
    return Plan(tuple(changes), tuple(problems))


async def apply_plan(api: VaultApi, token: Secret, plan: Plan) -> None:
    """Write a plan's changes, in order, and see that each was taken.

    Raises:
        VaultFault: Vault refused one; those before it are written, and the next plan has the rest.
        NotTaken: Vault holds something else than what was written.
    """
    for change in plan.changes:
        await api.ask("post", change.item.path, token, change.values)
    for change in plan.changes:
        current = await change.item.read(api, token)
        if current is None or (wrong := change.item.compare(current)):
            names = ", ".join(wrong) if current is not None else "nothing is there"
            raise NotTaken(f"{change.item.subject}: Vault accepted it and holds something else ({names})")


async def find_installed_engines(api: VaultApi, token: Secret) -> frozenset[str]:
    """Name the engines of the tools' policies that stand in Vault.

    A bundle that is not registered yet was perhaps bootstrapped a moment ago: the broker keeps its rights.
    """
    names = await list_policy_names(api, token)
    return frozenset(engine for name in names if (engine := engine_of(name)))


async def list_policy_names(api: VaultApi, token: Secret) -> list[str]:
    """List the names of Vault's policies."""
    return list(take(await api.ask("list", "sys/policies/acl", token), "data", "keys")["keys"])


def engine_of(policy: str) -> str:
    """Name the engine of a tool's policy; "" for every other policy."""
    if not policy.startswith(TOOL_POLICY_PREFIX):
        return ""
    engine = policy.removeprefix(TOOL_POLICY_PREFIX).partition("-")[0]
    return engine if engine in ENGINES else ""


async def _compare(
    api: VaultApi, token: Secret, item: Item, changes: list[Change], problems: list[Finding]
) -> Mapping[str, tuple[Any, Any]]:
    """Add to the changes, or to the problems; returns what differs from what is there."""
    current = await item.read(api, token)
    if current is None:
        fields = {name: (None, value) for name, value in item.values.items()}
        changes.append(Change(Kind.ADD, item, fields, item.values))
        return {}
    differences = item.compare(current)
    if differences and not item.is_fixed and set(differences) <= set(item.values):
        changes.append(Change(Kind.CHANGE, item, differences, item.merge(current)))
        return differences
    for name, (before, after) in differences.items():
        text = f"{name} is {before!r} and should be {after!r}"
        remedy = f"bootstrap does not change it: look at {item.path} and decide"
        problems.append(Finding(item.subject, text, remedy))
    return differences


def _places_below(item: Item) -> tuple[str, ...]:
    """Say where what is mounted by an item can be reached; nowhere for what is no mount."""
    if item.path.startswith("sys/mounts/"):
        return (f"{item.path.removeprefix('sys/mounts/')}/",)
    return (f"{item.path.removeprefix('sys/')}/",) if item.path.startswith("sys/auth/") else ()


async def _find_lacking_plugins(api: VaultApi, token: Secret, wish: Wish) -> set[str]:
    wanted = {plugin for engine in wish.used_engines for plugin in engine.plugins} - {_BUILT_IN}
    if not wanted:
        return set()
    answer = await api.ask("list", "sys/plugins/catalog/secret", token)
    return wanted - set(take(answer, "data", "keys")["keys"])


def _without(wish: Wish, lacking: set[str]) -> Wish:
    """Leave out what this Vault cannot have."""
    there = {name for name, engine in ENGINES.items() if lacking.isdisjoint(engine.plugins)}
    return replace(
        wish,
        roles=frozenset(role for role in wish.roles if role[0] in there),
        definitions=tuple(each for each in wish.definitions if each.engine in there),
        engines=wish.engines & there,
    )


async def _check_undefined(api: VaultApi, token: Secret, wish: Wish) -> list[Finding]:
    """Say which roles a tool needs that no file defines, unless somebody wrote them as they have to be."""
    defined = {(each.engine, each.role) for each in wish.definitions}
    findings = []
    for engine, role in sorted(wish.roles - defined):
        problems = await ENGINES[engine].find_problems(api, token, wish.mounts, role)
        if problems and engine != "kv":
            text = f"a tool needs it and no roles file defines it: {'; '.join(problems)}"
            remedy = f"name the file that has [roles.{role}] with --roles"
            findings.append(Finding(f"{engine} role {role}", text, remedy))
    return findings


async def _check_other_login(api: VaultApi, token: Secret, login: LoginRole) -> list[Finding]:
    """Say what a login role of another method than AppRole lacks: whom it lets in is the operator's."""
    if login.method in ("approle", "token"):
        return []
    subject = f"login role {login.role} ({login.method})"
    fields = " ".join(f"{name}={_spell(value)}" for name, value in login.token_fields().items())
    command = f"vault write {login.path} {fields}, beside what says who may log in"
    current = await read_if_there(api, token, login.path)
    if current is None:
        return [Finding(subject, "Vault does not have it", command)]
    wrong = Item(subject, login.path, login.token_fields()).compare(current)
    return [
        Finding(subject, f"{name} is {before!r} and should be {after!r}", command)
        for name, (before, after) in wrong.items()
    ]


def _spell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else str(value)
