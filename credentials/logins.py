"""How the broker proves to Vault who it is. What comes back is the session's token.

Rules:
1. What we log in with is read anew each time, so that a rotated secret id or a new token file is taken up.
2. A token that cannot be a session is refused: it has to end by itself soon after nobody renews it, and it
   must not be able to do everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from credentials.errors import Cause
from credentials.policies import BROKER_POLICY_NAME
from credentials.secret import Secret
from credentials.transport import VaultFault
from credentials.vault_api import VaultApi, take

MAX_PERIOD_SECONDS = 300
"""A session that lives longer than this after broker and supervisor both died is worth a warning."""

Source = Secret | Path
"""A secret, or the file where it stands."""


class LoginInvalid(VaultFault):
    """What we log in with cannot be read, or what came of it is no session."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Cause.INVALID)


@dataclass(frozen=True, slots=True)
class Token:
    """A session's token.

    Attributes:
        period_seconds: It ends this long after its last renewal.
    """

    value: Secret
    period_seconds: int


class Login(Protocol):
    """One way to log in."""

    def examine(self) -> None:
        """See that what we log in with is there.

        Raises:
            LoginInvalid: It cannot be read.
        """

    async def log_in(self, api: VaultApi) -> Token:
        """Log in.

        Raises:
            LoginInvalid: What we log in with cannot be read.
            VaultFault: Vault refused, or gave no answer.
        """


@dataclass(frozen=True, slots=True)
class AppRole:
    """Log in with a role id and a secret id."""

    role_id: Source
    secret_id: Source
    mount: str = "approle"

    def examine(self) -> None:
        """See that both are there; see `Login.examine`."""
        read_source(self.role_id)
        read_source(self.secret_id)

    async def log_in(self, api: VaultApi) -> Token:
        """Log in; see `Login.log_in`."""
        body = {
            "role_id": read_source(self.role_id).reveal(),
            "secret_id": read_source(self.secret_id).reveal(),
        }
        return await _log_in(api, self.mount, body)


@dataclass(frozen=True, slots=True)
class Jwt:
    """Log in with a signed token that somebody else keeps fresh: an identity provider, or Kubernetes."""

    role: str
    token: Source
    mount: str = "jwt"

    def examine(self) -> None:
        """See that the token is there; see `Login.examine`."""
        read_source(self.token)

    async def log_in(self, api: VaultApi) -> Token:
        """Log in; see `Login.log_in`."""
        return await _log_in(api, self.mount, {"role": self.role, "jwt": read_source(self.token).reveal()})


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Log in with the certificate that the connection shows (`Peer.certificate`)."""

    certificate: Path
    private_key: Path
    role: str
    mount: str = "cert"

    def examine(self) -> None:
        """See that both are there; see `Login.examine`."""
        read_source(self.certificate)
        read_source(self.private_key)

    async def log_in(self, api: VaultApi) -> Token:
        """Log in, over a new connection: the certificate may be a new one. See `Login.log_in`."""
        self.examine()
        await api.reconnect()
        return await _log_in(api, self.mount, {"name": self.role})


@dataclass(frozen=True, slots=True)
class StaticToken:
    """Make a session with a token that is there already. For development: it may be root's."""

    token: Source
    period_seconds: int = 30

    def examine(self) -> None:
        """See that the token is there; see `Login.examine`."""
        read_source(self.token)

    async def log_in(self, api: VaultApi) -> Token:
        """Make a session below it, which ends without it; see `Login.log_in`."""
        body = {
            "policies": [BROKER_POLICY_NAME],
            "no_default_policy": True,
            "period": f"{self.period_seconds}s",
            "display_name": BROKER_POLICY_NAME,
        }
        return read_token(await api.ask("post", "auth/token/create", read_source(self.token), body))


def read_source(source: Source) -> Secret:
    """Return a secret, from its file if it has one.

    Raises:
        LoginInvalid: The file cannot be read, or is empty.
    """
    if isinstance(source, Secret):
        return source
    try:
        text = source.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LoginInvalid(f"{source}: cannot be read ({_say(error)})") from error
    if not text:
        raise LoginInvalid(f"{source}: is empty")
    return Secret(text)


async def vet(api: VaultApi, token: Token) -> list[str]:
    """See whether a token can be a session.

    Returns:
        What is not as it should be, and can be lived with.

    Raises:
        LoginInvalid: It must not be used; the text says what to change at the login's role.
        VaultFault: Vault gave no answer.
    """
    found = take(await api.ask("get", "auth/token/lookup-self", token.value), "data", "policies", "ttl")
    problems = list(_find_problems(found))
    if problems:
        text = "; ".join(problems)
        raise LoginInvalid(f"the login's token is no session: {text}; run `toolcrib vault bootstrap --plan`")
    return list(_find_doubts(found))


def _find_problems(found: Mapping[str, Any]) -> Iterator[str]:
    if "root" in found["policies"]:
        yield "it is root's: the broker must not be able to do everything"
    if found.get("type") != "service" or not found.get("renewable"):
        yield "it cannot be renewed (token_type has to be service)"
    elif not found.get("period"):
        yield "it has no period (token_period): it would end under every running call"
    if found.get("num_uses"):
        yield "it can be used a few times only (token_num_uses has to be 0)"


def _find_doubts(found: Mapping[str, Any]) -> Iterator[str]:
    more = {*found["policies"], *(found.get("identity_policies") or ())} - {BROKER_POLICY_NAME}
    if more:
        names = ", ".join(sorted(more))
        yield f"it has more policies than {BROKER_POLICY_NAME}: {names}; a stolen session could do more"
    if found.get("explicit_max_ttl"):
        yield f"its token_explicit_max_ttl ends it after {found['explicit_max_ttl']} s, with every call"
    if int(found.get("period") or 0) > MAX_PERIOD_SECONDS:
        yield f"its period is {found['period']} s: so long may logins outlive a broker and its supervisor"


async def _log_in(api: VaultApi, mount: str, body: Mapping[str, str]) -> Token:
    return read_token(await api.ask("post", f"auth/{mount}/login", None, body))


def read_token(answer: dict[str, Any]) -> Token:
    """Read the token of any login's answer."""
    auth = take(answer, "auth", "client_token", "lease_duration")
    return Token(Secret(auth["client_token"]), int(auth["lease_duration"]))


def _say(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "it is no text"
