"""One thing that Vault should hold, and how what it holds is compared with it.

Rules:

1. Only the fields that are named here are compared and written; what else stands there is the operator's.
2. What is there is changed only where Vault can change it without losing anything. A mount, a key and what a
   target's password hangs on are made, never changed: a difference there is told.
3. Nothing is ever removed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from credentials.errors import Cause
from credentials.secret import Secret
from credentials.vault_api import VaultApi, VaultFault

_ABSENT = ("No secret engine mount at", "No auth engine at", "no default issuer")
_DURATION = re.compile(r"^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$")


@dataclass(frozen=True, slots=True)
class Item:
    """What should stand at one path of Vault's API.

    Attributes:
        subject: For people, for example "policy toolcrib-broker".
        path: Where it is read and written.
        values: What is written there, and what must stand there.
        expected: What must stand there too, and is Vault's default in a new one.
        is_fixed: It is made when it is missing, and never changed.
        is_shared: Its values are lists in which others have entries too: ours are added to theirs.
        is_whole: A write puts Vault's defaults for what it does not name: what else is there is written too.
        kept: Entries of a mapping that narrow it, by field: where somebody set one, it stays.
    """

    subject: str
    path: str
    values: Mapping[str, Any]
    expected: Mapping[str, Any] = field(default_factory=dict)
    is_fixed: bool = False
    is_shared: bool = False
    is_whole: bool = False
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    async def read(self, api: VaultApi, token: Secret) -> Mapping[str, Any] | None:
        """Read what stands there; None when nothing does.

        Raises:
            VaultFault: Vault gave no answer, or may not be asked with this token.
        """
        return await read_if_there(api, token, self.path)

    def compare(self, current: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Return what differs: what is there and what should be, by field."""
        wanted = {**self.expected, **self.merge(current)}
        return {
            name: (current.get(name), value)
            for name, value in wanted.items()
            if _plain(current.get(name)) != _plain(value)
        }

    def merge(self, current: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what to write over what is there."""
        if self.is_shared:
            return {
                name: list(dict.fromkeys([*(current.get(name) or ()), *value]))
                for name, value in self.values.items()
            }
        kept = {
            name: {key: value for key, value in (current.get(name) or {}).items() if key in keys}
            for name, keys in self.kept.items()
        }
        ours = {
            name: {**kept[name], **value} if name in kept else value for name, value in self.values.items()
        }
        return {**current, **ours} if self.is_whole else ours


async def read_if_there(api: VaultApi, token: Secret, path: str) -> Mapping[str, Any] | None:
    """Read what stands at a path; None when nothing does.

    Raises:
        VaultFault: Vault gave no answer, or may not be asked with this token.
    """
    try:
        answer = await api.ask("get", path, token)
    except VaultFault as fault:
        if fault.cause is Cause.UNKNOWN or any(words in str(fault) for words in _ABSENT):
            return None
        raise
    data = answer.get("data")
    return data if isinstance(data, dict) else None


def _plain(value: Any) -> Any:
    """Bring the spellings that Vault has for one value together: null and [], "1h" and 3600."""
    if value is None or value in ([], {}, ""):
        return None
    if isinstance(value, str):
        match = _DURATION.match(value)
        if match and any(match.groups()):
            hours, minutes, seconds = (int(part or 0) for part in match.groups())
            return hours * 3600 + minutes * 60 + seconds
        return value.strip()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
