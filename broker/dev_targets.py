"""The local targets of the sample bundles: each a server of its own, on loopback, gone when we are gone.

A bundle may say in `dev/targets.toml` what `toolcrib dev` starts for it:

    [targets.files-store]
    kind = "http"
    server = "server.py"              # run as `python3 -P server.py FOLDER`
    settings = { host = "files.example" }

    [secrets.files-login]             # put into Vault's kv engine under this name
    username = "toolcrib"
    password = "?"                    # made anew at each start

The server finds in FOLDER the file `settings.json` (its secrets by name, and the tenants), listens on a free
port of 127.0.0.1, and writes the port's number to FOLDER/port once it answers. SIGTERM ends it.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """

    name: str
    kind: str
    port: int
    settings: Mapping[str, str]
    folder: Path

    def to_toml(self) -> str:
        """Write its section of toolcrib.toml."""
        pairs = ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.settings.items())
        lines = (f'kind = "{self.kind}"', f'host = "{HOST}"', f"port = {self.port}")
        return "\n".join((f"[targets.{self.name}]", *lines, f"settings = {{ {pairs} }}", ""))


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
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start every server and wait until each answers.

        Raises:
            PartUnavailable: One does not start; says which.
        """
        try:
            for bundle in self._bundles:
                file = bundle / "dev" / FILE
                if file.exists():
                    self._start_all(file.parent, tomllib.loads(file.read_text()))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every server and remove what it kept."""
        for process in self._processes:
            child_process.stop(process, signal.SIGTERM)
        self._processes.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start_all(self, place: Path, said: Mapping[str, Any]) -> None:
        made = {name: _make_fields(fields) for name, fields in said.get("secrets", {}).items()}
        self.secrets |= made
        for name, target in said.get("targets", {}).items():
            folder = self._folder / name
            folder.mkdir(parents=True, mode=0o700)
            known = {"secrets": made, "tenants": list(self._tenants)}
            (folder / "settings.json").touch(mode=0o600)
            (folder / "settings.json").write_text(json.dumps(known))
            port = self._start_one(place / target["server"], folder)
            settings = target.get("settings", {})
            self.targets[name] = DevTarget(name, target["kind"], port, settings, folder)

    def _start_one(self, script: Path, folder: Path) -> int:
        command = [sys.executable, "-P", str(script), str(folder)]
        log = folder / "server.log"
        process = child_process.start(Launch(command, folder, log, death_signal=signal.SIGTERM))
        self._processes.append(process)
        for _ in child_process.attempts(_START_SECONDS):
            if (folder / "port").exists():
                return int((folder / "port").read_text())
            if process.poll() is not None:
                break
        raise PartUnavailable(f"{script} did not start: {child_process.read_end(log)}")


def _make_fields(fields: Mapping[str, str]) -> dict[str, str]:
    return {
        name: secrets.token_urlsafe(24) if value == _MADE_ANEW else value for name, value in fields.items()
    }
