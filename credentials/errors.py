"""What can go wrong with credentials.

CredentialsError
├── CredentialsUnavailable   no credential for this call; what was made is ended, or listed in `owed`
├── EndNotConfirmed          a lease is not known to be dead: it stays owed, end it again
├── DataKeyGone              Vault has no key any more that opens a wrapped data key
└── PartUnavailable          a development server cannot be started
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from credentials.lease import OwedLease


class Cause(enum.StrEnum):
    """Why Vault gave nothing, or did not confirm an end.

    NOTHING_MADE: the target refused Vault in a way that proves that nothing was made there, and that it may
    not do again a moment later.
    REFUSED: an authorization server, or the broker in its place, said no to just this, and will again until
    somebody changes a role, a user or a server.
    """

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    SEALED = "sealed"
    DENIED = "denied"
    UNKNOWN = "unknown"
    INVALID = "invalid"
    BACKEND = "backend"
    SESSION_LOST = "session lost"
    ROLE_UNSAFE = "role unsafe"
    OVERLOADED = "overloaded"
    NOTHING_MADE = "nothing made"
    REFUSED = "refused"


class CredentialsError(Exception):
    """Base of what this package raises."""


class CredentialsUnavailable(CredentialsError):
    """No credential can be had. The message says what to mend and holds no secret.

    Attributes:
        cause: What kind of trouble it is.
        owed: Leases that were made for the call and whose end is not confirmed: journal and end them.
        ended: What was tried for the call and is confirmed dead.
        own_words: The message without what a target may have said.
    """

    def __init__(
        self, message: str, cause: Cause, owed: Sequence[OwedLease] = (), own_words: str = ""
    ) -> None:
        super().__init__(message)
        self.own_words = own_words or message
        self.cause = cause
        self.owed = list(owed)
        self.ended: list[OwedLease] = []


class EndNotConfirmed(CredentialsError):
    """The lease may live on. Keep it owed and call `end` again.

    Attributes:
        lease_id: The lease in question.
        cause: What kind of trouble it is.
    """

    def __init__(self, lease_id: str, message: str, cause: Cause) -> None:
        super().__init__(f"the end of lease {lease_id} is not confirmed: {message}")
        self.lease_id = lease_id
        self.cause = cause


class DataKeyGone(CredentialsError):
    """Vault has no key any more that opens this data key: what was sealed with it is gone for good."""


class PartUnavailable(CredentialsError):
    """A development server cannot be started; the message names it and the remedy."""
