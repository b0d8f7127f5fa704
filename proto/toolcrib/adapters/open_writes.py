"""Remembers the keys of writes of which nobody knows yet whether they happened.

A model that is told "in doubt" or "no answer" may ask for the same thing again, and a framework gives
that call an id of its own. With a new key it would be a second write. So the same tool with the same
arguments is asked again with the first key until its outcome is known.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

# About 1 MiB. The oldest go first; their calls are still on record at the broker.
MAX_REMEMBERED = 10_000


class OpenWrites:
    """Keys of open writes, by tool and arguments; used by all threads of a process.

    Two calls for the same may both be open: then both keys are kept, and the older one is asked about first.
    """

    def __init__(self) -> None:
        self._keys: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, write: bytes) -> str:
        """Find the key of an open write; empty: it is not open."""
        with self._lock:
            return self._keys.get(write, ("",))[0]

    def remember(self, write: bytes, key: str) -> None:
        """Note that it is not known whether a write happened."""
        with self._lock:
            known = self._keys.get(write, ())
            self._keys[write] = known if key in known else (*known, key)
            if len(self._keys) > MAX_REMEMBERED:
                self._keys.popitem(last=False)

    def forget(self, write: bytes, key: str) -> None:
        """Note that the outcome under a key is known."""
        with self._lock:
            left = tuple(known for known in self._keys.pop(write, ()) if known != key)
            if left:
                self._keys[write] = left


def name_write(tool: str, environment: str, arguments: Mapping[str, Any]) -> bytes:
    """Name a write by what it does: the order of its arguments does not matter."""
    try:
        sent = json.loads(json.dumps(arguments))  # as it is sent: names that are numbers there become text
        text = json.dumps([tool, environment, sent], sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        text = ""  # such arguments are refused before they are sent
    return hashlib.sha256(text.encode()).digest()
