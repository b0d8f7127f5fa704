"""The ten minutes of the README, run as they stand there, against a `toolcrib dev` of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.checks.runnable import find_blocks, run_walk
from sandboxes.engine import Engine
from tests.e2e.stack import ROOT
from tests.e2e.test_dev import Dev
from tests.parts import without
from tests.parts.crib import CACHE_DIR

DOCUMENT = ROOT / "README.md"


@pytest.fixture
def clone(tmp_path: Path, engine: Engine) -> Iterator[Path]:
    """A folder that looks like a clone after `make setup`, in which `toolcrib dev` runs."""
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / ".toolcrib").mkdir()
    (tmp_path / ".toolcrib" / "cache").symlink_to(CACHE_DIR)
    dev = Dev(tmp_path / ".toolcrib", "--engine", engine.base_url)
    try:
        dev.wait_for("Ctrl-C")
        (tmp_path / ".toolcrib" / "dev").symlink_to(dev.state_dir)
        yield tmp_path
    finally:
        if dev.process.poll() is None:
            dev.end()


def test_a_new_tool_answers_python_and_node(clone: Path, tmp_path_factory: pytest.TempPathFactory):
    blocks = find_blocks(DOCUMENT.read_text(), "ten-minutes")
    environment = {
        "TMPDIR": str(tmp_path_factory.mktemp("walk")),
        "npm_config_cache": str(CACHE_DIR / "npm"),
        "npm_config_prefer_offline": "true",
    }
    left_out = {"node"} if without("node") else set()
    printed = run_walk(blocks, clone, environment, left_out)
    assert len(printed) == len(blocks) - len(left_out)
