"""The repository's own checks see what they are there for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Tree:
    """A copy of the checks and of what they read, to be broken."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("deploy/checks", "requirements"):
            shutil.copytree(ROOT / name, root / name)
        for name in ("pyproject.toml", ".gitignore"):
            shutil.copy(ROOT / name, root / name)

    def check(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", str(self.root / "deploy" / "checks" / f"{name}.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.root)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize("name", ["locks", "hosts", "docs"])
def test_passes_the_tree_as_it_is(tree: Tree, name: str) -> None:
    assert tree.check(name).returncode == 0


def test_refuses_a_lock_that_names_an_index(tree: Tree) -> None:
    tree.edit("requirements/image.txt", "asyncpg", "--index-url https://packages.example\nasyncpg")
    result = tree.check("locks")
    assert result.returncode == 1
    assert "requirements/image.txt: not a pinned and hashed package: --index-url" in result.stderr


def test_refuses_a_pin_without_a_hash(tree: Tree) -> None:
    (tree.root / "requirements/bootstrap.txt").write_text("uv==0.13.8\n")
    assert "not a pinned and hashed package: uv==0.13.8" in tree.check("locks").stderr


def test_refuses_a_lock_that_lacks_what_is_wanted(tree: Tree) -> None:
    with (tree.root / "requirements/image.in").open("a") as wanted:
        wanted.write("left-pad\n")
    assert "image.txt: left-pad is wanted, nothing is locked" in tree.check("locks").stderr


def test_refuses_a_dependency_that_nobody_locks(tree: Tree) -> None:
    tree.edit("pyproject.toml", '"asyncpg",', '"asyncpg",\n  "left-pad",')
    assert "left-pad is needed but not in requirements/broker.in" in tree.check("locks").stderr


def test_refuses_a_version_that_was_not_tested(tree: Tree) -> None:
    tree.edit("requirements/broker.txt", "hvac==2", "hvac==1")
    assert "hvac is 1" in tree.check("locks").stderr


def test_finds_a_registry_that_is_named(tree: Tree) -> None:
    host = ".".join(("files", "pythonhosted", "org"))
    (tree.root / "notes.md").write_text(f"fetch it from\nhttps://{host}/x.whl\n")
    assert "notes.md:2: pythonhosted" in tree.check("hosts").stderr


def test_takes_a_package_of_debian_for_no_registry(tree: Tree) -> None:
    (tree.root / "notes.md").write_text("apt-get install docker.io containerd\n")
    assert tree.check("hosts").returncode == 0


def test_finds_a_link_that_leads_nowhere(tree: Tree) -> None:
    (tree.root / "README.md").write_text("See [the way](docs/gone.md#stages).")
    assert "README.md: the link to docs/gone.md leads nowhere" in tree.check("docs").stderr


def give_commands(tree: Tree, *commands: str) -> None:
    python = tree.root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    lines = "\\n".join(("", *commands))
    python.write_text(f"#!/bin/sh\nprintf '{lines}\\n'\n")
    python.chmod(0o755)


def test_finds_a_command_that_there_is_not(tree: Tree) -> None:
    give_commands(tree, "dev", "calls", "calls list")
    (tree.root / "README.md").write_text(
        "Use `toolcrib dev`, then `toolcrib calls lost --all`:\n\n    toolcrib stop\n"
    )
    errors = tree.check("docs").stderr.splitlines()
    assert errors == [
        "error: README.md: there is no command `toolcrib calls lost`",
        "error: README.md: there is no command `toolcrib stop`",
    ]


def test_knows_a_command_by_its_first_words(tree: Tree) -> None:
    give_commands(tree, "dev", "calls", "calls list")
    (tree.root / "README.md").write_text("`toolcrib calls list STATE`, `toolcrib dev`, `toolcrib.toml`\n")
    assert tree.check("docs").returncode == 0


def give_program(tree: Tree, text: str) -> None:
    program = tree.root / ".venv" / "bin" / "toolcrib"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\nprintf '{text}\\n'\n")
    program.chmod(0o755)


def test_finds_a_help_text_that_is_out_of_date(tree: Tree) -> None:
    give_program(tree, "Usage: new")
    (tree.root / "README.md").write_text("<!-- help: toolcrib -->\n```\nUsage: old\n```\n")
    assert "README.md: a help text is out of date" in tree.check("docs").stderr


def test_brings_a_help_text_up_to_date(tree: Tree) -> None:
    give_program(tree, "Usage: new")
    readme = tree.root / "README.md"
    readme.write_text("<!-- help: toolcrib -->\n```\nUsage: old\n```\nThe end.\n")
    assert tree.check("docs", "--write").returncode == 0
    assert readme.read_text() == "<!-- help: toolcrib -->\n```\nUsage: new\n```\nThe end.\n"
    assert tree.check("docs").returncode == 0
