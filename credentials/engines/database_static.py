"""Logins of a database that stay: Vault's static roles, with a new password after each call (PostgreSQL).

A static login is one login, so calls take turns. A new password alone would not end a call: open sessions go
on. So a role has to carry our statements (credentials/statements.py), and the end is one rotation by them.
"""

from __future__ import annotations

from credentials.engines.base import (
    MIN_PERIOD_SECONDS,
    Minted,
    Mounts,
    Order,
    check_shared_password,
    read_definition,
    read_login,
)
from credentials.errors import Cause
from credentials.lease import CredentialWanted
from credentials.secret import Secret
from credentials.statements import find_rotation_problems
from credentials.transport import VaultFault
from credentials.vault_api import VaultApi, take


class StaticDatabaseEngine:
    """Logins that stay: one call at a time."""

    name, plugin = "database_static", "database"
    plugins: tuple[str, ...] = (plugin,)
    exclusive = True
    asks_elsewhere = False

    def child_uses(self, wanted: CredentialWanted) -> int:
        """One reads the password."""
        return 2

    def child_policy(self, mounts: Mounts, role: str) -> str:
        """Let it read one login's password."""
        return f'path "{mounts[self.plugin]}/static-creds/{role}" {{ capabilities = ["read"] }}\n'

    def session_policy(self, mounts: Mounts) -> str:
        """Let it read definitions and have passwords changed; neither tells it one."""
        return (
            f'path "{mounts[self.plugin]}/static-roles/*" {{ capabilities = ["read"] }}\n'
            f'path "{mounts[self.plugin]}/rotate-role/*" {{ capabilities = ["update"] }}\n'
        )

    def lease_prefixes(self, mounts: Mounts) -> tuple[str, ...]:
        """There are none."""
        return ()

    async def read(self, api: VaultApi, child: Secret, mounts: Mounts, order: Order) -> Minted:
        """Read the password; it is good until the end of this call."""
        answer = await api.ask("get", f"{mounts[self.plugin]}/static-creds/{order.role}", child)
        data = take(answer, "data", "username", "password", "ttl")
        login = read_login(data)
        check_shared_password(data, order.ttl_seconds)
        return Minted("", login, order.ttl_seconds)

    async def retire(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> None:
        """Have the password changed and the sessions ended. Vault's success means that all statements ran."""
        try:
            await api.ask("post", f"{mounts[self.plugin]}/rotate-role/{role}", session, {})
        except VaultFault as fault:
            if "no static role found" in str(fault):
                text = f"Vault has no static role {role} any more: write it again, or close the login by hand"
                raise VaultFault(text, Cause.UNKNOWN) from fault
            raise

    async def find_problems(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> list[str]:
        """See that the role carries our statements, and that Vault itself seldom rotates it."""
        definition = await read_definition(api, session, f"{mounts[self.plugin]}/static-roles/{role}")
        if definition is None:
            return [f"Vault has no static database role {role}; write it with `toolcrib vault bootstrap`"]
        problems = find_rotation_problems(definition.get("rotation_statements") or ())
        if definition.get("credential_type", "password") != "password":
            problems.append("its credential_type must be password")
        period_seconds = int(definition.get("rotation_period") or 0)
        if not definition.get("rotation_schedule") and period_seconds < MIN_PERIOD_SECONDS:
            problems.append(f"its rotation_period must be {MIN_PERIOD_SECONDS} s at least, better a day")
        return problems
