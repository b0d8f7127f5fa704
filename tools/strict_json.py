"""JSON that has one reading only: no name twice in an object, no NaN, no Infinity."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def load_strict(text: str) -> Any:
    """Read a JSON text.

    Raises:
        ValueError: It is none, or can be read in two ways.
        RecursionError: It is nested too deep.
    """
    return json.loads(text, object_pairs_hook=_build_object, parse_constant=_refuse_constant)


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return built


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
