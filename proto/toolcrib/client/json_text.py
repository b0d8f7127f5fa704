"""Reads a broker's JSON: what is given to a program or a model afterwards can be written as JSON again.

Refused is what JSON readers disagree about or fall over: NaN and numbers beyond a float, half characters
(a lone surrogate: no UTF-8 can hold it), and more levels than any message of protobuf has.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

# A message has 100 levels at most; a repeated field or a map adds one to each of them.
MAX_LEVELS = 256

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_object(text: str) -> dict[str, Any] | None:
    """Read a JSON object; None: the text is none."""
    try:
        found = json.loads(text, parse_float=_read_float, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _can_be_written(found, text) else None


def _can_be_written(found: dict[str, Any], text: str) -> bool:
    if text.count("{") + text.count("[") > MAX_LEVELS and not _is_flat(found):
        return False
    try:
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()
    except ValueError:
        return False
    return True


def _is_flat(found: Any) -> bool:
    """Count levels without recursion."""
    level = [found]
    for _ in range(MAX_LEVELS):
        level = [inner for outer in level for inner in _inner(outer) if isinstance(inner, dict | list)]
        if not level:
            return True
    return False


def _inner(outer: Any) -> Any:
    return outer.values() if isinstance(outer, dict) else outer


def _read_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is no number of JSON")
