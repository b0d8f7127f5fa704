"""What a mint is refused with, in words that say what to mend."""

from __future__ import annotations

import re
from collections.abc import Sequence

from credentials.engines import ENGINES
from credentials.errors import Cause, CredentialsUnavailable
from credentials.lease import CredentialWanted, OwedLease
from credentials.transport import VaultFault

ROLE_SHAPE = re.compile(r"[a-z0-9-]{1,63}")
_HINTS = {
    Cause.SEALED: "Vault is sealed: unseal it",
    Cause.BACKEND: "Vault could not make it at the target: see that the target runs and the grants exist",
    Cause.DENIED: "Vault denies it: run `toolcrib vault check`",
    Cause.NOTHING_MADE: "the target refused Vault again and again, and nothing was made there",
}


# Answers in which Vault may repeat what a target said to it.
_REPEATING = (Cause.BACKEND, Cause.INVALID, Cause.NOTHING_MADE)


def check_wanted(wanted: CredentialWanted) -> None:
    """See that there is such an engine, and that the role's name can name no other path.

    Raises:
        CredentialsUnavailable: It says which.
    """
    if wanted.engine not in ENGINES:
        known = ", ".join(ENGINES)
        text = f'credential "{wanted.name}": the engine "{wanted.engine}" is not known; known: {known}'
        raise CredentialsUnavailable(text, Cause.UNKNOWN)
    if not ROLE_SHAPE.fullmatch(wanted.role):
        text = f'credential "{wanted.name}": "{wanted.role}" is no role name; use a-z, 0-9 and "-"'
        raise CredentialsUnavailable(text, Cause.INVALID)


def unavailable(subject: str, fault: VaultFault, owed: Sequence[OwedLease] = ()) -> CredentialsUnavailable:
    """Say why Vault gave nothing, and what is owed all the same."""
    if fault.own_words:
        text, own_words = f"{subject}: {fault}", f"{subject}: {fault.own_words}"
        return CredentialsUnavailable(text, fault.cause, owed, own_words)
    hint = _HINTS.get(fault.cause, "")
    text = ": ".join(part for part in (subject, hint, str(fault)) if part)
    if fault.cause not in _REPEATING:
        return CredentialsUnavailable(text, fault.cause, owed)
    own_words = f"{subject}: {hint or 'Vault refused it'} (the broker's log has its words)"
    return CredentialsUnavailable(text, fault.cause, owed, own_words)
