"""docs/check.md names every code, as the code does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tools import codes
from tools.codes import CODES, Code

PAGE = Path(__file__).parents[3] / "docs" / "check.md"
TABLES = {
    "The folder": codes.FOLDER_CODES,
    "tool.yaml": codes.MANIFEST_CODES,
    "The descriptor set": codes.SET_CODES,
    "The contract": codes.CONTRACT_CODES,
    "Advice on fields": codes.FIELD_ADVICE,
    "Advice on methods": {**codes.METHOD_ADVICE, **codes.HANDLER_ADVICE},
    "Advice on texts": codes.TEXT_ADVICE,
    "Advice on tool.yaml": codes.MANIFEST_ADVICE,
}


def write_table(title: str, table: Mapping[str, Code]) -> str:
    """Write one table of the page."""
    rows = [f"| `{name}` | {_cell(code.meaning)} | {_cell(code.remedy)} |" for name, code in table.items()]
    return "\n".join([f"## {title}", "", "| code | what is wrong | what to do |", "|---|---|---|", *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


@pytest.mark.parametrize(("title", "table"), TABLES.items(), ids=TABLES.keys())
def test_shows_a_table_as_the_code_has_it(title: str, table: Mapping[str, Code]) -> None:
    assert write_table(title, table) in PAGE.read_text()


def test_shows_every_code_once() -> None:
    shown = [name for table in TABLES.values() for name in table]
    assert sorted(shown) == sorted(CODES)
