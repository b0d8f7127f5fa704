"""A Toolcrib whose tools reach real targets that want a credential each, which is added on the way out."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from broker.app import Hooks
from broker.dev import DevOptions, DevStack
from credentials.bootstrap.roles import define_role
from credentials.child_process import HOST
from credentials.dev_engines import (
    put_client,
    put_secret,
    read_assertion_keys,
    read_client_authority,
    read_revocation_list,
)
from tests.e2e.stack import ROOT, CribThread
from tests.parts.nginx import NAME, NginxTarget
from tests.parts.token_server import Client, TokenServer
from tests.tools.bundles.door import serve

INJECTION = ROOT / "tests" / "bundles" / "injection"
S3, GITHUB, CRM = (ROOT / "tools" / "bundles" / name for name in ("s3", "github", "crm"))
ISSUER = "https://toolcrib.test"

_TARGETS = """
[targets.forms]
kind = "http"
host = "{host}"
port = {forms_port}
origins = ["https://{name}"]
ca_file = "nginx.pem"

[targets.door]
kind = "http"
host = "{host}"
port = {port}
origins = ["https://{name}:8443"]
ca_file = "nginx.pem"

[targets.api]
kind = "http"
host = "{host}"
port = {api_port}
origins = ["http://api.test"]
"""


class TokenApi(ThreadingHTTPServer):
    """An API whose requests need a token that its authorization server knows; it says what it was sent.

    Attributes:
        tokens: The authorization server.
    """

    daemon_threads = True

    def __init__(self, tokens: TokenServer) -> None:
        super().__init__((HOST, 0), _Echo)
        self.tokens = tokens


class _Echo(BaseHTTPRequestHandler):
    server: TokenApi

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization", "")
        known = self.server.tokens.look_up(authorization.removeprefix("Bearer "))
        sent = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps({"headers": sent, "token": known}).encode()
        self.send_response(200 if known["active"] else 401)
        self.send_header("X-Echo", authorization)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class InjectionStack(DevStack):
    """A DevStack that knows the targets, and whose Vault has what each of them wants.

    Attributes:
        at_start: Done once, when the credentials of a call are minted and before its tool runs.
        wanted: The secret of each form of nginx.
        tokens: The authorization server; the tokens that it will give are known beforehand.
    """

    nginx: NginxTarget
    tokens: TokenServer
    api_port: int
    at_start: Callable[[], None] | None = None

    async def boundary(self, stage: str, _call_id: str) -> None:
        """Do what a test wants done before the next tool runs."""
        act = self.at_start if stage == "start" else None
        if act is not None:
            self.at_start = None
            act()

    def _configure_vault(self) -> None:
        super()._configure_vault()
        self.wanted = {name: secrets.token_urlsafe(24) for name in ("bearer", "basic", "header", "query")}
        put_secret(self.vault, "injection-bearer", {"token": self.wanted["bearer"]})
        put_secret(self.vault, "injection-basic", {"username": "toolcrib", "password": self.wanted["basic"]})
        for name in ("header", "query"):
            put_secret(self.vault, f"injection-{name}", {"api_key": self.wanted[name]})
        basic = ("toolcrib", self.wanted["basic"])
        self.nginx.require_forms(self.wanted["bearer"], basic, self.wanted["header"], self.wanted["query"])
        self._install_clients()
        self.nginx.trust(read_client_authority(self.vault), read_revocation_list(self.vault))

    def _install_clients(self) -> None:
        common = {
            "engine": "oauth2",
            "token_url": self.tokens.token_url,
            "revocation_url": self.tokens.revocation_url,
            "scope": "echo",
        }
        grants = {
            "injection-app": {"grant": "client_credentials"},
            "injection-user": {"grant": "token_exchange", "issuer": ISSUER},
        }
        for role, grant in grants.items():
            secret = secrets.token_urlsafe(24)
            definition = define_role(role, {**common, **grant, "client_id": role})
            put_client(self.vault, role, self.tokens.token_url, secret)
            self.vault.bootstrap(definitions=[definition])
            keys = read_assertion_keys(self.vault, role) if "issuer" in grant else []
            self.tokens.clients[role] = Client(secret, {"keys": keys}, ISSUER, frozenset({"echo"}))

    def _settings_text(self) -> str:
        (self.state_dir / "nginx.pem").write_text(self.nginx.ca_pem)
        ports = {"forms_port": self.nginx.forms_port, "port": self.nginx.port, "api_port": self.api_port}
        return super()._settings_text() + _TARGETS.format(host=HOST, name=NAME, **ports)


class InjectionThread(CribThread):
    """Runs an InjectionStack in a thread."""

    def __init__(
        self, folder: Path, cache_dir: Path, engine_url: str, nginx: NginxTarget, api: TokenApi
    ) -> None:
        bundles = (INJECTION, S3, GITHUB, CRM)
        options = DevOptions(bundles=bundles, tenants=("shop",), engine_url=engine_url)
        super().__init__(folder, cache_dir, options)
        self.stack = self._stack = InjectionStack(folder, cache_dir, options=options)
        self.stack._hooks = Hooks(boundary=self.stack.boundary)
        self.stack.nginx, self.stack.tokens = nginx, api.tokens
        self.stack.api_port = api.server_address[1]


@contextmanager
def open_api() -> Iterator[TokenApi]:
    """Hold an authorization server, and the API that takes its tokens."""
    with TokenServer() as tokens, serve(api := TokenApi(tokens)) as _:
        yield api


def give_known_token(tokens: TokenServer, token: str) -> None:
    """Have the server's next tokens be this one: who looks for it has to know it beforehand."""

    def bend(path: str, status: int, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        said: Any = json.loads(body) if body else {}
        made = said.get("access_token") if isinstance(said, dict) else None
        if made:
            tokens.issued[token] = tokens.issued.pop(made)
            body = json.dumps({**said, "access_token": token}).encode()
        return status, body, {}

    tokens.bend = bend
