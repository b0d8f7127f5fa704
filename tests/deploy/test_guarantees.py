"""Each line of the guarantees names tests, and these tests are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/guarantees.md").read_text()
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT)


def test_names_only_tests_that_there_are() -> None:
    missing = [
        f"{file}::{name}"
        for file, name in NAMED
        if f"def {name}("
        not in ((ROOT / "tests" / file).read_text() if (ROOT / "tests" / file).exists() else "")
    ]
    assert missing == []


def test_names_a_test_for_every_promise() -> None:
    promises = re.findall(r"^\| \*\*(.+?)\*\*(.*)$", TEXT, re.MULTILINE)
    assert len(promises) >= 10
    assert [name for name, rest in promises if "::" not in rest] == []
