"""A credential that is added to requests on their way out, so that the tool never has it.

Made by the broker of what was minted, given to the egress proxy over a private pipe, forgotten there when the
call ends. It needs the standard library only: the proxy loads it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from credentials.lease import AccessToken, ClientCertificate, KeyValues, Payload, UsernamePassword


class Form(enum.StrEnum):
    """How a credential is added."""

    BEARER = "bearer"
    BASIC = "basic"
    HEADER = "header"
    QUERY = "query"
    CLIENT_CERTIFICATE = "client_certificate"
    SIGV4 = "sigv4"


FIELDS: Mapping[Form, tuple[str, ...]] = {
    Form.BEARER: ("token",),
    Form.BASIC: ("username", "password"),
    Form.HEADER: ("name", "prefix", "value"),
    Form.QUERY: ("name", "value"),
    Form.CLIENT_CERTIFICATE: ("certificate_pem", "private_key_pem", "chain_pem"),
    Form.SIGV4: ("access_key_id", "secret_access_key", "session_token", "region", "service"),
}
"""What each form needs; what may be empty stands below. A header's prefix is no part of its value, so that
answers are searched for the value alone."""

MAY_BE_EMPTY = frozenset({"prefix", "chain_pem", "session_token"})
SECRET_FIELDS = frozenset(
    {"token", "password", "value", "private_key_pem", "secret_access_key", "session_token"}
)
"""What of the fields must not come back in an answer."""

FRAMING = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that are the proxy's own matter: no credential is put there."""

_PEM_FIELDS = frozenset({"certificate_pem", "private_key_pem", "chain_pem"})
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_PREFIX = re.compile(r"[!-~][ -~]{0,31}")
_WORD = re.compile(r"[!-~]{1,16384}")
_TEXT = re.compile(r"[!-~](?:[ -~]{0,16382}[!-~])?")
_SCOPE = re.compile(r"[a-z0-9-]{1,32}")
_PEM = re.compile(r"[\n\r\t -~]{1,100000}")


class NotInjectable(ValueError):
    """A credential cannot be added as it is wanted. The text is ours: it names keys and holds no value."""


class Wanted(Protocol):
    """How a manifest wants a credential to be added; `tools.manifest.Inject` is one."""

    @property
    def form(self) -> str:
        """As `Form` has them."""

    @property
    def key(self) -> str:
        """Which value is meant, for bearer, header and query."""

    @property
    def name(self) -> str | None:
        """The header's or the query's name."""

    @property
    def prefix(self) -> str:
        """What stands before the value in a header."""

    @property
    def region(self) -> str | None:
        """For sigv4."""

    @property
    def service(self) -> str | None:
        """For sigv4."""


@dataclass(frozen=True, slots=True)
class Injection:
    """One credential, ready to be added.

    Attributes:
        credential: The manifest's name.
        form: How it is added.
        fields: As `FIELDS` has them, revealed: keep it no longer than the call, and show it to nobody.
    """

    credential: str
    form: Form
    fields: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Injection({self.credential}, {self.form}, <secret>)"


def make_injection(credential_name: str, inject: Wanted, payload: Payload) -> Injection:
    """Take of a minted credential what its form needs.

    Args:
        credential_name: The manifest's name for it.
        inject: How it is added.
        payload: What was minted.

    Raises:
        NotInjectable: The payload has no such value, or one that cannot be sent as it is.
    """
    form = Form(inject.form)
    values = _take_values(credential_name, payload)
    settings = {
        "name": inject.name,
        "prefix": inject.prefix,
        "region": inject.region,
        "service": inject.service,
    }
    keys = {name: inject.key if name in ("token", "value") else name for name in FIELDS[form]}
    fields = {
        name: settings[name] or "" if name in settings else values.get(key, "") for name, key in keys.items()
    }
    missing = [key for name, key in keys.items() if not fields[name] and name not in MAY_BE_EMPTY]
    if missing:
        raise NotInjectable(
            f"credential {credential_name}: form {form} needs {', '.join(missing)}: it has none"
        )
    injection = Injection(credential_name, form, fields)
    check_injection(injection)
    return injection


def check_injection(injection: Injection) -> None:
    """See that nothing of a credential could become another header, or another reading of one.

    Only printable ASCII is sent: what is beyond has no one encoding in a header, so that neither the target
    nor the search of its answers would know it for certain.

    Raises:
        NotInjectable: Names the field.
    """
    fields = injection.fields
    begin = f"credential {injection.credential}: its"
    if set(fields) != set(FIELDS[injection.form]):
        raise NotInjectable(f"{begin} fields are not those of form {injection.form}")
    for name, value in fields.items():
        if not value and name in MAY_BE_EMPTY:
            continue
        if not _pattern(injection.form, name).fullmatch(value):
            raise NotInjectable(f"{begin} {name} is empty, too long or holds more than {_ALLOWED}")
    if injection.form is Form.HEADER and fields["name"].lower().replace("_", "-") in FRAMING:
        raise NotInjectable(f"{begin} header {fields['name']} is set by the proxy: name another one")
    if injection.form is Form.BASIC and ":" in fields["username"]:
        raise NotInjectable(f"{begin} username holds a colon, which ends the user name (RFC 7617)")


_ALLOWED = "printable ASCII, and no space at its ends"


def _pattern(form: Form, name: str) -> re.Pattern[str]:
    """Say what a field may hold; a password or a query's value may hold spaces, a token may not."""
    if name in _PEM_FIELDS:
        return _PEM
    if name in ("name", "prefix"):
        return _NAME if name == "name" else _PREFIX
    if name in ("region", "service"):
        return _SCOPE
    return _TEXT if form in (Form.BASIC, Form.HEADER, Form.QUERY) else _WORD


def _take_values(credential_name: str, payload: Payload) -> dict[str, str]:
    """Give what was minted as values by name."""
    match payload:
        case KeyValues():
            values = {key: secret.reveal() for key, secret in payload.values.items()}
            return {"username": payload.username, **values}
        case UsernamePassword():
            return {"username": payload.username, "password": payload.password.reveal()}
        case AccessToken():
            return {"token": payload.token.reveal()}
        case ClientCertificate():
            return {
                "certificate_pem": payload.certificate_pem,
                "private_key_pem": payload.private_key_pem.reveal(),
                "chain_pem": payload.chain_pem,
            }
    raise NotInjectable(f"credential {credential_name}: what its engine gives cannot be added to a request")
