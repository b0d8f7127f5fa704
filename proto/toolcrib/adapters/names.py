"""Names of tools as model APIs take them: 1 to 64 of [A-Za-z0-9_-], and no two tools with the same one.

A tool's author chooses its name. One whose name is another's for the model would get the other's calls, so
a name that could be another tool's shortened one is shortened as well.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

MAX_CHARACTERS = 64
# 64 bits: an author who looks for another tool's hash does not find it.
_HASH_CHARACTERS = 16


def model_names(tools: Iterable[str]) -> dict[str, str]:
    """Give each tool its name for the model; the same set gives the same names, in any order.

    "shop.v1.Orders/LookupOrder" becomes "shop_v1_Orders_LookupOrder". A name that is too long, or that two
    tools would share ("a.b_c/D" and "a_b.c/D"), ends in a hash of the tool instead.
    """
    known = sorted(set(tools))
    plain = {tool: re.sub(r"[^A-Za-z0-9_-]", "_", tool) for tool in known}
    short = {tool: _shorten(tool, name) for tool, name in plain.items()}
    taken = Counter([*plain.values(), *short.values()])
    return {
        tool: name if taken[name] == 1 and len(name) <= MAX_CHARACTERS else short[tool]
        for tool, name in plain.items()
    }


def _shorten(tool: str, name: str) -> str:
    """Keep the end of a name, which says what is done."""
    mark = hashlib.sha256(tool.encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{name[-(MAX_CHARACTERS - _HASH_CHARACTERS - 1) :]}_{mark}"
