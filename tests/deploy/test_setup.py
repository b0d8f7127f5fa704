"""The set-up scripts: what they leave out, refuse and regenerate."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_bash(script: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **variables}
    command = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


@pytest.mark.parametrize(
    ("named", "expected"),
    [("engine", 0), ("node,engine", 0), ("node, engine", 0), ("", 1), ("engines", 1), ("node", 1)],
)
def test_leaves_out_only_what_is_named(named: str, expected: int) -> None:
    script = ". deploy/setup/messages.sh; is_left_out engine"
    assert run_bash(script, TOOLCRIB_WITHOUT=named).returncode == expected


def test_sets_up_no_engine_when_it_is_left_out() -> None:
    result = run_bash("deploy/setup/engine.sh", TOOLCRIB_WITHOUT="engine")
    assert result.returncode == 0
    assert "no Docker Engine is set up" in result.stdout


def test_leaves_out_runtimes_that_are_missing_here(tmp_path: Path) -> None:
    (tmp_path / "bwrap").touch(mode=0o755)
    for program in ("bash", "dirname", "env"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    script = "deploy/setup/runtimes.sh --without"
    result = run_bash(script, PATH=str(tmp_path), TOOLCRIB_WITHOUT="node")
    assert result.stdout == "node,runsc\n"


def test_leaves_nothing_out_twice() -> None:
    named = "runsc,bubblewrap"
    assert run_bash("deploy/setup/runtimes.sh --without", TOOLCRIB_WITHOUT=named).stdout == f"{named}\n"


def test_says_which_packages_are_missing() -> None:
    script = ". deploy/setup/debian.sh; missing_packages bash no-such-package-at-all"
    expected = "no-such-package-at-all\n" if shutil.which("dpkg-query") else ""
    assert run_bash(script).stdout == expected


def test_says_what_to_install_where_it_may_not_install() -> None:
    script = """
        . deploy/setup/messages.sh; . deploy/setup/debian.sh
        can_install_packages() { return 1; }
        install_packages 'There is no crib' crib
    """
    result = run_bash(script)
    assert result.returncode == 1
    assert result.stderr.startswith("error: There is no crib\n       Install, in your system's way: crib\n")


def test_finds_no_engine_where_none_answers(tmp_path: Path) -> None:
    result = run_bash(f".venv/bin/python -P deploy/setup/ping_engine.py {tmp_path}/none.sock")
    assert (result.returncode, result.stderr) == (1, "")


@pytest.fixture
def left_behind(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    shutil.copytree(ROOT / "deploy" / "setup", tmp_path / "deploy" / "setup")
    path = tmp_path / ".toolcrib" / "run"
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(path)])
    yield process
    process.kill()
    process.wait()


def test_ends_what_a_run_that_was_cut_off_left(left_behind: subprocess.Popen[bytes], tmp_path: Path) -> None:
    result = run_bash("deploy/setup/stop.sh", tmp_path)
    assert result.returncode == 0
    assert left_behind.wait(5) == -signal.SIGTERM


def test_spares_what_ran_before(left_behind: subprocess.Popen[bytes], tmp_path: Path) -> None:
    result = run_bash("deploy/setup/stop.sh $(deploy/setup/stop.sh --list)", tmp_path)
    assert (result.returncode, result.stdout) == (0, "")
    assert left_behind.poll() is None


def test_touches_nothing_of_another_checkout(left_behind: subprocess.Popen[bytes]) -> None:
    listed = run_bash("deploy/setup/stop.sh --list").stdout.split()
    assert str(left_behind.pid) not in listed


def copy_protos(folder: Path) -> Path:
    for name in ("deploy", "proto"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder / "proto" / "toolcrib"


def test_accepts_generated_code_that_is_up_to_date(tmp_path: Path) -> None:
    copy_protos(tmp_path)
    assert run_bash("deploy/checks/generated.sh", tmp_path).returncode == 0


def test_refuses_generated_code_that_was_edited(tmp_path: Path) -> None:
    with (copy_protos(tmp_path) / "v1" / "reasons_pb2.pyi").open("a") as generated:
        generated.write("# by hand\n")
    result = run_bash("deploy/checks/generated.sh", tmp_path)
    assert result.returncode == 1
    assert "Run: make proto" in result.stderr


def test_refuses_generated_code_without_a_proto(tmp_path: Path) -> None:
    folder = copy_protos(tmp_path) / "v1"
    (folder / "gone_pb2.py").touch()
    assert run_bash("deploy/checks/generated.sh", tmp_path).returncode == 1
    assert run_bash("deploy/setup/proto.sh && deploy/checks/generated.sh", tmp_path).returncode == 0
    assert not (folder / "gone_pb2.py").exists()


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def release(folder: Path) -> Path:
    package = copy_protos(folder)
    (folder / "buf.yaml").write_text("version: v2\nmodules: [{path: proto}]\n")
    (folder / ".gitignore").write_text(".venv\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "First release")
    git(folder, "tag", "v0.1.0")
    return package


def test_says_when_there_is_no_release_to_compare_with(tmp_path: Path) -> None:
    release(tmp_path)
    result = run_bash("deploy/checks/breaking.sh", tmp_path, HOME=str(tmp_path))
    assert (result.returncode, result.stdout[:10]) == (0, "no release")


def test_refuses_protos_that_break_the_last_release(tmp_path: Path) -> None:
    proto = release(tmp_path) / "v1" / "broker.proto"
    proto.write_text(proto.read_text().replace("string page_token = 2;", "int32 page_token = 2;"))
    result = run_bash("deploy/checks/breaking.sh", tmp_path, HOME=str(tmp_path))
    assert result.returncode == 1
    assert "the protos break callers of v0.1.0" in result.stderr


def test_accepts_protos_that_only_add(tmp_path: Path) -> None:
    proto = release(tmp_path) / "v1" / "broker.proto"
    proto.write_text(
        proto.read_text().replace("string page_token = 2;", "string page_token = 2;\n  string more = 9;")
    )
    result = run_bash("deploy/checks/breaking.sh", tmp_path, HOME=str(tmp_path))
    assert (result.returncode, result.stdout) == (0, "the protos break no caller of v0.1.0\n")
