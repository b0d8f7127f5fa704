"""Passwords that Vault changes at a target by itself: its own there, and those of logins that calls share.

While Vault's own password changes, requests that are under way may be refused by the target: a mint is then
tried once more (credentials/vault.py), an end stays owed and is tried again.
"""

from __future__ import annotations

from collections.abc import Mapping

from credentials.engines import ENGINES
from credentials.engines.base import read_definition
from credentials.errors import Cause
from credentials.rotation import Rotation
from credentials.secret import Secret
from credentials.vault_api import VaultApi, VaultFault

_POSTGRESQL = "postgresql-database-plugin"


async def name_database_user(api: VaultApi, token: Secret, mount: str, target: str) -> str:
    """Return the user name that Vault has at a database target.

    Raises:
        VaultFault: Vault does not know the target, or its password cannot be rotated.
    """
    config = await read_definition(api, token, f"{mount}/config/{target}")
    if config is None:
        raise VaultFault(f"it has no database target {target}", Cause.UNKNOWN)
    username = str((config.get("connection_details") or {}).get("username", ""))
    if config.get("plugin_name") != _POSTGRESQL or not username:
        text = f"{target} is no PostgreSQL target whose user and password Vault knows"
        raise VaultFault(text, Cause.INVALID)
    return username


async def rotate_database_user(api: VaultApi, token: Secret, mount: str, target: str) -> Rotation:
    """Have Vault give its own user at a database target a new password.

    Raises:
        VaultFault: It did not; or its answer was lost, and then it may have.
    """
    username = await name_database_user(api, token, mount, target)
    await _change(api, token, f"{mount}/rotate-root/{target}")
    done = (f"{username} at {target} has a new password, which nobody but Vault knows",)
    return Rotation(f"database {target}", done)


async def name_directory_user(api: VaultApi, token: Secret, mount: str) -> str:
    """Return the name by which Vault binds to the directory.

    Raises:
        VaultFault: Vault knows no directory, or has no such engine.
    """
    config = await read_definition(api, token, f"{mount}/config")
    binddn = str((config or {}).get("binddn", ""))
    if not binddn:
        raise VaultFault("it knows no directory with a binddn, or has no LDAP engine", Cause.UNKNOWN)
    return binddn


async def rotate_directory_user(api: VaultApi, token: Secret, mount: str) -> Rotation:
    """Have Vault give its own user in the directory a new password.

    Raises:
        VaultFault: It did not; or its answer was lost, and then it may have.
    """
    binddn = await name_directory_user(api, token, mount)
    await _change(api, token, f"{mount}/rotate-root")
    return Rotation("ldap", (f"{binddn} has a new password, which nobody but Vault knows",))


async def rotate_shared_login(
    api: VaultApi, token: Secret, mounts: Mapping[str, str], engine: str, role: str
) -> Rotation:
    """Give a login that calls share a new password, in the way in which a call's end does.

    Raises:
        VaultFault: It has not; or an answer was lost, and then it may have.
    """
    problems = await ENGINES[engine].find_problems(api, token, mounts, role)
    if problems:
        raise VaultFault("; ".join(problems), Cause.ROLE_UNSAFE)
    await ENGINES[engine].retire(api, token, mounts, role)
    return Rotation(f"{engine} {role}", (f"the login of {role} has a new password",))


async def _change(api: VaultApi, token: Secret, path: str) -> None:
    try:
        await api.ask("post", path, token, {}, repeatable=False)
    except VaultFault as fault:
        if fault.cause not in (Cause.TIMEOUT, Cause.UNREACHABLE):
            raise
        text = f"{fault}; whether the password is new is not known, Vault itself knows: rotate it again"
        raise VaultFault(text, fault.cause) from fault
