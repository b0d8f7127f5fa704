"""What a role of the engine oauth2 says, in two parts of one KV secret.

Its custom metadata say all that is no secret: the session may read them, `toolcrib vault bootstrap` writes
them from a file under version control, and review compares them. Its values hold the client secret, and name
once more where it may be shown: who may change metadata but not values (a common right) cannot have the
secret sent elsewhere. Secret and key have places of their own in their mounts, which no role of the engines
kv and transit can name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from credentials.engines.base import MIN_SECRET_LENGTH
from credentials.secret import Secret

FOLDER = "oauth2/"
"""Of the secrets in the kv mount. A kv role's name has no "/": no tool reads a client secret by it."""
KEY_PREFIX = "oauth2_"
"""Of the keys in the transit mount. A transit role's name has no "_": no tool signs with them."""
TOKEN_URL, CLIENT_SECRET, CA_PEM = "token_url", "client_secret", "ca_pem"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_URL = re.compile(
    r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*)(:[0-9]{1,5})?"
    r"(/[!$&-;=@-Z_a-z~%]*)?(\?[!$&-;=?-Z_a-z~%]*)?"
)
_NO_CONTROL = r"^[ -~]{1,512}$"
MAX_CA_CHARACTERS = 64 * 1024

Line = Annotated[str, StringConstraints(pattern=_NO_CONTROL)]
MaybeLine = Annotated[str, StringConstraints(pattern=r"^[ -~]{0,512}$")]
Scope = Annotated[str, StringConstraints(pattern=r"^([!#-\[\]-~]+( [!#-\[\]-~]+)*)?$", max_length=512)]
"""As RFC 6749, 3.3 has it."""


class OAuthRole(BaseModel):
    """The part that is no secret. Vault keeps strings of up to 512 characters there.

    Attributes:
        client_auth: How the broker shows who it is; the first two take the client secret, the third the key.
        audience: Of the token: the target's name for itself (RFC 8693, and many servers beside it).
        resource: Of the token, as a URL (RFC 8707).
        issuer: What assertions about subjects are issued by; for "token_exchange".
        revocation_url: Where a token can be ended (RFC 7009), of the same origin as `token_url`.
        key_version: Of the key, which signs; 0: the newest. So a new one can be published before it is used.
        assumed_seconds: How long a token is good when the server does not say; 0: such an answer is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    grant: Literal["client_credentials", "token_exchange"]
    token_url: Line
    client_id: Line
    client_auth: Literal["client_secret_basic", "client_secret_post", "private_key_jwt"] = (
        "client_secret_basic"
    )
    scope: Scope = ""
    audience: MaybeLine = ""
    resource: MaybeLine = ""
    issuer: MaybeLine = ""
    revocation_url: MaybeLine = ""
    assumed_seconds: int = Field(0, ge=0, le=3600)
    key_version: int = Field(0, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _check(self) -> OAuthRole:
        origin = _check_url("token_url", self.token_url)
        if self.revocation_url and _check_url("revocation_url", self.revocation_url) != origin:
            raise ValueError("revocation_url: must be of the origin of token_url: it is shown the secret")
        if (self.grant == "token_exchange") != bool(self.issuer):
            raise ValueError('issuer: is required for the grant "token_exchange", and for no other')
        if self.needs_secret is False and self.issuer == self.client_id:
            raise ValueError("issuer: must not be client_id: its assertions could pass for the client's own")
        return self

    @property
    def needs_secret(self) -> bool:
        """Tell whether a client secret proves who the broker is."""
        return self.client_auth != "private_key_jwt"

    @property
    def needs_key(self) -> bool:
        """Tell whether the role's key signs something."""
        return self.grant == "token_exchange" or not self.needs_secret

    def to_metadata(self) -> dict[str, str]:
        """Spell it for Vault; what is as it is anyway is left out."""
        said = self.model_dump(exclude_defaults=True, include=set(OAuthRole.model_fields))
        return {name: str(value) for name, value in said.items()}


@dataclass(frozen=True, slots=True)
class Kept:
    """The part that Vault keeps from all but the child.

    Attributes:
        client_secret: Empty where the role's key proves who the broker is.
        ca_pem: The CA of the server's certificate; "" for the system's.
    """

    client_secret: Secret
    ca_pem: str


class RoleInvalid(ValueError):
    """A role cannot be used. The message names fields, and says nothing of a value."""


def secret_path(role: str) -> str:
    """Name the role's secret within the kv mount."""
    return FOLDER + role


def key_name(role: str) -> str:
    """Name the role's key in the transit mount."""
    return KEY_PREFIX + role


def read_role(metadata: object) -> OAuthRole:
    """Read custom metadata.

    Raises:
        RoleInvalid: There are none, or a field is missing, wrong or unknown.
    """
    if not isinstance(metadata, Mapping) or not metadata:
        raise RoleInvalid("its custom metadata say nothing; write them with `toolcrib vault bootstrap`")
    try:
        return OAuthRole.model_validate(dict(metadata))
    except ValidationError as error:
        raise RoleInvalid("; ".join(_explain(item) for item in error.errors())) from None


def read_kept(role: OAuthRole, values: Mapping[str, Any]) -> Kept:
    """Read a secret's values.

    Raises:
        RoleInvalid: One is missing, wrong or unknown; or the secret is for another server.
    """
    texts = {key: value for key, value in values.items() if isinstance(value, str)}
    problems = [f'the value of "{key}" is no string' for key in sorted(set(values) - set(texts))]
    wanted = {TOKEN_URL, CLIENT_SECRET} if role.needs_secret else {TOKEN_URL}
    problems += [f'it has no "{key}"' for key in sorted(wanted - set(values))]
    problems += [f'it has a "{key}", which is not known' for key in sorted(set(values) - wanted - {CA_PEM})]
    if not problems and texts[TOKEN_URL] != role.token_url:
        problems.append("its token_url is not that of the role: the secret would be shown to another server")
    secret, ca_pem = texts.get(CLIENT_SECRET, ""), texts.get(CA_PEM, "")
    if role.needs_secret and not problems and len(secret) < MIN_SECRET_LENGTH:
        problems.append(f'the value of "{CLIENT_SECRET}" is shorter than {MIN_SECRET_LENGTH} characters')
    if not secret.isprintable():
        problems.append(f'the value of "{CLIENT_SECRET}" has a line end or the like: write it without')
    if len(secret) > 4096 or len(ca_pem) > MAX_CA_CHARACTERS:
        problems.append("its values are too long")
    if problems:
        raise RoleInvalid("; ".join(problems))
    return Kept(Secret(secret), ca_pem)


def _check_url(name: str, text: str) -> tuple[str, str, int]:
    """Return the origin of an endpoint's URL.

    Raises:
        ValueError: It is none that a secret may be sent to.
    """
    try:
        parts = urlsplit(text)
        origin = (parts.scheme, (parts.hostname or "").lower(), parts.port or _default_port(parts))
    except ValueError:
        raise ValueError(f"{name}: is no URL") from None
    if not _URL.fullmatch(text) or not parts.hostname:
        raise ValueError(f"{name}: must be https://HOST[:PORT]/PATH, without a user name and a fragment")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError(f"{name}: must be https; http would show the secret to the network")
    return origin


def _default_port(parts: SplitResult) -> int:
    return 443 if parts.scheme == "https" else 80


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    words = {"missing": "is required", "extra_forbidden": "is not known"}.get(error["type"], "is not valid")
    return f"{where}: {words}"
