"""What else a stolen git certificate could be good for: a shell, a tunnel, other repositories and branches.

The control is a certificate of the same CA without the role's restrictions: the server itself stops nothing.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from credentials.child_process import HOST, attempts, find_free_port
from tests.parts.sshd import USER, SshdTarget

pytestmark = pytest.mark.sshd

UNRESTRICTED = ["permit-pty", "permit-port-forwarding"]


@pytest.fixture
def narrow(sshd: SshdTarget, tmp_path: Path) -> Path:
    """A certificate as the role `git-notes-push` makes it."""
    return sshd.certify(tmp_path, [f"force-command={sshd.forced_command()}"])


@pytest.fixture
def wide(sshd: SshdTarget, tmp_path: Path) -> Path:
    """A certificate without restrictions."""
    return sshd.certify(tmp_path, UNRESTRICTED)


def ssh(sshd: SshdTarget, key: Path, *command: str) -> subprocess.CompletedProcess[str]:
    full = ["ssh", *sshd.ssh_options(key), f"{USER}@{HOST}", *command]
    return subprocess.run(
        full, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, check=False
    )


def git(sshd: SshdTarget, key: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(cwd),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_SSH_COMMAND": " ".join(["ssh", *sshd.ssh_options(key)]),
    }
    return subprocess.run(
        ["git", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def url(repository: str) -> str:
    return f"ssh://{USER}@{HOST}/{repository}.git"


# --- a shell ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", ["echo reached", "git-receive-pack '/notes.git'; echo reached", ""])
def test_gets_no_shell(sshd: SshdTarget, narrow: Path, command: str):
    done = ssh(sshd, narrow, command)
    assert done.returncode == 1
    assert "reached" not in done.stdout
    assert done.stderr == "This certificate is for push of /notes.git only.\n"


def test_control_an_unrestricted_certificate_gets_a_shell(sshd: SshdTarget, wide: Path):
    assert ssh(sshd, wide, "echo reached").stdout == "reached\n"


# --- a tunnel --------------------------------------------------------------------------------------------
@contextmanager
def tunnel(sshd: SshdTarget, key: Path, target_port: int) -> Iterator[int]:
    port = find_free_port()
    forward = ["-N", "-L", f"{HOST}:{port}:{HOST}:{target_port}"]
    process = subprocess.Popen(
        ["ssh", *forward, *sshd.ssh_options(key), f"{USER}@{HOST}"], stderr=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def ask_through(port: int) -> bytes:
    for _ in attempts(10.0):
        try:
            with socket.create_connection((HOST, port), timeout=5) as connection:
                return connection.recv(8)
        except ConnectionError:
            continue
    pytest.fail("the tunnel's own end never listened")


def test_forwards_no_port(sshd: SshdTarget, narrow: Path):
    with tunnel(sshd, narrow, sshd.port) as port:
        assert ask_through(port) == b""


def test_control_an_unrestricted_certificate_forwards_ports(sshd: SshdTarget, wide: Path):
    with tunnel(sshd, wide, sshd.port) as port:
        assert ask_through(port) == b"SSH-2.0-"


# --- another repository, and other refs of its own ---------------------------------------------------------
def test_reaches_no_other_repository(sshd: SshdTarget, narrow: Path, tmp_path: Path):
    for repository in ("other", "../repositories/other", "notes.git/../other"):
        assert git(sshd, narrow, "ls-remote", url(repository), cwd=tmp_path).returncode != 0
    assert git(sshd, narrow, "ls-remote", url("notes"), cwd=tmp_path).returncode == 0


def test_control_an_unrestricted_certificate_reaches_every_repository(
    sshd: SshdTarget, wide: Path, tmp_path: Path
):
    address = f"ssh://{USER}@{HOST}{sshd.repositories}/other.git"
    assert "refs/heads/main" in git(sshd, wide, "ls-remote", address, cwd=tmp_path).stdout


def push(sshd: SshdTarget, key: Path, tmp_path: Path, address: str, refspec: str) -> int:
    clone = tmp_path / "clone"
    assert git(sshd, key, "clone", "--quiet", address, str(clone), cwd=tmp_path).returncode == 0
    who = ["-c", "user.name=x", "-c", "user.email=x@x.invalid"]
    git(sshd, key, *who, "commit", "--allow-empty", "-m", "mine", cwd=clone)
    return git(sshd, key, "push", address, refspec, cwd=clone).returncode


@pytest.mark.parametrize(
    "refspec",
    [
        "HEAD:refs/heads/main",
        ":refs/heads/main",
        "HEAD:refs/tags/v1",
        "HEAD:refs/heads/agentsx",
        "HEAD:refs/heads/agents",  # nothing could lie below it any more
        "HEAD:refs/toolcrib/keys",
    ],
)
def test_changes_nothing_but_branches_of_agents(sshd: SshdTarget, narrow: Path, tmp_path: Path, refspec: str):
    before = sshd.git("notes", "for-each-ref")
    assert push(sshd, narrow, tmp_path, url("notes"), refspec) != 0
    assert sshd.git("notes", "for-each-ref") == before


def test_adds_a_branch_of_agents(sshd: SshdTarget, narrow: Path, tmp_path: Path):
    assert push(sshd, narrow, tmp_path, url("notes"), "HEAD:refs/heads/agents/mine") == 0
    assert sshd.git("notes", "log", "-1", "--format=%s", "agents/mine") == "mine"


def push_more(sshd: SshdTarget, key: Path, tmp_path: Path, address: str, refspec: str) -> int:
    """Add a commit to what `push` pushed, and push again."""
    who = ["-c", "user.name=x", "-c", "user.email=x@x.invalid"]
    git(sshd, key, *who, "commit", "--allow-empty", "-m", "more", cwd=tmp_path / "clone")
    return git(sshd, key, "push", address, refspec, cwd=tmp_path / "clone").returncode


@pytest.mark.parametrize("ref", ["refs/heads/agents/reviewed", "refs/toolcrib/keys/k1"])
def test_adds_no_commit_to_what_is_there(sshd: SshdTarget, narrow: Path, tmp_path: Path, ref: str):
    """People look at a branch and merge it later; a key says what was pushed under it."""
    assert push(sshd, narrow, tmp_path, url("notes"), f"HEAD:{ref}") == 0
    assert push_more(sshd, narrow, tmp_path, url("notes"), f"HEAD:{ref}") != 0
    assert sshd.git("notes", "log", "-1", "--format=%s", ref) == "mine"


def test_control_an_unrestricted_certificate_adds_a_commit(sshd: SshdTarget, wide: Path, tmp_path: Path):
    address = f"ssh://{USER}@{HOST}{sshd.repositories}/notes.git"
    assert push(sshd, wide, tmp_path, address, "HEAD:refs/heads/agents/reviewed") == 0
    assert push_more(sshd, wide, tmp_path, address, "HEAD:refs/heads/agents/reviewed") == 0


@pytest.mark.parametrize("hook", [None, "#!/bin/sh\nexit 0\n"])
def test_pushes_to_no_repository_without_the_hook(
    sshd: SshdTarget, narrow: Path, tmp_path: Path, hook: str | None
):
    place = sshd.repositories / "notes.git" / "hooks" / "update"
    place.unlink()
    if hook is not None:
        place.write_text(hook)
        place.chmod(0o755)
    assert push(sshd, narrow, tmp_path, url("notes"), "HEAD:refs/heads/agents/mine") != 0
    assert "agents" not in sshd.git("notes", "for-each-ref")


def test_runs_a_hook_of_the_operators_too(sshd: SshdTarget, narrow: Path, tmp_path: Path):
    local = sshd.repositories / "notes.git" / "hooks" / "update.local"
    local.write_text('#!/bin/sh\ntest "$1" = refs/heads/agents/fine\n')
    local.chmod(0o755)
    assert push(sshd, narrow, tmp_path, url("notes"), "HEAD:refs/heads/agents/bad") != 0
    assert (
        git(
            sshd, narrow, "push", url("notes"), "HEAD:refs/heads/agents/fine", cwd=tmp_path / "clone"
        ).returncode
        == 0
    )


def test_control_an_unrestricted_certificate_changes_main(sshd: SshdTarget, wide: Path, tmp_path: Path):
    address = f"ssh://{USER}@{HOST}{sshd.repositories}/notes.git"
    assert push(sshd, wide, tmp_path, address, "HEAD:refs/heads/main") == 0
    assert sshd.git("notes", "log", "-1", "--format=%s", "main") == "mine"


def test_reads_only_with_a_certificate_for_reading(sshd: SshdTarget, tmp_path: Path):
    key = sshd.certify(tmp_path, [f"force-command={sshd.forced_command('read')}"])
    assert push(sshd, key, tmp_path, url("notes"), "HEAD:refs/heads/agents/mine") != 0
    assert sshd.git("notes", "for-each-ref", "--format=%(refname)") == "refs/heads/main"
