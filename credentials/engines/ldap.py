"""Logins of a directory: users made for one call, and users that exist and get a new password after each.

Vault's LDAP engine (HashiCorp's Vault, OpenBao up to 2.6; OpenBao 2.7 has none). A dynamic user is an entry
that the lease's end deletes. A connection that is bound already may outlive its user in some directories: the
call's way out is closed before the end, so no connection is left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from credentials.engines.base import (
    MIN_PERIOD_SECONDS,
    Minted,
    Mounts,
    Order,
    check_shared_password,
    find_ttl_problems,
    read_definition,
)
from credentials.errors import Cause
from credentials.lease import CredentialWanted, UsernamePassword
from credentials.secret import Secret
from credentials.transport import VaultFault
from credentials.vault_api import VaultApi, take

_NOTHING_MADE = "failed to create user: failed to execute statements: failed to bind with current"
"""What Vault says when the directory refused its own password, before any change. It happens in the moment in
which that password is rotated."""
_USER = "cn={{.Username}}"
_ENTRY = re.compile(r"^dn: cn=\{\{\.Username\}\},(?P<parent>[^\n{}]+)\n")
_GROUP = re.compile(r"^dn: (?P<group>[^\n{}]+)\nchangetype: modify\nadd: member\n")


def creation_ldif(parent: str, groups: Sequence[str] = ()) -> str:
    """Return the LDIF that makes a user below an entry, and a member of groups.

    Args:
        parent: DN of the entry, for example "ou=tools,dc=example,dc=org".
        groups: DNs of entries of class groupOfNames.
    """
    user = (
        f"dn: {_USER},{parent}\nchangetype: add\nobjectClass: person\ncn: {{{{.Username}}}}\n"
        "sn: {{.Username}}\nuserPassword: {{.Password}}\n"
    )
    return "\n".join([user, *(_membership(parent, group, "add") for group in groups)])


def deletion_ldif(parent: str, groups: Sequence[str] = ()) -> str:
    """Return the LDIF that ends what `creation_ldif` makes: memberships first, then the user."""
    user = f"dn: {_USER},{parent}\nchangetype: delete\n"
    return "\n".join([*(_membership(parent, group, "delete") for group in groups), user])


def find_ldif_problems(definition: Mapping[str, Any]) -> list[str]:
    """Compare a role's LDIF with ours.

    Returns:
        One sentence for each difference; empty when the user that it makes is deleted whole.
    """
    creation = str(definition.get("creation_ldif", ""))
    records = [record.strip() + "\n" for record in creation.strip().split("\n\n")]
    entry = _ENTRY.match(records[0])
    groups = [found["group"] for record in records[1:] if (found := _GROUP.match(record))]
    if entry is None or creation.strip() != creation_ldif(entry["parent"], groups).strip():
        return ["its creation_ldif is not Toolcrib's: one person, and memberships in groups"]
    ours = deletion_ldif(entry["parent"], groups).strip()
    return [
        f"its {name} is not Toolcrib's: a user could outlive its call"
        for name in ("deletion_ldif", "rollback_ldif")
        if str(definition.get(name, "")).strip() != ours
    ]


class LdapEngine:
    """Dynamic users: each call has one of its own."""

    name = plugin = "ldap"
    plugins: tuple[str, ...] = (plugin,)
    exclusive = False
    asks_elsewhere = False

    def child_uses(self, wanted: CredentialWanted) -> int:
        """One makes the user."""
        return 2

    def child_policy(self, mounts: Mounts, role: str) -> str:
        """Let it make one role's user."""
        return f'path "{mounts[self.plugin]}/creds/{role}" {{ capabilities = ["read"] }}\n'

    def session_policy(self, mounts: Mounts) -> str:
        """Let it read definitions, which hold no secret."""
        return f'path "{mounts[self.plugin]}/role/*" {{ capabilities = ["read"] }}\n'

    def lease_prefixes(self, mounts: Mounts) -> tuple[str, ...]:
        """Each user is a lease."""
        return (f"{mounts[self.plugin]}/creds/",)

    async def read(self, api: VaultApi, child: Secret, mounts: Mounts, order: Order) -> Minted:
        """Have the engine make a user; this is what creates the lease, so it is never sent twice."""
        try:
            answer = await api.ask(
                "get", f"{mounts[self.plugin]}/creds/{order.role}", child, repeatable=False
            )
        except VaultFault as fault:
            if _NOTHING_MADE in str(fault):
                raise VaultFault(str(fault), Cause.NOTHING_MADE) from fault
            raise
        data = take(answer, "data", "username", "password")
        lease_id = str(answer.get("lease_id", ""))
        if not lease_id:
            raise VaultFault("the user has no lease: its end could not be confirmed", Cause.INVALID)
        names = data.get("distinguished_names") or [data["username"]]
        payload = UsernamePassword(str(names[0]), Secret(data["password"]))
        return Minted(lease_id, payload, min(order.ttl_seconds, int(answer.get("lease_duration", 0))))

    async def retire(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> None:
        """Nothing: the lease's revocation deletes the user."""

    async def find_problems(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> list[str]:
        """See that the role carries our LDIF, so that its users are deleted."""
        definition = await read_definition(api, session, f"{mounts[self.plugin]}/role/{role}")
        if definition is None:
            return [f"Vault has no LDAP role {role}; write it with `toolcrib vault bootstrap`"]
        return [*find_ldif_problems(definition), *find_ttl_problems(definition)]


class LdapStaticEngine:
    """A user that exists: calls take turns, and each ends with a new password."""

    name, plugin = "ldap_static", "ldap"
    plugins: tuple[str, ...] = (plugin,)
    exclusive = True
    asks_elsewhere = False

    def child_uses(self, wanted: CredentialWanted) -> int:
        """One reads the password."""
        return 2

    def child_policy(self, mounts: Mounts, role: str) -> str:
        """Let it read one user's password."""
        return f'path "{mounts[self.plugin]}/static-cred/{role}" {{ capabilities = ["read"] }}\n'

    def session_policy(self, mounts: Mounts) -> str:
        """Let it read definitions and have passwords changed; it learns none by either."""
        return (
            f'path "{mounts[self.plugin]}/static-role/*" {{ capabilities = ["read"] }}\n'
            f'path "{mounts[self.plugin]}/rotate-role/*" {{ capabilities = ["update"] }}\n'
        )

    def lease_prefixes(self, mounts: Mounts) -> tuple[str, ...]:
        """There are none."""
        return ()

    async def read(self, api: VaultApi, child: Secret, mounts: Mounts, order: Order) -> Minted:
        """Read the password that is good until the call's end."""
        answer = await api.ask("get", f"{mounts[self.plugin]}/static-cred/{order.role}", child)
        data = take(answer, "data", "username", "password", "dn", "ttl")
        check_shared_password(data, order.ttl_seconds)
        payload = UsernamePassword(str(data["dn"] or data["username"]), Secret(data["password"]))
        return Minted("", payload, order.ttl_seconds)

    async def retire(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> None:
        """Have the password changed, and see that it was."""
        path = f"{mounts[self.plugin]}/static-role/{role}"
        before = await read_definition(api, session, path)
        if before is None:
            text = f"Vault has no static role {role} any more: write it again, or change the password by hand"
            raise VaultFault(text, Cause.UNKNOWN)
        await api.ask("post", f"{mounts[self.plugin]}/rotate-role/{role}", session, {})
        after = await read_definition(api, session, path)
        if after is None or after.get("last_vault_rotation") == before.get("last_vault_rotation"):
            raise VaultFault("the password was not changed", Cause.BACKEND)

    async def find_problems(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> list[str]:
        """See that the role names one entry, and that Vault itself seldom changes its password."""
        definition = await read_definition(api, session, f"{mounts[self.plugin]}/static-role/{role}")
        if definition is None:
            return [f"Vault has no static LDAP role {role}; write it with `toolcrib vault bootstrap`"]
        problems = []
        if not definition.get("dn"):
            problems.append("it has no dn: name the one entry whose password it changes")
        if int(definition.get("rotation_period") or 0) < MIN_PERIOD_SECONDS:
            problems.append(f"its rotation_period must be {MIN_PERIOD_SECONDS} s at least, better a day")
        return problems


def _membership(parent: str, group: str, change: str) -> str:
    return f"dn: {group}\nchangetype: modify\n{change}: member\nmember: {_USER},{parent}\n-\n"
