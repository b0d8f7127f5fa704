"""How the broker proves to Vault who it is. What comes back is the session's token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from credentials.secret import Secret
from credentials.vault_api import VaultApi, take


@dataclass(frozen=True, slots=True)
class Token:
    """A session's token.

    Attributes:
        period_seconds: It ends this long after its last renewal.
    """

    value: Secret
    period_seconds: int


class Login(Protocol):
    """One way to log in. Secrets are read anew at each login, so that a rotated one is taken up."""

    async def log_in(self, api: VaultApi) -> Token:
        """Log in.

        Raises:
            VaultFault: Vault refused, or gave no answer.
            LoginInvalid: What we log in with cannot be read.
        """


@dataclass(frozen=True, slots=True)
class AppRole:
    """Log in with a role id and a secret id."""

    role_id: Secret
    secret_id: Secret

    async def log_in(self, api: VaultApi) -> Token:
        """Log in; see `Login.log_in`."""
        body = {"role_id": self.role_id.reveal(), "secret_id": self.secret_id.reveal()}
        return read_token(await api.ask("post", "auth/approle/login", None, body))


def read_token(answer: dict[str, object]) -> Token:
    """Read the token of any login's answer."""
    auth = take(answer, "auth", "client_token", "lease_duration")
    return Token(Secret(auth["client_token"]), int(auth["lease_duration"]))
