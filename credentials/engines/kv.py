"""Secrets that somebody put into Vault: the key-value engine, version 2.

They are static: they do not end with the call, and who captures one has it until it is changed at its target.
What can be done is done: one secret for a tool, a child that reads this one alone, and no value so short that
a search of the answer could not find it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from credentials.engines.base import MIN_SECRET_LENGTH, Minted, Mounts, Order, read_definition
from credentials.errors import Cause
from credentials.lease import USER_NAME_KEYS, CredentialWanted, KeyValues
from credentials.secret import Secret
from credentials.transport import VaultFault
from credentials.vault_api import VaultApi, take

MAX_VALUES = 64
MAX_CHARACTERS = 64 * 1024
"""Of all values together: they travel in the call's first frame."""


class KeyValueEngine:
    """Values by name, the newest version."""

    name = plugin = "kv"
    plugins: tuple[str, ...] = (plugin,)
    exclusive = False
    asks_elsewhere = False

    def child_uses(self, wanted: CredentialWanted) -> int:
        """One reads the secret."""
        return 2

    def child_policy(self, mounts: Mounts, role: str) -> str:
        """Let it read one secret, in any version that Vault keeps."""
        return f'path "{mounts[self.plugin]}/data/{role}" {{ capabilities = ["read"] }}\n'

    def session_policy(self, mounts: Mounts) -> str:
        """Let it read when a secret was written and deleted; values are elsewhere."""
        return f'path "{mounts[self.plugin]}/metadata/*" {{ capabilities = ["read"] }}\n'

    def lease_prefixes(self, mounts: Mounts) -> tuple[str, ...]:
        """There are none."""
        return ()

    async def read(self, api: VaultApi, child: Secret, mounts: Mounts, order: Order) -> Minted:
        """Read the values."""
        answer = await api.ask("get", f"{mounts[self.plugin]}/data/{order.role}", child)
        data = take(answer, "data", "data", "metadata")
        values, version = take(data, "data"), take(data, "metadata", "version")["version"]
        problems = find_value_problems(values)
        if problems:
            raise VaultFault("; ".join(problems), Cause.ROLE_UNSAFE)
        username = next((str(values[key]) for key in USER_NAME_KEYS if key in values), "")
        secrets = {key: Secret(value) for key, value in values.items()}
        return Minted("", KeyValues(secrets, int(version), username), order.ttl_seconds)

    async def retire(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> None:
        """Nothing can be done: the value is the operator's, at its target too."""

    async def find_problems(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> list[str]:
        """See that the secret is there. The session may not see its values; `vetting` reads them."""
        metadata = await read_definition(api, session, f"{mounts[self.plugin]}/metadata/{role}")
        command = f"put it there: vault kv put -mount={mounts[self.plugin]} {role} KEY=-"
        if metadata is None:
            return [f"Vault has no secret {role}; {command}"]
        if not is_there(metadata):
            return [f"the newest version of the secret {role} is deleted; {command}"]
        return []


def is_there(metadata: Mapping[str, Any]) -> bool:
    """Tell by a secret's metadata whether its newest version can be read."""
    newest = (metadata.get("versions") or {}).get(str(metadata.get("current_version"))) or {}
    return bool(newest) and not newest.get("destroyed") and not _is_past(newest.get("deletion_time"))


def _is_past(time: str | None) -> bool:
    """Tell whether a time of Vault's has come; a secret can be meant to go later."""
    return bool(time) and datetime.fromisoformat(str(time)) <= datetime.now(UTC)


def find_value_problems(values: Mapping[str, Any]) -> list[str]:
    """Say what makes values unfit for a tool; by their keys, nothing of the values is told."""
    if not 0 < len(values) <= MAX_VALUES:
        return [f"it must have 1 to {MAX_VALUES} keys"]
    problems = []
    for key, value in sorted(values.items()):
        if not isinstance(value, str):
            problems.append(f'the value of "{key}" is no string')
        elif key not in USER_NAME_KEYS and len(value) < MIN_SECRET_LENGTH:
            problems.append(f'the value of "{key}" is shorter than {MIN_SECRET_LENGTH} characters')
    if not problems and sum(map(len, values.values())) > MAX_CHARACTERS:
        problems.append(f"its values are longer than {MAX_CHARACTERS} characters together")
    return problems
