"""The local targets of the sample bundles: each a server of its own, on loopback, gone when we are gone.

A bundle may say in `dev/targets.toml` what `toolcrib dev` starts for it:

    [targets.files-store]
    kind = "http"
    server = "server.py"              # run as `python3 -P server.py FOLDER`
    origins = ["https://files.example"]    # of kind "http": what URLs begin with, if not http://HOST:PORT
    settings = { host = "files.example" }
    jwks = ["files"]                  # roles of oauth2 whose public keys it gets, as FOLDER/jwks.json

    [secrets.files-login]             # put into Vault's kv engine under this name
    username = "toolcrib"
    password = "?"                    # made anew at each start
    url = "http://{files-store}/"     # the address of a target; in dev/roles.toml as well

The server finds in FOLDER the file `settings.json` (its secrets by name, without addresses, and the tenants),
listens on a free port of 127.0.0.1, and writes the port's number to FOLDER/port once it answers. SIGTERM ends
it. Where the origins are https, `server.pem` is there too: a certificate for their hosts with its key, of a
CA of its own. All servers start at once; then each is waited for.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from broker.dev_certificates import CA_FILE, write_certificates
from credentials import child_process
from credentials.child_process import HOST, Launch
from credentials.errors import PartUnavailable

FILE = "targets.toml"
_START_SECONDS = 20.0
_MADE_ANEW = "?"


@dataclass(frozen=True, slots=True)
class DevTarget:
    """A target that runs.

    Attributes:
        name: The operator's name for it.
        kind: As in toolcrib.toml.
        port: On loopback.
        settings: What handlers may know.
        folder: Where it keeps what it was given.
        origins: What tools' URLs begin with; empty: the broker's default.
        jwks: Roles whose public keys it gets.
    """

    name: str
    kind: str
    port: int
    settings: Mapping[str, str]
    folder: Path
    origins: Sequence[str] = ()
    jwks: Sequence[str] = ()

    @property
    def is_tls(self) -> bool:
        """Whether it speaks TLS."""
        return any(origin.startswith("https://") for origin in self.origins)

    def to_toml(self) -> str:
        """Write its section of toolcrib.toml."""
        pairs = ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.settings.items())
        lines = [f'kind = "{self.kind}"', f'host = "{HOST}"', f"port = {self.port}"]
        if self.origins:
            lines.append(f"origins = {json.dumps(list(self.origins))}")
        if self.is_tls:
            lines.append(f"ca_file = {json.dumps(str(self.folder / CA_FILE))}")
        return "\n".join((f"[targets.{self.name}]", *lines, f"settings = {{ {pairs} }}", ""))


@dataclass(frozen=True, slots=True)
class _Started:
    """A server on its way."""

    target: DevTarget
    process: subprocess.Popen[bytes]


class DevTargets:
    """The targets of some bundles, from `start` to `stop`.

    Attributes:
        targets: Those that run, by name.
        secrets: What is to be put into Vault: fields by the secret's name.
    """

    def __init__(self, folder: Path, bundles: Sequence[Path], tenants: Sequence[str]) -> None:
        self.targets: dict[str, DevTarget] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self._folder, self._bundles, self._tenants = folder, bundles, tenants
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start every server and wait until each answers.

        Raises:
            PartUnavailable: One does not start; says which.
        """
        files = [bundle / "dev" / FILE for bundle in self._bundles]
        known = {file.parent: tomllib.loads(file.read_text()) for file in files if file.exists()}
        try:
            started = [one for place, said in known.items() for one in self._start_all(place, said)]
            for one in started:
                self.targets[one.target.name] = self._wait_for(one)
        except BaseException:
            self.stop()
            raise
        for name, fields in self.secrets.items():
            self.secrets[name] = {field: self.resolve(value) for field, value in fields.items()}

    def find_process(self, name: str) -> int:
        """Return the process id of a target's server."""
        return self._processes[name].pid

    def resolve(self, text: str) -> str:
        """Write the address of each target where its name stands in braces: it is known only now."""
        for name, target in self.targets.items():
            text = text.replace(f"{{{name}}}", f"{HOST}:{target.port}")
        return text

    def stop(self) -> None:
        """End every server and remove what it kept."""
        for process in self._processes.values():
            child_process.stop(process, signal.SIGTERM)
        self._processes.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start_all(self, place: Path, said: Mapping[str, Any]) -> Iterator[_Started]:
        made = {name: _make_fields(fields) for name, fields in said.get("secrets", {}).items()}
        self.secrets |= made
        for name, target in said.get("targets", {}).items():
            folder = self._folder / name
            folder.mkdir(parents=True, mode=0o700)
            known = {"secrets": made, "tenants": list(self._tenants)}
            (folder / "settings.json").touch(mode=0o600)
            (folder / "settings.json").write_text(json.dumps(known))
            origins = tuple(target.get("origins", ()))
            hosts = [str(urlsplit(origin).hostname) for origin in origins if origin.startswith("https://")]
            if hosts:
                write_certificates(folder, hosts)
            command = [sys.executable, "-P", str(place / target["server"]), str(folder)]
            log = folder / "server.log"
            process = child_process.start(Launch(command, folder, log, death_signal=signal.SIGTERM))
            self._processes[name] = process
            settings, jwks = target.get("settings", {}), target.get("jwks", ())
            yield _Started(DevTarget(name, target["kind"], 0, settings, folder, origins, jwks), process)

    def _wait_for(self, started: _Started) -> DevTarget:
        folder = started.target.folder
        for _ in child_process.attempts(_START_SECONDS):
            if (folder / "port").exists():
                return replace(started.target, port=int((folder / "port").read_text()))
            if started.process.poll() is not None:
                break
        end = child_process.read_end(folder / "server.log")
        raise PartUnavailable(f"the server of {started.target.name} did not start: {end}")


def _make_fields(fields: Mapping[str, str]) -> dict[str, str]:
    return {
        name: secrets.token_urlsafe(24) if value == _MADE_ANEW else value for name, value in fields.items()
    }
