"""docs/contracts.md names every field of tool.yaml, with the ceilings that the code has."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tools.manifest import (
    CredentialWanted,
    HttpLimits,
    Image,
    Inject,
    Limits,
    Manifest,
    MethodRuntime,
    RuleWanted,
    TargetWanted,
)

PAGE = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text()
SECTION = PAGE.split("\n## tool.yaml\n")[1].split("\n## ")[0]
FORMS = {
    Manifest: ("| `{}` |", "| `{}."),
    Image: ("| `image.{}` |",),
    CredentialWanted: ("| … `{}` |",),
    Inject: ("`{}`",),
    TargetWanted: ("| … `{}` |",),
    RuleWanted: ("`{}`",),
    MethodRuntime: ("| … `{}` |",),
}
"""How a field of each stands there: in a row of its own, or in that of what it is part of."""


def write_row(name: str, field: FieldInfo) -> str:
    """Write the beginning of a ceiling's row."""
    (least,) = [rule.ge for rule in field.metadata if hasattr(rule, "ge")]
    (most,) = [rule.le for rule in field.metadata if hasattr(rule, "le")]
    return f"| `{name}` | {field.default} | {least} | {most} |"


@pytest.mark.parametrize("model", FORMS, ids=lambda model: model.__name__)
def test_names_every_field(model: type[BaseModel]) -> None:
    missing = [
        name for name in model.model_fields if not any(form.format(name) in SECTION for form in FORMS[model])
    ]
    assert missing == []


@pytest.mark.parametrize("model", [Limits, HttpLimits], ids=lambda model: model.__name__)
def test_says_what_each_ceiling_can_be(model: type[BaseModel]) -> None:
    rows = [write_row(name, field) for name, field in model.model_fields.items()]
    assert [row for row in rows if row not in SECTION] == []
