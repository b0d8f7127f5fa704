"""Fixtures of all tests: the real parts, started once and taken away again; and what really ran."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import settings

from tests.parts import REAL_PARTS

pytest_plugins = [
    "tests.parts.engine",
    "tests.parts.bubblewrap",
    "tests.parts.vault",
    "tests.parts.postgres",
    "tests.parts.crib",
    "tests.parts.nginx",
    "tests.parts.sshd",
]

# No example has a time to be done by: a busy machine is no fault of what is tested.
settings.register_profile("any machine", settings.default, deadline=None)
settings.load_profile("any machine")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which real parts the tests ran on."""
    terminalreporter.section("real parts")
    for line in dict.fromkeys(REAL_PARTS):
        terminalreporter.line(line)
    if not REAL_PARTS:
        terminalreporter.line("none: these tests needed no engine, OpenBao or PostgreSQL")
    if list_file := os.environ.get("TOOLCRIB_TESTS_FAILED"):  # for deploy/setup/tests.sh
        reports = [report for kind in ("failed", "error") for report in terminalreporter.getreports(kind)]
        Path(list_file).write_text("".join(f"{report.nodeid}\n" for report in reports))
