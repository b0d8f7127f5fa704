"""A Toolcrib with a tool for each secrets engine, and the real targets where their credentials are good."""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broker.app import Hooks
from broker.dev import DevOptions, DevStack
from credentials.bootstrap.roles import define_role
from credentials.child_process import HOST
from credentials.dev_engines import (
    make_static_login,
    put_secret,
    read_client_authority,
    read_revocation_list,
    read_ssh_authority,
)
from tests.e2e.stack import ROOT, CribThread
from tests.parts.nginx import NAME, NginxTarget
from tests.parts.sshd import USER, SshdTarget

GIT = ROOT / "tools" / "bundles" / "git"
ENGINES = ROOT / "tests" / "bundles" / "engines"
REPORTS = "reports"
GREETING = b"EHLO thief\r\n"

_TARGETS = """
[targets.quotes]
kind = "tls"
host = "{host}"
port = {api_port}
settings = {{ name = "{name}", ca_pem = {ca_pem} }}

[targets.portal]
kind = "tls"
host = "{host}"
port = {port}
settings = {{ name = "{name}", ca_pem = {ca_pem} }}

[targets.thief]
kind = "smtp"
host = "{host}"
port = {thief_port}

[targets.notes]
kind = "ssh"
host = "{host}"
port = {ssh_port}
settings = {{ host_key = "{host_key}", repository = "notes.git" }}
"""


class Thief:
    """Keeps every credential that a tool betrays to it."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._kept: list[Mapping[str, Any]] = []
        self._came = threading.Condition()
        threading.Thread(target=self._accept, name="thief", daemon=True).start()

    def take(self) -> Mapping[str, Any]:
        """Wait for the next credential."""
        with self._came:
            assert self._came.wait_for(lambda: self._kept, timeout=10), "nothing was betrayed"
            return self._kept.pop(0)

    def close(self) -> None:
        """Take nothing more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                credential = json.loads(stream.read().removeprefix(GREETING))
            with self._came:
                self._kept.append(credential)
                self._came.notify()


class EngineStack(DevStack):
    """A DevStack that knows the targets, and whose Vault has what an operator lays beneath the engines."""

    nginx: NginxTarget
    sshd: SshdTarget
    thief: Thief

    def read_lists(self) -> None:
        """Do the target's part: fetch CA and list of revoked certificates, and have nginx read them."""
        self.nginx.trust(read_client_authority(self.vault), read_revocation_list(self.vault))

    def _configure_vault(self) -> None:
        make_static_login(self.postgres, REPORTS, ["CONNECT ON DATABASE shop"])
        api_key = secrets.token_urlsafe(24)
        put_secret(self.vault, "engines-api-key", {"api_key": api_key})
        self.nginx.require_api_key(api_key)
        super()._configure_vault()
        self.vault.bootstrap(
            definitions=[
                define_role(
                    f"git-notes-{purpose}",
                    {
                        "engine": "ssh",
                        "principal": USER,
                        "force_command": self.sshd.forced_command(purpose),
                    },
                )
                for purpose in ("read", "push")
            ]
        )
        self.sshd.trust(read_ssh_authority(self.vault))
        self.read_lists()

    def _settings_text(self) -> str:
        self.thief = Thief()
        self._stack.callback(self.thief.close)
        targets = _TARGETS.format(
            host=HOST,
            name=NAME,
            ca_pem=json.dumps(self.nginx.ca_pem),
            port=self.nginx.port,
            api_port=self.nginx.api_port,
            thief_port=self.thief.port,
            ssh_port=self.sshd.port,
            host_key=self.sshd.host_key,
        )
        return super()._settings_text() + targets


class EngineThread(CribThread):
    """Runs an EngineStack in a thread."""

    def __init__(
        self, folder: Path, cache_dir: Path, engine_url: str, nginx: NginxTarget, sshd: SshdTarget
    ) -> None:
        options = DevOptions(bundles=(GIT, ENGINES), tenants=("shop",), engine_url=engine_url)
        super().__init__(folder, cache_dir, options)
        self.stack = self._stack = EngineStack(folder, cache_dir, hooks=Hooks(), options=options)
        self.stack.nginx, self.stack.sshd = nginx, sshd
