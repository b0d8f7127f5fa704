"""Ids of calls and brakes: unique, sortable by time, safe in metadata, labels and file names."""

from __future__ import annotations

import secrets
import time


def make_call_id() -> str:
    """Make an id of 26 characters: "c", 12 hex digits of milliseconds since 1970, 13 of chance."""
    return f"c{time.time_ns() // 1_000_000:012x}{secrets.token_hex(7)[:13]}"


def make_brake_id() -> str:
    """Make an id of 17 characters, which people type: "b", 12 hex digits of milliseconds, 4 of chance."""
    return f"b{time.time_ns() // 1_000_000:012x}{secrets.token_hex(2)}"
