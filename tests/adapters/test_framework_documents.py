"""The programs on the pages of these adapters run as they stand there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from deploy.checks.runnable import find_blocks, run_walk
from tests.adapters.crib import ToolScript
from tests.e2e.stack import ROOT


@pytest.mark.parametrize("page", ["openai-agents", "google-adk"])
def test_runs_the_program_of_the_page(page: str, profile_folder: Path, script: ToolScript, tmp_path: Path):
    environment = {
        "TOOLCRIB_PROFILE": str(profile_folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    blocks = find_blocks((ROOT / "docs" / "adapters" / f"{page}.md").read_text(), page)
    assert len(run_walk(blocks, tmp_path, environment)) == len(blocks) == 1
    assert script.runs
