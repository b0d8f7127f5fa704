"""The programs in the documentation run as they stand there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from deploy.checks.runnable import find_blocks, run_walk
from tests.adapters.crib import ToolScript
from tests.e2e.stack import ROOT

PAGES = {
    "clients": "clients.md",
    "pydantic-ai": "adapters/pydantic-ai.md",
    "langchain": "adapters/langchain.md",
}


@pytest.mark.parametrize("walk", PAGES)
def test_runs_the_programs_of_the_page(walk: str, profile_folder: Path, script: ToolScript, tmp_path: Path):
    environment = {
        "TOOLCRIB_PROFILE": str(profile_folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    blocks = find_blocks((ROOT / "docs" / PAGES[walk]).read_text(), walk)
    printed = run_walk(blocks, tmp_path, environment)
    assert len(printed) == len(blocks) >= 1
