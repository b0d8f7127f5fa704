"""Adds a credential to a request on its way to the credential's target, and drops what the tool put there.

    injector = Injector(access.injection, target)
    head = injector.apply(head, body)            # what is sent; `head.sent` is what answers are searched for

Rules:
1. Nothing is added to a request whose Host is not one of the target's origins.
2. What the tool itself put where a credential stands is dropped, in every spelling that a server may take for
   it: a tool must not act under a login that somebody gave it, nor make the target read two.
3. A credential that cannot be sent as it is, is refused before anything is sent.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes, urlsplit

from credentials.injection import Form, Injection, NotInjectable, check_injection
from sandboxes.proxy import sigv4
from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.dialing import ClientCertificate

Headers = tuple[tuple[str, str], ...]

_NEVER = frozenset({"proxy-authorization"})
_LOGINS = frozenset({"authorization"})
_AWS_HEADERS = frozenset({"x-amz-date", "x-amz-security-token", "x-amz-content-sha256"})
_AWS_QUERY = frozenset(
    {
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-security-token",
        "x-amz-signature",
        "x-amz-signedheaders",
        "awsaccesskeyid",
        "signature",
    }
)
_CUTTING = frozenset({"range", "if-range"})
"""With these a tool would have a target that repeats its request give the secret in pieces."""
_AS_IT_IS = frozenset({Form.BEARER, Form.BASIC, Form.HEADER, Form.QUERY})
"""Forms whose secret stands in the request."""
_SIGNED = frozenset({"host", "content-type", "content-md5", "content-encoding"})
_DROPPED_HEADERS = {Form.SIGV4: _AWS_HEADERS}
_DROPPED_QUERY = {Form.BEARER: frozenset({"access-token"}), Form.SIGV4: _AWS_QUERY}  # RFC 6750, 2.3
_OTHER = re.compile(r"[^a-z0-9]")
_NAME_END = re.compile(r"[\[\x00]")
_MOST_DECODINGS = 3


@dataclass(frozen=True, slots=True)
class OutgoingHead:
    """The head of a request as it is sent to a target.

    Attributes:
        method: For example "GET".
        path: As it is sent, percent-encoded.
        query: As it is sent, without "?"; None: there is none.
        headers: Names and values in latin-1, Host among them, nothing that is hop-by-hop.
        sent: What an injector added that must not come back, beside the credential's own secrets.
    """

    method: str
    path: str
    query: str | None
    headers: Headers
    sent: tuple[str, ...] = field(default=(), repr=False)

    @property
    def target(self) -> str:
        """The request line's middle: path and query."""
        return self.path if self.query is None else f"{self.path}?{self.query}"


class Injector:
    """Adds one credential to requests toward one target. One per call and target."""

    __slots__ = ("_clock", "_form", "_hosts", "_injection", "_is_tls")

    def __init__(
        self,
        injection: Injection | None,
        target: HttpTarget,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Prepare.

        Args:
            injection: What is added; None: nothing, and what is the proxy's own is dropped all the same.
            target: Whose credential it is.
            clock: Gives the moment in UTC that a signature is made at.

        Raises:
            NotInjectable: It can never be added at this target.
        """
        if injection is not None:
            check_injection(injection)
            if injection.form is Form.CLIENT_CERTIFICATE and not target.is_tls:
                text = "a client certificate needs a target whose origins are https"
                raise NotInjectable(f"credential {injection.credential}: {text}")
        self._injection = injection
        self._form = None if injection is None else injection.form
        self._is_tls = target.is_tls
        self._hosts = frozenset(host for origin in target.origins for host in _spell_hosts(origin))
        self._clock = clock

    def __repr__(self) -> str:
        return f"Injector({self._injection!r})"

    @property
    def needs_body(self) -> bool:
        """Whether `apply` wants the body, because it is signed."""
        return self._form is Form.SIGV4

    @property
    def client_certificate(self) -> ClientCertificate | None:
        """What is shown when TLS toward the target begins; the requests themselves carry nothing then."""
        if self._injection is None or self._form is not Form.CLIENT_CERTIFICATE:
            return None
        fields = self._injection.fields
        certificate, chain = fields["certificate_pem"], fields["chain_pem"]
        return ClientCertificate(f"{certificate.rstrip()}\n{chain}", fields["private_key_pem"])

    def apply(
        self, request: OutgoingHead, body: bytes | None = b"", kept: Collection[str] = ()
    ) -> OutgoingHead:
        """Drop what the tool put where credentials stand, and add the credential.

        Args:
            request: As the rules let it pass.
            body: All of it; None: it is too large to be kept.
            kept: Lower-case names of headers that the rule lists: Cookie and Range pass only where they are.

        Raises:
            NotInjectable: It cannot be added to this request.
        """
        if self._injection is None:
            return replace(request, headers=_drop_headers(request.headers, _NEVER))
        self._check_host(request)
        cleaned = self._drop(request, kept)
        if self._form is Form.SIGV4:
            return self._sign(cleaned, request, body)
        return _ADD[self._injection.form](cleaned, self._injection.fields)

    def _check_host(self, request: OutgoingHead) -> None:
        hosts = [value.lower() for name, value in request.headers if name.lower() == "host"]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            raise NotInjectable("a credential is added only toward its own target's origins")

    def _drop(self, request: OutgoingHead, kept: Collection[str]) -> OutgoingHead:
        assert self._injection is not None
        form, name = self._injection.form, _fold(self._injection.fields.get("name", ""))
        parameters = _DROPPED_QUERY.get(form, frozenset()) | ({name} if form is Form.QUERY else set())
        headers = _drop_headers(request.headers, _list_dropped(form, name, kept))
        return replace(request, headers=headers, query=_drop_parameters(request.query, parameters))

    def _sign(self, request: OutgoingHead, asked: OutgoingHead, body: bytes | None) -> OutgoingHead:
        """Sign a request; `asked` is the same with what was dropped."""
        assert self._injection is not None
        keys = sigv4.Keys(**self._injection.fields)
        is_s3 = keys.service == "s3"
        path = sigv4.tidy_path(request.path) if is_s3 else request.path
        query = sigv4.tidy_query(request.query or "") or None
        payload_hash = self._hash(asked, body, is_s3)
        amz_date = sigv4.write_date(self._clock())
        added = [("x-amz-date", amz_date)]
        if is_s3:
            added.append(("x-amz-content-sha256", payload_hash))
        if keys.session_token:
            added.append(("x-amz-security-token", keys.session_token))
        headers = (*request.headers, *added)
        signed = [(name, value) for name, value in headers if _is_signed(name.lower())]
        signable = sigv4.Signable(request.method, path, query or "", signed, payload_hash)
        value = sigv4.sign(signable, keys, amz_date)
        signature = value.rpartition("=")[2]
        ready = replace(request, path=path, query=query, headers=headers, sent=(signature,))
        return _add_header(ready, "authorization", value)

    def _hash(self, request: OutgoingHead, body: bytes | None, is_s3: bool) -> str:
        values = {name.lower(): value for name, value in request.headers}
        if "aws-chunked" in values.get("content-encoding", "").lower():
            if is_s3 and self._is_tls and values.get("x-amz-content-sha256") == sigv4.UNSIGNED_CHUNKS:
                return sigv4.UNSIGNED_CHUNKS
            raise NotInjectable(
                "a body of the coding aws-chunked can be signed only over https and with the header "
                f"x-amz-content-sha256: {sigv4.UNSIGNED_CHUNKS}; boto3 sends none with "
                'request_checksum_calculation="when_required"'
            )
        if body is not None:
            return sigv4.hash_body(body)
        if is_s3 and self._is_tls:
            return sigv4.UNSIGNED
        raise NotInjectable("a body that is too large to be kept can be signed only for S3 over https")


def find_dropped(form: Form, name: str, headers: Headers, kept: Collection[str]) -> tuple[str, ...]:
    """Say which headers of a request are left out where a credential is added.

    Args:
        form: How it is added.
        name: Of the header or parameter that it becomes; empty for other forms.
        headers: Of the request.
        kept: Lower-case names of headers that the rule lists.
    """
    names = _list_dropped(form, _fold(name), kept)
    return tuple(dict.fromkeys(header for header, _ in headers if _fold(header) in names))


def _list_dropped(form: Form, name: str, kept: Collection[str]) -> Set[str]:
    names = _NEVER | _LOGINS | _DROPPED_HEADERS.get(form, frozenset())
    names |= ({"cookie"} | (_CUTTING if form in _AS_IT_IS else set())) - set(kept)
    return names | {name} if form is Form.HEADER else names


def _add_header(request: OutgoingHead, name: str, value: str) -> OutgoingHead:
    return replace(request, headers=(*request.headers, (name, value)))


def _add_basic(request: OutgoingHead, fields: Mapping[str, str]) -> OutgoingHead:
    login = f"{fields['username']}:{fields['password']}"
    value = base64.b64encode(login.encode()).decode()
    return replace(_add_header(request, "authorization", f"Basic {value}"), sent=(login,))


def _add_parameter(request: OutgoingHead, fields: Mapping[str, str]) -> OutgoingHead:
    added = f"{fields['name']}={quote(fields['value'], safe='')}"
    return replace(request, query=f"{request.query}&{added}" if request.query else added)


_ADD: Mapping[Form, Callable[[OutgoingHead, Mapping[str, str]], OutgoingHead]] = {
    Form.BEARER: lambda request, fields: _add_header(request, "authorization", f"Bearer {fields['token']}"),
    Form.BASIC: _add_basic,
    Form.HEADER: lambda request, fields: _add_header(
        request, fields["name"].lower(), fields["prefix"] + fields["value"]
    ),
    Form.QUERY: _add_parameter,
    Form.CLIENT_CERTIFICATE: lambda request, _: request,
}


def _drop_headers(headers: Headers, names: Collection[str]) -> Headers:
    return tuple((name, value) for name, value in headers if _fold(name) not in names)


def _drop_parameters(query: str | None, names: Set[str]) -> str | None:
    """Leave out parameters by name; some servers split at ";" too, so one with such a part goes whole."""
    if not query or not names:
        return query
    parts = [part for part in query.split("&") if not any(_names(piece) & names for piece in part.split(";"))]
    return "&".join(parts) or None


def _names(parameter: str) -> set[str]:
    """Give the names that servers may read out of a parameter: "a%5Fb", "A.b", "a_b[]" are "a_b" to some."""
    raw = parameter.partition("=")[0].encode("latin-1", "replace")
    found = set()
    for _ in range(_MOST_DECODINGS):
        text = raw.decode("latin-1").replace("+", " ").strip()
        found |= {_fold(_NAME_END.split(text, maxsplit=1)[0]), _fold(text)}  # PHP reads "a[b" as "a_b"
        raw = unquote_to_bytes(raw)
    return found


def _fold(name: str) -> str:
    """Write a name as servers do that make variables of it: one sign for all that is no letter or digit."""
    return _OTHER.sub("-", name.lower())


def _is_signed(name: str) -> bool:
    return name in _SIGNED or name.startswith("x-amz-")


def _spell_hosts(origin: str) -> Iterable[str]:
    """Give what Host says for an origin, with and without the scheme's own port."""
    parts = urlsplit(origin)
    own = 443 if parts.scheme == "https" else 80
    host = parts.netloc.lower().removesuffix(f":{own}")
    return (host, f"{host}:{own}") if parts.port in (None, own) else (host,)
