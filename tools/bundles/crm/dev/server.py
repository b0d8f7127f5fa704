"""A small CRM for `toolcrib dev`, with the authorization server that gives tokens for it.

    python3 -P server.py FOLDER

It listens on a free port of 127.0.0.1 and writes its number to FOLDER/port. The clients' secrets are in
FOLDER/settings.json, the public keys of assertions in FOLDER/jwks.json once they are there.

The authorization server takes token exchanges (RFC 8693): a client, by its secret, shows an assertion, a JWT
of the issuer with a signature of the known keys, for one subject, this server and a minute, used once. It
gives a token for that subject, for some minutes, and takes it back when it is asked to (RFC 7009).

The API answers by the token's subject: nobody sees, or writes to, another one's contacts. Of all requests
with one Idempotency-Key one adds a note, and the others get its answer.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote_plus, urlsplit

import jwt

ISSUER, AUDIENCE = "https://toolcrib.example", "https://crm.example"
SCOPES = {"crm-read": "contacts.read", "crm-write": "notes.write"}
TOKEN_SECONDS = 300
MOST_BYTES = 64 * 1024
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT = "urn:ietf:params:oauth:token-type:jwt"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
_NOTES = re.compile(r"/v1/contacts/(C-[0-9]{1,12})/notes")
_PEOPLE: Mapping[str, tuple[tuple[str, str, str, str], ...]] = {
    "maria": (
        ("C-1001", "Ann Winter", "Winter Lamps", "ann@customer.example"),
        ("C-1002", "Bob Frost", "Frost & Sons", "bob@frost.example"),
    ),
    "tom": (("C-2001", "Cleo May", "May Kettles", "cleo@may.example"),),
}


class Answer(NamedTuple):
    """What is answered: a status, JSON, and headers beside the usual ones."""

    status: int
    document: object
    headers: Mapping[str, str] = {}


class Refused(Exception):
    """A request that is answered with an error code: of OAuth, or of the API."""

    def __init__(self, status: int, code: str, **headers: str) -> None:
        super().__init__(code)
        self.answer = Answer(status, {"error": code}, headers)


class Token(NamedTuple):
    """Whom a token is for, what it lets do, and until when (`time.time`)."""

    owner: tuple[str, str]
    scope: str
    ends: float


class Office:
    """Clients, tokens, contacts and notes; one lock for all of it.

    Attributes:
        clients: Secrets by client.
        owners: The subjects that are known, each with tenant and name.
        notes: What was added, in order.
        tokens: Those that were given.
    """

    def __init__(self, clients: Mapping[str, str], tenants: list[str], keys: Path) -> None:
        self.clients = clients
        self.owners = {(tenant, name): people for tenant in tenants for name, people in _PEOPLE.items()}
        self.notes: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self._keys = keys
        self.tokens: dict[str, Token] = {}
        self._used: set[str] = set()
        self._by_key: dict[tuple[tuple[str, str], str], dict[str, Any]] = {}

    def exchange(self, client: str, form: Mapping[str, str], url: str) -> Answer:
        """Give a token for the subject of an assertion.

        Raises:
            Refused: With the RFCs' codes.
        """
        if form.get("grant_type") != _EXCHANGE or form.get("subject_token_type") != _JWT:
            raise Refused(400, "unsupported_grant_type")
        if form.get("audience") != AUDIENCE:
            raise Refused(400, "invalid_target")
        scope = form.get("scope", "")
        if scope != SCOPES.get(client):
            raise Refused(400, "invalid_scope")
        claims = self._check_assertion(form.get("subject_token", ""), url)
        owner = (claims["tenant"], claims["sub"])
        with self.lock:
            if claims["jti"] in self._used or owner not in self.owners:
                raise Refused(400, "invalid_grant")
            self._used.add(claims["jti"])
            token = secrets.token_urlsafe(32)
            self.tokens[token] = Token(owner, scope, time.time() + TOKEN_SECONDS)
        given = {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_SECONDS, "scope": scope}
        return Answer(200, {**given, "issued_token_type": _ACCESS_TOKEN}, {"Cache-Control": "no-store"})

    def _check_assertion(self, assertion: str, url: str) -> dict[str, Any]:
        needed = ["iss", "aud", "sub", "exp", "iat", "jti", "tenant"]
        try:
            known = jwt.PyJWKSet.from_dict(json.loads(self._keys.read_text()))
            key = known[jwt.get_unverified_header(assertion)["kid"]]
            return jwt.decode(
                assertion,
                key,
                algorithms=["ES256", "EdDSA", "PS256"],
                audience=url,
                issuer=ISSUER,
                options={"require": needed},
            )
        except (jwt.PyJWTError, OSError, ValueError, KeyError) as error:
            raise Refused(400, "invalid_grant") from error

    def revoke(self, form: Mapping[str, str]) -> Answer:
        """End a token; one that is not known is none, too."""
        with self.lock:
            self.tokens.pop(form.get("token", ""), None)
        return Answer(200, {})

    def admit(self, token: str, scope: str) -> tuple[str, str]:
        """Say whom a token is for.

        Raises:
            Refused: It is none, or lets do something else.
        """
        with self.lock:
            known = self.tokens.get(token)
        if known is None or known.ends < time.time():
            raise Refused(401, "invalid_token", **{"WWW-Authenticate": 'Bearer error="invalid_token"'})
        if known.scope != scope:
            raise Refused(403, "insufficient_scope")
        return known.owner

    def find(self, owner: tuple[str, str], query: Mapping[str, list[str]]) -> Answer:
        """Find contacts of a subject."""
        text, limit = query.get("text", [""])[0].lower(), int(query.get("limit", ["20"])[0])
        names = ("id", "name", "company", "email")
        found = [
            dict(zip(names, person, strict=True))
            for person in self.owners[owner]
            if text in " ".join(person).lower()
        ]
        return Answer(200, {"contacts": found[:limit], "more": len(found) > limit})

    def add_note(self, owner: tuple[str, str], contact: str, key: str, said: Mapping[str, Any]) -> Answer:
        """Add a note to a contact of a subject, once for a key.

        Raises:
            Refused: 400, 404 or 422.
        """
        if not key or not isinstance(said.get("text"), str):
            raise Refused(400, "invalid_request")
        if contact not in {person[0] for person in self.owners[owner]}:
            raise Refused(404, "not_found")
        with self.lock:
            known = self._by_key.get((owner, key))
            if known is None:
                number = len(self.notes) + 1
                known = {"id": f"N-{number}", "contact_id": contact, "text": said["text"], "author": owner[1]}
                self.notes.append(known)
                self._by_key[owner, key] = known
                return Answer(201, known)
        if (known["contact_id"], known["text"]) != (contact, said["text"]):
            raise Refused(422, "idempotency_key_reused")
        return Answer(200, known)


class Requests(BaseHTTPRequestHandler):
    """Answers one request."""

    server: CrmServer
    protocol_version = "HTTP/1.1"
    server_version = "toolcrib-crm"

    def do_GET(self) -> None:
        """Find contacts."""
        self._answer()

    def do_POST(self) -> None:
        """Give or end a token, or add a note."""
        self._answer()

    def _answer(self) -> None:
        try:
            answer = self._route(self._read_body())
        except Refused as refused:
            answer = refused.answer
        except (ValueError, TypeError):
            answer = Answer(400, {"error": "invalid_request"})
        content = json.dumps(answer.document).encode()
        self.send_response(answer.status)
        usual = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        for name, value in {**usual, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _route(self, body: bytes) -> Answer:
        office, parts = self.server.office, urlsplit(self.path)
        if self.command == "POST" and parts.path.startswith("/oauth2/"):
            return self._authorize(parts.path, body)
        if self.command == "GET" and parts.path == "/v1/contacts":
            owner = office.admit(self._token(), "contacts.read")
            return office.find(owner, parse_qs(parts.query))
        found = _NOTES.fullmatch(parts.path)
        if self.command != "POST" or found is None:
            raise Refused(404, "not_found")
        owner = office.admit(self._token(), "notes.write")
        key = self.headers.get("Idempotency-Key", "")
        return office.add_note(owner, found[1], key, json.loads(body))

    def _authorize(self, path: str, body: bytes) -> Answer:
        office, client = self.server.office, self._client()
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if path == "/oauth2/token":
            host, port = self.server.socket.getsockname()
            return office.exchange(client, form, f"http://{host}:{port}/oauth2/token")
        if path == "/oauth2/revoke":
            return office.revoke(form)
        raise Refused(404, "not_found")

    def _client(self) -> str:
        """Say who asks for a token, by client_secret_basic (RFC 6749, 2.3.1)."""
        kind, _, said = self.headers.get("Authorization", "").partition(" ")
        name, _, secret = base64.b64decode(said if kind == "Basic" else "").decode().partition(":")
        known = self.server.office.clients.get(unquote_plus(name), "")
        if not known or not hmac.compare_digest(known.encode(), unquote_plus(secret).encode()):
            raise Refused(401, "invalid_client", **{"WWW-Authenticate": "Basic"})
        return unquote_plus(name)

    def _token(self) -> str:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if kind == "Bearer" else ""

    def _read_body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MOST_BYTES:
            self.close_connection = True
            raise Refused(413, "invalid_request")
        return self.rfile.read(length)

    def log_message(self, *_: object) -> None:
        """Log nothing: there may be a secret in it."""


class CrmServer(ThreadingHTTPServer):
    """An office behind a listening socket."""

    def __init__(self, office: Office, listening: socket.socket) -> None:
        super().__init__(("127.0.0.1", 0), Requests, bind_and_activate=False)
        self.socket.close()
        self.office, self.socket = office, listening


def main() -> None:
    """Serve until somebody ends this process."""
    folder = Path(sys.argv[1])
    known = json.loads((folder / "settings.json").read_text())
    clients = {name: known["secrets"][f"oauth2/{name}"]["client_secret"] for name in SCOPES}
    listening = socket.create_server(("127.0.0.1", 0))
    server = CrmServer(Office(clients, known["tenants"], folder / "jwks.json"), listening)
    (folder / "port.new").write_text(str(listening.getsockname()[1]))
    (folder / "port.new").rename(folder / "port")
    server.serve_forever()


if __name__ == "__main__":
    main()
