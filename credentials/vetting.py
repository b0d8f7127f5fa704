"""A look at the secrets that somebody put into Vault by hand, before a tool is registered that wants them.

The broker's session may not read their values, so this goes the way of a call: a child with the tool's policy
reads them and is ended. What it read is judged and dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from credentials.errors import Cause, CredentialsUnavailable, EndNotConfirmed
from credentials.lease import CallTag, CredentialWanted, Lease, LeaseIds

BY_HAND = frozenset({"kv", "oauth2"})
"""Engines whose secrets are made by people. Vault makes those of all others.

Of oauth2 a token is asked for, too, and ended: only the server knows whether the secret is right."""
TTL_SECONDS = 10
"""A child whose end is not confirmed ends by itself after this."""
_UNFIT = frozenset({Cause.ROLE_UNSAFE, Cause.UNKNOWN, Cause.DENIED, Cause.INVALID, Cause.REFUSED})


class Minter(Protocol):
    """A session with Vault."""

    async def mint(self, tag: CallTag, wanted: Sequence[CredentialWanted], ttl_seconds: int) -> list[Lease]:
        """Mint all or none; raises `CredentialsUnavailable`."""

    async def end(self, lease: LeaseIds) -> datetime:
        """End one; raises `EndNotConfirmed`."""


async def vet(session: Minter, tag: CallTag, wanted: Sequence[CredentialWanted]) -> dict[str, str]:
    """Read what was put into Vault by hand and say what makes it unfit: not there, too short, no string.

    Args:
        session: Mints and ends.
        tag: What Vault's audit will say about it; there is no call, so its id should say that.
        wanted: Those of other engines are left out.

    Returns:
        What is wrong, by the credential's name; nothing of a value is in it.

    Raises:
        CredentialsUnavailable: Vault did not answer, so nothing is known.
    """
    problems = {}
    tag = replace(tag, is_rehearsal=True)
    for item in wanted:
        if item.engine not in BY_HAND:
            continue
        try:
            leases = await session.mint(tag, [item], TTL_SECONDS)
        except CredentialsUnavailable as error:
            if error.cause not in _UNFIT:
                raise
            problems[item.name] = str(error)
            continue
        await _end(session, leases)
    return problems


async def _end(session: Minter, leases: Sequence[Lease]) -> None:
    for lease in leases:
        try:
            await session.end(lease)
        except EndNotConfirmed as error:
            raise CredentialsUnavailable(str(error), error.cause, [lease.owed()]) from error
