"""Keeps the garbage collector out of the way of calls.

What is there when a broker has started stays until it ends: modules, contracts, compiled rules, grants. A
full collection looks at all of it, for tens of milliseconds, in the middle of somebody's call. So it is set
aside; what calls leave behind is collected still, the young of it more rarely: nearly all of it is freed by
its reference counts.
"""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 10_000
"""So many more containers are made than freed before the young ones are looked at; Python's own is 700."""


def settle_heap() -> None:
    """Set aside what is there now, once, when everything has started."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
