"""Logins of a database, made for one call: Vault's database engine with our own statements (PostgreSQL)."""

from __future__ import annotations

import re

from credentials.engines.base import Minted, Mounts, Order, find_ttl_problems, read_definition, read_login
from credentials.errors import Cause
from credentials.lease import CredentialWanted
from credentials.secret import Secret
from credentials.statements import find_statement_problems
from credentials.transport import VaultFault
from credentials.vault_api import VaultApi, take

_NOTHING_MADE = re.compile(
    r"unable to start transaction: failed to connect to .*SQLSTATE 28P01"
    r"|failed to execute query: ERROR: (tuple concurrently updated|.*SQLSTATE 40(001|P01))"
)
"""What Vault says when the server refused Vault's own password before any statement, or undid the transaction
of a creation because another one was in its way. The first happens in the moment in which that password is
rotated: a request that waited goes on with the one of before. The second happens when many logins get grants
on one table at once. Our creation statements are one transaction."""


class DatabaseEngine:
    """Dynamic logins: each call has one of its own."""

    name = plugin = "database"
    plugins: tuple[str, ...] = (plugin,)
    exclusive = False
    asks_elsewhere = False

    def child_uses(self, wanted: CredentialWanted) -> int:
        """One reads the login."""
        return 2

    def child_policy(self, mounts: Mounts, role: str) -> str:
        """Let it read one role's login."""
        return f'path "{mounts[self.plugin]}/creds/{role}" {{ capabilities = ["read"] }}\n'

    def session_policy(self, mounts: Mounts) -> str:
        """Let it read definitions, which hold no secret."""
        return f'path "{mounts[self.plugin]}/roles/*" {{ capabilities = ["read"] }}\n'

    def lease_prefixes(self, mounts: Mounts) -> tuple[str, ...]:
        """Each login is a lease."""
        return (f"{mounts[self.plugin]}/creds/",)

    async def read(self, api: VaultApi, child: Secret, mounts: Mounts, order: Order) -> Minted:
        """Have the engine make a login; this is what creates the lease, so it is never sent twice."""
        try:
            answer = await api.ask(
                "get", f"{mounts[self.plugin]}/creds/{order.role}", child, repeatable=False
            )
        except VaultFault as fault:
            if _NOTHING_MADE.search(str(fault)):
                raise VaultFault(str(fault), Cause.NOTHING_MADE) from fault
            raise
        payload = read_login(take(answer, "data", "username", "password"))
        lease_id = str(answer.get("lease_id", ""))
        if not lease_id:
            raise VaultFault(
                "Vault made a login without a lease: its end could not be confirmed", Cause.INVALID
            )
        duration_seconds = int(answer.get("lease_duration", 0))
        return Minted(lease_id, payload, min(order.ttl_seconds, duration_seconds))

    async def retire(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> None:
        """Nothing: the lease's revocation ends the login."""

    async def find_problems(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> list[str]:
        """See that its logins can be ended, by our statements, and end by themselves soon enough."""
        definition = await read_definition(api, session, f"{mounts[self.plugin]}/roles/{role}")
        if definition is None:
            return [f"Vault has no database role {role}; write it with `toolcrib vault bootstrap`"]
        problems = find_statement_problems(
            definition.get("creation_statements") or (), definition.get("revocation_statements") or ()
        )
        return problems + find_ttl_problems(definition)
