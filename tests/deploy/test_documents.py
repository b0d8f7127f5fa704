"""The documentation's examples are true."""

from __future__ import annotations

import re
from pathlib import Path

from broker.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]


def test_reads_the_settings_that_the_documentation_shows(tmp_path: Path) -> None:
    shown = re.search(r"```toml\n(.*?)```", (ROOT / "docs/operating.md").read_text(), re.DOTALL)
    assert shown is not None
    (tmp_path / "toolcrib.toml").write_text(shown[1])
    settings = read_settings(tmp_path / "toolcrib.toml")
    assert settings.environments == ("prod", "staging")
    assert settings.state.path == tmp_path / "state.db"


def test_names_every_reason_on_the_way_of_a_call() -> None:
    reasons = set(re.findall(r"REASON_(\w+) = [1-9]", (ROOT / "proto/toolcrib/v1/reasons.proto").read_text()))
    named = set(re.findall(r"`([A-Z_]+)`", (ROOT / "docs/path.md").read_text()))
    elsewhere = {"CALL_UNKNOWN", "BRAKE_UNKNOWN", "PAGE_TOKEN_INVALID", "GRANTS_INVALID", "PLAN_STALE"}
    elsewhere |= {"BUNDLE_INVALID", "VERSION_EXISTS", "BREAKING_CHANGE", "SELF_REVIEW"}
    assert reasons - named == elsewhere
