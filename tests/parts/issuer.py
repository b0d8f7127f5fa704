"""A local issuer of tokens: discovery and keys over HTTP(S) on loopback, and the tokens of real providers.

Its answers can be bent, slowed and counted. The claims are those of Okta's and Entra's documentation: "Access
token payload" (developer.okta.com) and "Access token claims reference" (learn.microsoft.com).
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

TENANT_ID = "5d1c6a3e-7b1f-4c0a-9d55-0f3c1f0b9a11"
CLIENT_ID = "8f0c1d2e-3a4b-4c5d-8e6f-7a8b9c0d1e2f"
OBJECT_ID = "1b2c3d4e-5f60-4718-92a3-b4c5d6e7f809"
OKTA_CLIENT = "0oa1gjh63g214q0Hq0g4"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Claims = dict[str, Any]

_CURVES: dict[str, Callable[[], ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}


def make_key(algorithm: str = "ES256", bits: int = 2048) -> PrivateKey:
    """Make a key for an algorithm."""
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm]())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65_537, bits)


def publish(key: PrivateKey, **members: Any) -> dict[str, Any]:
    """Write the public half of a key as a JWK."""
    writers: dict[type, Any] = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    writer: Any = next((made for kind, made in writers.items() if isinstance(key, kind)), OKPAlgorithm)
    jwk: dict[str, Any] = writer.to_jwk(key.public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    return {**jwk, "use": "sig", **members}


def encode_part(value: object) -> str:
    """Write a header or claims as a part of a token."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Mint:
    """Keys by name, and tokens signed with them; needs no server."""

    def __init__(self, issuer: str, algorithm: str = "ES256") -> None:
        self.issuer, self.algorithm = issuer, algorithm
        self.keys: dict[str, PrivateKey] = {"k1": make_key(algorithm)}
        self.extra: list[dict[str, Any]] = []

    def key_set(self) -> dict[str, Any]:
        """Make the JWK set as it is now."""
        own = [publish(key, kid=name, alg=self.algorithm) for name, key in self.keys.items()]
        return {"keys": [*own, *self.extra]}

    def rotate(self, old: str, new: str) -> None:
        """Put a new key in the place of an old one."""
        del self.keys[old]
        self.keys[new] = make_key(self.algorithm)

    def sign(self, claims: Claims, *, key: str = "k1", header: Claims | None = None) -> str:
        """Sign claims, as they are."""
        headers = {"kid": key, **(header or {})}
        return jwt.encode(claims, self.keys[key], self.algorithm, {k: v for k, v in headers.items() if v})

    def claims(self, now: float, **changes: Any) -> Claims:
        """Make the claims of a good token; a change to None leaves one out."""
        claims = {
            "iss": self.issuer, "aud": "toolcrib", "sub": "desk-1",
            "iat": int(now) - 10, "exp": int(now) + 600, **changes,
        }  # fmt: skip
        return {name: value for name, value in claims.items() if value is not None}


def okta_claims(issuer: str, now: float, **changes: Any) -> Claims:
    """Make the claims of an access token of an Okta authorization server for a user."""
    return {
        "ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE", "iss": issuer, "aud": "api://toolcrib",
        "iat": int(now), "exp": int(now) + 3600, "cid": OKTA_CLIENT, "uid": "00ujmkLgagxeRrAg20g3",
        "scp": ["tools"], "auth_time": int(now) - 60, "sub": "maria@example.org", **changes,
    }  # fmt: skip


def entra_claims(issuer: str, now: float, **changes: Any) -> Claims:
    """Make the claims of a version 2.0 access token of Entra for an application (client credentials)."""
    return {
        "aud": "c7d8e9f0-1a2b-4c3d-8e4f-5a6b7c8d9e0f", "iss": issuer, "iat": int(now), "nbf": int(now),
        "exp": int(now) + 5_200, "aio": "k2RgYPj/", "azp": CLIENT_ID, "azpacr": "1", "oid": OBJECT_ID,
        "rh": "0.AXkA", "roles": ["Tools.Call"], "sub": OBJECT_ID, "tid": TENANT_ID,
        "uti": "kCkyYpxqYEOyWr", "ver": "2.0", **changes,
    }  # fmt: skip


class LocalIssuer:
    """Serves what an issuer serves, on loopback. Use as a context manager.

    Attributes:
        mint: Its keys; `path` is what its issuer has behind the host.
        asked: The paths that were asked for, in order.
        bend: Changes an answer: (path, status, body) → (status, body, headers).
        down: Answers nothing but 503.
        slow_seconds: Waits before each answer.
    """

    mint: Mint

    def __init__(
        self, path: str = "", algorithm: str = "ES256", tls: tuple[Path, Path] | None = None, host: str = ""
    ) -> None:
        self.path, self._algorithm, self._tls = path, algorithm, tls
        self._host = host or "127.0.0.1"
        self.asked: list[str] = []
        self.bend: Callable[[str, int, bytes], tuple[int, bytes, dict[str, str]]] | None = None
        self.down = False
        self.slow_seconds = 0.0
        self._released = threading.Event()

    def __enter__(self) -> LocalIssuer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if self._tls else "http"
        self.base = f"{scheme}://{self._host}:{self._server.server_address[1]}"
        self.mint = Mint(self.base + self.path, self._algorithm)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def keys_url(self) -> str:
        return self.base + "/keys"

    def token(self, **changes: Any) -> str:
        """Sign a good token, valid now."""
        return self.mint.sign(self.mint.claims(time.time(), jti=uuid.uuid4().hex, **changes))

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Answer a request as an issuer does."""
        self.asked.append(path)
        self._released.wait(self.slow_seconds)
        documents: dict[str, object] = {
            f"{self.path.rstrip('/')}/.well-known/openid-configuration": {
                "issuer": self.mint.issuer,
                "jwks_uri": self.keys_url,
                "id_token_signing_alg_values_supported": [self._algorithm],
            },
            "/keys": self.mint.key_set(),
        }
        status = 503 if self.down else 200 if path in documents else 404
        body = json.dumps(documents[path] if status == 200 else {"error": status}).encode()
        return self.bend(path, status, body) if self.bend else (status, body, {})

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body, headers = issuer.answer(self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        return Handler
