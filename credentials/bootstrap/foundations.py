"""What only the operator can lay: a target's root password, a CA, the value of a secret.

Bootstrap writes none of it, because it would have to know secrets that are none of its business. It names
what is missing, with the command that mends it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from credentials.bootstrap.blueprint import Wish
from credentials.bootstrap.items import read_if_there
from credentials.bootstrap.roles import OAuthClientRole, RoleDefinition
from credentials.engines import Mounts
from credentials.engines.kv import is_there
from credentials.engines.oauth2.engine import how_to_put
from credentials.engines.oauth2.role import secret_path
from credentials.role_check import Finding
from credentials.secret import Secret
from credentials.vault_api import VaultApi

_POSTGRESQL = (
    "vault write {mount}/config/{target} plugin_name=postgresql-database-plugin "
    "connection_url='postgresql://{{{{username}}}}:{{{{password}}}}@HOST:PORT/DATABASE' "
    "username=… password=- allowed_roles={roles}"
)
_FOUNDATIONS: Mapping[str, tuple[str, str, str]] = {
    "pki": (
        "{mount}/cert/ca",
        "it has no CA that could sign",
        "vault write {mount}/root/generate/internal common_name=… key_type=ec ttl=…, or import your own",
    ),
    "ssh": (
        "{mount}/config/ca",
        "it has no CA that could sign",
        "vault write {mount}/config/ca generate_signing_key=true; give its public key to the targets",
    ),
    "ldap": (
        "{mount}/config",
        "it knows no directory",
        "vault write {mount}/config url=… binddn=… bindpass=- userdn=…",
    ),
}
"""By plugin: what to read, what is wrong when nothing is there, and the command."""


async def find_missing(api: VaultApi, token: Secret, wish: Wish) -> list[Finding]:
    """Look for what the operator has to lay.

    Raises:
        VaultFault: Vault gave no answer, or may not be asked with this token.
    """
    findings: list[Finding] = []
    for plugin in sorted({engine.plugin for engine in wish.used_engines} & set(_FOUNDATIONS)):
        path, problem, command = (part.format(mount=wish.mounts[plugin]) for part in _FOUNDATIONS[plugin])
        if await read_if_there(api, token, path) is None:
            findings.append(Finding(f"engine {plugin} at {wish.mounts[plugin]}/", problem, command))
    for target, definitions in _by_target(wish).items():
        findings += await _check_connection(api, token, wish.mount("database"), target, definitions)
    for engine, role in wish.all_roles:
        if engine == "kv":
            findings += await _check_secret(api, token, wish.mount("kv"), role)
    for definition in wish.definitions:
        if isinstance(definition.fields, OAuthClientRole):
            findings += await _check_client(api, token, wish.mounts, definition.role, definition.fields)
    return findings


def _by_target(wish: Wish) -> dict[str, list[RoleDefinition]]:
    found: dict[str, list[RoleDefinition]] = {}
    for definition in wish.definitions:
        if definition.engine in ("database", "database_static"):
            found.setdefault(definition.target, []).append(definition)
    return found


async def _check_connection(
    api: VaultApi, token: Secret, mount: str, target: str, definitions: Sequence[RoleDefinition]
) -> list[Finding]:
    subject = f"database connection {target}"
    names = sorted(definition.role for definition in definitions)
    connection = await read_if_there(api, token, f"{mount}/config/{target}")
    if connection is None:
        command = _POSTGRESQL.format(mount=mount, target=target, roles=",".join(names))
        return [Finding(subject, "Vault does not know this target", command)]
    findings = []
    if connection.get("plugin_name") != "postgresql-database-plugin":
        plugin = connection.get("plugin_name")
        findings.append(Finding(subject, f"its plugin is {plugin}", "only PostgreSQL logins can be ended"))
    refused = _refused_roles(connection, names)
    if refused:
        command = f"add them: vault write {mount}/config/{target} allowed_roles=…,{','.join(refused)}"
        findings.append(Finding(subject, f"it does not allow the roles {', '.join(refused)}", command))
    return findings


def _refused_roles(connection: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    allowed = connection.get("allowed_roles") or []
    prefixes = tuple(name[:-1] for name in allowed if name.endswith("*"))
    return [name for name in names if name not in allowed and not name.startswith(prefixes)]


async def _check_secret(api: VaultApi, token: Secret, mount: str, role: str) -> list[Finding]:
    if await read_if_there(api, token, f"{mount}/metadata/{role}") is not None:
        return []
    command = f"vault kv put -mount={mount} {role} KEY=-"
    return [Finding(f"secret {role}", "Vault does not have it", command)]


async def _check_client(
    api: VaultApi, token: Secret, mounts: Mounts, name: str, role: OAuthClientRole
) -> list[Finding]:
    metadata = await read_if_there(api, token, f"{mounts['kv']}/metadata/{secret_path(name)}")
    if metadata is not None and is_there(metadata):
        return []
    subject = f"secret {secret_path(name)}"
    return [Finding(subject, "Vault does not have it", how_to_put(mounts, name, role))]
