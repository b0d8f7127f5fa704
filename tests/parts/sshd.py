"""A real OpenSSH server on loopback, with git repositories that certificates reach by their forced command.

It runs as a user id without a line in /etc/passwd (libnss_wrapper gives it the name `git`), with host key,
settings and repositories in a folder of its own. Certificates of `SshdTarget`'s own CA are accepted, and
those of CAs that a test trusts. What a certificate may do is the certificate's matter: the server itself
would give a shell and forward ports.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from credentials import child_process
from credentials.child_process import HOST, Launch, attempts, find_free_port
from credentials.errors import PartUnavailable
from tests.parts import REAL_PARTS, without

ROOT = Path(__file__).parents[2]
SSHD = Path("/usr/sbin/sshd")
WRAPPER = ROOT / "tools" / "bundles" / "git" / "server" / "toolcrib-git-only"
HOOK = WRAPPER.with_name("toolcrib-git-update")
USER = "git"
_UID = 65433

_SETTINGS = """\
Port {port}
ListenAddress {host}
HostKey {folder}/host_key
PidFile none
UsePAM no
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile none
TrustedUserCAKeys {folder}/trusted.pub
AuthorizedPrincipalsFile {folder}/principals
StrictModes no
LogLevel VERBOSE
"""


class SshdTarget:
    """An OpenSSH server in a folder. Use it as a context manager.

    Attributes:
        port: On loopback.
        host_key: For known_hosts: type and key.
        repositories: Folder of the bare repositories; `notes.git` and `other.git` have a branch `main`.
    """

    def __init__(self) -> None:
        self.port = 0
        self.host_key = ""
        # Not pytest's folder: that one is closed to the server's user.
        self._folder = Path(tempfile.mkdtemp(prefix="toolcrib-sshd-"))
        self.repositories = self._folder / "repositories"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SshdTarget:
        try:
            if not SSHD.exists() or not self._find_nss_wrapper():
                raise PartUnavailable("sshd or libnss_wrapper is missing: run deploy/setup/targets.sh")
            self._folder.chmod(0o711)
            self._prepare()
            self._serve()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and remove its folder."""
        if self._process is not None:
            child_process.stop(self._process, signal.SIGTERM)
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def version(self) -> str:
        """Its version, for example "OpenSSH_9.2p1"."""
        with socket.create_connection((HOST, self.port), timeout=5) as connection:
            return connection.recv(256).decode().split("-")[2].split()[0]

    @property
    def log(self) -> str:
        """What it logged so far."""
        return (self._folder / "sshd.log").read_text(errors="replace")

    def trust(self, ca_public_key: str) -> None:
        """Accept certificates of one more CA from now on."""
        with (self._folder / "trusted.pub").open("a") as file:
            file.write(ca_public_key.strip() + "\n")

    def forced_command(self, purpose: str = "push", repository: str = "notes") -> str:
        """The command that a role forces for a repository; purpose is "read" or "push"."""
        return f"{self._folder}/toolcrib-git-only {purpose} {self.repositories}/{repository}.git"

    def certify(self, folder: Path, options: Sequence[str], principal: str = USER) -> Path:
        """Make a key with a certificate of the own CA; its file, with the certificate beside it.

        Args:
            folder: Where both are written.
            options: As ssh-keygen's -O takes them, for example "force-command=…"; "clear" comes first.
            principal: The user name that the certificate is good for.
        """
        key = folder / f"key-{secrets.token_hex(4)}"
        _keygen("-q", "-t", "ed25519", "-N", "", "-f", str(key))
        flags = [flag for option in ["clear", *options] for flag in ("-O", option)]
        _keygen(
            "-q",
            "-s",
            str(self._folder / "ca"),
            "-I",
            "test",
            "-n",
            principal,
            "-V",
            "+5m",
            *flags,
            f"{key}.pub",
        )
        return key

    def ssh_options(self, key: Path) -> list[str]:
        """Arguments for ssh that use a key and its certificate, and nothing of the machine's own settings."""
        known_hosts = key.with_suffix(".known_hosts")
        known_hosts.write_text(f"[{HOST}]:{self.port} {self.host_key}\n")
        settings = {
            "IdentityFile": str(key),
            "CertificateFile": f"{key}-cert.pub",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(known_hosts),
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
        }
        flags = [flag for name, value in settings.items() for flag in ("-o", f"{name}={value}")]
        return ["-F", "none", "-p", str(self.port), *flags]

    def git(self, repository: str, *arguments: str) -> str:
        """Ask git about a repository, as its owner; the output."""
        path = self.repositories / f"{repository}.git"
        command = ["git", "-c", "safe.directory=*", "--git-dir", str(path), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=_git_environment())
        return done.stdout.strip()

    @contextmanager
    def held_answers(self) -> Iterator[Path]:
        """Let pushes to `notes` take effect without an answer; yields a file that is there once one did."""
        hold, held = self.repositories / "hold", self.repositories / "held"
        hook = self.repositories / "notes.git" / "hooks" / "reference-transaction"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(
            "#!/bin/sh\n[ $1 = committed ] || exit 0\n"
            f"touch {held}\nwhile [ -e {hold} ]; do sleep 0.05; done\n"
        )
        hook.chmod(0o755)
        hold.touch()
        try:
            yield held
        finally:
            hold.unlink()
            hook.unlink()

    def reset(self) -> None:
        """Bring the repositories back to their one branch."""
        shutil.rmtree(self.repositories, ignore_errors=True)
        self._make_repositories()

    def _prepare(self) -> None:
        for name in ("host_key", "ca"):
            _keygen("-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self._folder / name))
        self.host_key = " ".join((self._folder / "host_key.pub").read_text().split()[:2])
        shutil.copyfile(self._folder / "ca.pub", self._folder / "trusted.pub")
        for program in (WRAPPER, HOOK):
            shutil.copy(program, self._folder)
        uid = self._uid
        (self._folder / "principals").write_text(f"{USER}\n")
        (self._folder / "passwd").write_text(f"{USER}:x:{uid}:{uid}::{self._folder}:/bin/sh\n")
        (self._folder / "group").write_text(f"{USER}:x:{uid}:\n")
        self._make_repositories()
        self._give("host_key", "passwd", "group")

    def _make_repositories(self) -> None:
        self.repositories.mkdir(mode=0o755)
        for name in ("notes", "other"):
            path = self.repositories / f"{name}.git"
            command = ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)]
            subprocess.run(command, check=True, env=_git_environment())
            shutil.copy(HOOK, path / "hooks" / "update")
            stream = (
                "commit refs/heads/main\ncommitter Ann <ann@example.org> 1700000000 +0000\ndata 5\nfirst\n"
                f"M 100644 inline README.md\ndata {len(name) + 3}\n# {name}\n\n"
                "M 100755 inline bin/run\ndata 10\n#!/bin/sh\n\n"
                "M 120000 inline link\ndata 9\nREADME.md\ndone\n"
            )
            imported = ["git", "--git-dir", str(path), "fast-import", "--quiet", "--done"]
            subprocess.run(imported, input=stream.encode(), check=True, env=_git_environment())
        self._give("repositories")

    def _give(self, *names: str) -> None:
        for name in names if child_process.is_root() else ():
            top = self._folder / name
            for path in (top, *top.rglob("*")):
                os.chown(path, self._uid, self._uid)

    def _serve(self) -> None:
        for _ in range(3):
            self.port = find_free_port()
            if self._try_to_serve():
                return
        raise PartUnavailable(f"sshd did not start: {child_process.read_end(self._folder / 'sshd.log')}")

    def _try_to_serve(self) -> bool:
        settings = self._folder / "sshd_config"
        settings.write_text(_SETTINGS.format(port=self.port, host=HOST, folder=self._folder))
        wrapper = [
            "/usr/bin/env",
            f"LD_PRELOAD={self._find_nss_wrapper()}",
            f"NSS_WRAPPER_PASSWD={self._folder}/passwd",
            f"NSS_WRAPPER_GROUP={self._folder}/group",
        ]
        self._process = child_process.start(
            Launch(
                [*wrapper, str(SSHD), "-D", "-e", "-f", str(settings)],
                self._folder,
                self._folder / "sshd.log",
                death_signal=signal.SIGTERM,
                uid=_UID if child_process.is_root() else None,
            )
        )
        for _ in attempts(10.0):
            if "Server listening" in self.log:
                return True
            if self._process.poll() is not None:
                break
        child_process.stop(self._process, signal.SIGKILL)
        return False

    @property
    def _uid(self) -> int:
        return _UID if child_process.is_root() else os.getuid()

    def _find_nss_wrapper(self) -> str:
        return next((str(path) for path in Path("/usr/lib").glob("*/libnss_wrapper.so")), "")


def _keygen(*arguments: str) -> None:
    subprocess.run(["ssh-keygen", *arguments], check=True, capture_output=True)


def _git_environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}


@pytest.fixture(scope="session")
def running_sshd() -> Iterator[SshdTarget]:
    """One OpenSSH server for the whole run."""
    if without("sshd"):
        pytest.skip("without sshd, as TOOLCRIB_WITHOUT says")
    try:
        with SshdTarget() as server:
            REAL_PARTS.append(server.version)
            yield server
    except PartUnavailable as error:
        pytest.fail(f"no real sshd (name it in TOOLCRIB_WITHOUT to do without): {error}")


@pytest.fixture
def sshd(running_sshd: SshdTarget) -> Iterator[SshdTarget]:
    """The OpenSSH server, its repositories with one branch each, as they are after the test."""
    yield running_sshd
    running_sshd.reset()
