"""All that Vault should hold for one broker and its tools, as a list in the order in which it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from credentials.audit_settings import MOUNT_TUNING
from credentials.bootstrap.items import Item
from credentials.bootstrap.roles import RoleDefinition, key_item
from credentials.engines import DEFAULT_MOUNTS, ENGINES, SecretsEngine
from credentials.policies import (
    BROKER_POLICY_NAME,
    BROKER_ROLE,
    TOKEN_ROLE,
    broker_policy,
    token_role,
    tool_policy_name,
)
from credentials.transit import MOUNT, transit_key_name

SESSION_PERIOD_SECONDS = 30
DATA_KEY_TYPE = "aes256-gcm96"
ROLE_PATHS: Mapping[str, str] = {"approle": "role", "jwt": "role", "kubernetes": "role", "cert": "certs"}
"""Where each method that the broker may log in by keeps its roles. What they have in common is the token."""

Role = tuple[str, str]
"""An engine's name and the name of one of its roles."""


@dataclass(frozen=True, slots=True)
class LoginRole:
    """How the broker logs in.

    Attributes:
        method: One of `ROLE_PATHS`, or "token": in development only, and nothing of it stands in Vault.
        mount: Where the method is below auth/.
        cidrs: Addresses that may log in and use the session; none: what Vault has is left as it is.
    """

    method: str = "approle"
    mount: str = "approle"
    role: str = BROKER_ROLE
    period_seconds: int = SESSION_PERIOD_SECONDS
    cidrs: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Where its definition stands."""
        return f"auth/{self.mount}/{ROLE_PATHS[self.method]}/{self.role}"

    def token_fields(self) -> dict[str, Any]:
        """Return what the session's token has to be, whatever the method."""
        fields: dict[str, Any] = {
            "token_policies": [BROKER_POLICY_NAME],
            "token_no_default_policy": True,
            "token_period": self.period_seconds,
            "token_type": "service",
            "token_num_uses": 0,
            "token_explicit_max_ttl": 0,
        }
        if self.cidrs:
            # Vault spells one address without its mask.
            fields["token_bound_cidrs"] = [
                cidr.removesuffix("/32").removesuffix("/128") for cidr in self.cidrs
            ]
        return fields


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator wants to stand in Vault.

    Attributes:
        roles: What registered tools and named bundles ask for.
        definitions: What the roles files define, needed or not.
        engines: Names of engines that are there for tools of before; they keep their place in the policy.
        tenants: Whose data keys there should be.
        mounts: Mount path by plugin.
    """

    roles: frozenset[Role] = frozenset()
    definitions: tuple[RoleDefinition, ...] = ()
    engines: frozenset[str] = frozenset()
    tenants: tuple[str, ...] = ()
    login: LoginRole = field(default_factory=LoginRole)
    mounts: Mapping[str, str] = field(default_factory=lambda: DEFAULT_MOUNTS)

    @property
    def all_roles(self) -> list[Role]:
        """Every role that is asked for or defined."""
        return sorted(self.roles | {(each.engine, each.role) for each in self.definitions})

    @property
    def used_engines(self) -> list[SecretsEngine]:
        """The engines of those roles, always in the same order: the broker's policy depends on it."""
        names = self.engines | {engine for engine, _ in self.all_roles}
        return [engine for name, engine in ENGINES.items() if name in names]

    def mount(self, engine: str) -> str:
        """Return where an engine is mounted."""
        return self.mounts[ENGINES[engine].plugin]


def list_items(wish: Wish) -> list[Item]:
    """Return everything, mounts first, what needs another thing after it."""
    return [
        *_list_mounts(wish),
        *_list_audit_tuning(),
        *list_policies(wish),
        Item(f"token role {TOKEN_ROLE}", f"auth/token/roles/{TOKEN_ROLE}", token_role()),
        *_list_login(wish.login),
        *_list_roles(wish),
        *list_data_keys(wish.tenants),
    ]


def list_policies(wish: Wish) -> list[Item]:
    """Return the broker's policy and one for each role of a tool."""
    broker = broker_policy(wish.used_engines, wish.mounts)
    tools = [
        (tool_policy_name(engine, role), ENGINES[engine].child_policy(wish.mounts, role))
        for engine, role in wish.all_roles
    ]
    return [
        Item(f"policy {name}", f"sys/policies/acl/{name}", {"policy": text})
        for name, text in [(BROKER_POLICY_NAME, broker), *tools]
    ]


def list_data_keys(tenants: Sequence[str]) -> list[Item]:
    """Return the keys that wrap tenants' data keys."""
    names = [(tenant, transit_key_name(tenant)) for tenant in tenants]
    return [
        key_item(f"data key of tenant {tenant}", f"{MOUNT}/keys/{name}", DATA_KEY_TYPE)
        for tenant, name in names
    ]


def _list_mounts(wish: Wish) -> Iterable[Item]:
    plugins = {plugin for engine in wish.used_engines for plugin in engine.plugins}
    wanted = [(wish.mounts[plugin], plugin) for plugin in sorted(plugins)]
    wanted.append((MOUNT, "transit"))  # for the tenants' data keys
    for mount, plugin in dict.fromkeys(wanted):
        values: dict[str, Any] = {"type": plugin}
        if plugin == "kv":
            values["options"] = {"version": "2"}
        yield Item(f"engine {plugin} at {mount}/", f"sys/mounts/{mount}", values, is_fixed=True)


def _list_audit_tuning() -> Iterable[Item]:
    for path, values in MOUNT_TUNING.items():
        lists = {name: list(keys) for name, keys in values.items()}
        subject = f"audit tuning of {path.removeprefix('sys/').removesuffix('/tune')}"
        yield Item(subject, path, lists, is_shared=True)


def _list_login(login: LoginRole) -> Iterable[Item]:
    if login.method != "approle":
        return
    yield Item(
        f"login method approle at {login.mount}/",
        f"sys/auth/{login.mount}",
        {"type": "approle"},
        is_fixed=True,
    )
    values = {**login.token_fields(), "bind_secret_id": True, "secret_id_num_uses": 0}
    yield Item(f"login role {login.role}", login.path, values)


def _list_roles(wish: Wish) -> Iterable[Item]:
    for definition in wish.definitions:
        yield from definition.list_items(wish.mounts)
