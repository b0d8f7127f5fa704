"""A local OAuth2 authorization server: it proves clients, checks assertions by a JWK set, and can misbehave.

Grants: client credentials (RFC 6749, 4.4), token exchange (RFC 8693). Clients prove themselves by a secret,
in a header or in the form, or by a signed assertion (RFC 7523). Tokens can be revoked (RFC 7009) and looked
up (RFC 7662).
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import jwt

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS = ["ES256", "EdDSA", "PS256"]
Answer = tuple[int, bytes, dict[str, str]]
Form = dict[str, str]


class _Refused(Exception):
    """An error of RFC 6749, 5.2."""

    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(code)
        self.code, self.status = code, status


@dataclass
class Client:
    """A client that the server knows.

    Attributes:
        secret: "" where its keys prove it.
        keys: A JWK set: of its own assertions, and of those that it makes about subjects.
        issuer: Whose assertions it may exchange.
        scopes: What it may ask for.
    """

    secret: str = ""
    keys: Mapping[str, Any] = field(default_factory=lambda: {"keys": []})
    issuer: str = ""
    scopes: frozenset[str] = frozenset()


@dataclass
class Issued:
    """A token that was given.

    Attributes:
        claims: Of the assertion that it was exchanged for.
    """

    client: str
    scope: str
    expires: float
    claims: Mapping[str, Any]
    audience: str = ""
    is_revoked: bool = False


class TokenServer:
    """Serves on loopback, over TLS where it has a certificate. Use as a context manager.

    Attributes:
        clients: By client id.
        issued: By token.
        asked: Path and form of each request, in order.
        lifetime_seconds: Of tokens; None: it does not say.
        bend: Changes an answer of a path: (path, status, body) → (status, body, headers).
        headers: Of each request, in order.
        hold: Paths whose requests are never answered.
        repeats: A client gets the token again that it has for the same scope.
        revokes_late: A revocation waits until `revoke_now` is set, while other requests are answered.
    """

    def __init__(self, tls: tuple[Path, Path] | None = None) -> None:
        self._tls = tls
        self.clients: dict[str, Client] = {}
        self.issued: dict[str, Issued] = {}
        self.asked: list[tuple[str, Form]] = []
        self.headers: list[Mapping[str, str]] = []
        self.lifetime_seconds: int | None = 300
        self.bend: Callable[[str, int, bytes], Answer] | None = None
        self.hold: frozenset[str] = frozenset()
        self.repeats = self.revokes_late = False
        self.revoke_now = threading.Event()
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        self._released = threading.Event()

    def __enter__(self) -> TokenServer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        self._server.daemon_threads = True
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.base = f"{'https' if self._tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def token_url(self) -> str:
        return self.base + "/token"

    @property
    def revocation_url(self) -> str:
        return self.base + "/revoke"

    def forget(self) -> None:
        """Behave well again, and know nothing of before."""
        self.asked.clear()
        self.headers.clear()
        self.issued.clear()
        self._seen.clear()
        self.bend, self.hold, self.lifetime_seconds = None, frozenset(), 300
        self.repeats = self.revokes_late = False
        self.revoke_now.clear()

    def forms(self, path: str = "/token") -> list[Form]:
        """List what was sent to a path."""
        return [form for asked, form in self.asked if asked == path]

    def look_up(self, token: str) -> dict[str, Any]:
        """Say of a token what introspection says; a target asks this."""
        issued = self.issued.get(token)
        if issued is None or issued.is_revoked or issued.expires < time.time():
            return {"active": False}
        said = {"active": True, "client_id": issued.client, "scope": issued.scope, "aud": issued.audience}
        names = ("sub", "act", "tenant")
        return said | {name: issued.claims[name] for name in names if name in issued.claims}

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """Answer a request; None: never."""
        pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body))
        form = dict(pairs)
        self.asked.append((path, form))
        self.headers.append(dict(headers))
        if path == "/revoke" and self.revokes_late:
            self.revoke_now.wait(10)
        with self._lock:
            try:
                if len(form) != len(pairs):
                    raise _Refused("invalid_request")
                status, said = 200, self._serve(path, headers, form)
            except _Refused as refused:
                status, said = refused.status, {"error": refused.code, "error_description": "told-by-server"}
        if path in self.hold:
            self._released.wait(60)
            return None
        text = json.dumps(said).encode() if said is not None else b""
        return self.bend(path, status, text) if self.bend else (status, text, {})

    def _serve(self, path: str, headers: Mapping[str, str], form: Form) -> dict[str, Any] | None:
        name, client = self._prove(headers, form)
        if path == "/token":
            return self._give(name, client, form)
        if path == "/revoke":
            issued = self.issued.get(form.get("token", ""))
            if issued is not None and issued.client == name:
                issued.is_revoked = True
            return None
        if path == "/introspect":
            return self.look_up(form.get("token", ""))
        raise _Refused("invalid_request", 404)

    def _prove(self, headers: Mapping[str, str], form: Form) -> tuple[str, Client]:
        kind, _, encoded = headers.get("authorization", "").partition(" ")
        if kind == "Basic":
            name, _, secret = base64.b64decode(encoded).decode().partition(":")
            name, secret = unquote_plus(name), unquote_plus(secret)
        else:
            name, secret = form.get("client_id", ""), form.get("client_secret", "")
        client = self.clients.get(name)
        if client is None:
            raise _Refused("invalid_client", 401)
        if form.get("client_assertion_type") == JWT_BEARER:
            claims = self._check(form["client_assertion"], client, name)
            if claims["sub"] != name:
                raise _Refused("invalid_client", 401)
        elif not client.secret or not secrets.compare_digest(client.secret.encode(), secret.encode()):
            raise _Refused("invalid_client", 401)
        return name, client

    def _give(self, name: str, client: Client, form: Form) -> dict[str, Any]:
        scope = form.get("scope", " ".join(sorted(client.scopes)))
        if not set(scope.split()) <= client.scopes:
            raise _Refused("invalid_scope")
        claims: Mapping[str, Any] = {}
        more = {}
        if form.get("grant_type") == EXCHANGE:
            if form.get("subject_token_type") != JWT_TYPE:
                raise _Refused("invalid_request")
            claims = self._check(form.get("subject_token", ""), client, client.issuer)
            more = {"issued_token_type": ACCESS_TOKEN_TYPE}
        elif form.get("grant_type") != "client_credentials":
            raise _Refused("unsupported_grant_type")
        token = (self._find_live(name, scope) if self.repeats else "") or secrets.token_urlsafe(32)
        seconds = self.lifetime_seconds
        self.issued[token] = Issued(
            name, scope, time.time() + (seconds or 300), claims, form.get("audience", "")
        )
        said = {"access_token": token, "token_type": "Bearer", "scope": scope, **more}
        return said if seconds is None else {**said, "expires_in": seconds}

    def _find_live(self, client: str, scope: str) -> str:
        live = (
            token for token, issued in self.issued.items() if (issued.client, issued.scope) == (client, scope)
        )
        return next((token for token in live if self.look_up(token)["active"]), "")

    def _check(self, assertion: str, client: Client, issuer: str) -> dict[str, Any]:
        """Check an assertion as RFC 7523 says: signature, issuer, audience, time, and that it is new."""
        required = ["iss", "sub", "aud", "exp", "iat", "jti"]
        try:
            kid = jwt.get_unverified_header(assertion)["kid"]
            key = next(jwk for jwk in client.keys["keys"] if jwk["kid"] == kid)
            claims: dict[str, Any] = jwt.decode(
                assertion,
                jwt.PyJWK(key),
                ALGORITHMS,
                issuer=issuer,
                audience=self.token_url,
                options={"require": required},
            )
        except (jwt.PyJWTError, KeyError, StopIteration) as error:
            raise _Refused("invalid_grant") from error
        if claims["jti"] in self._seen or claims["exp"] - claims["iat"] > 300:
            raise _Refused("invalid_grant")
        self._seen.add(claims["jti"])
        return claims

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                names = {name.lower(): value for name, value in self.headers.items()}
                answer = server.answer(self.path, names, body)
                if answer is None:
                    self.close_connection = True
                    return
                status, text, headers = answer
                self.send_response(status)
                usual = {"Content-Type": "application/json", "Content-Length": str(len(text))}
                for name, value in {**usual, **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(text)
                except OSError:
                    self.close_connection = True  # it was too much for who asked

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        return Handler
