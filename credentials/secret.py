"""A value that must not be seen: in no log, no traceback, no repr, no pickle."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """A string whose repr hides it. Only `reveal` gives it out, so that each use can be found by name."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself. Call it where the value is used, and keep no copy."""
        return self._value

    def redacted(self) -> str:
        """Return what may be shown in its place; says whether there is a value, and nothing about it."""
        return "<secret>" if self._value else "<empty>"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return f"Secret({self.redacted()})"

    def __str__(self) -> str:
        return self.redacted()

    def __format__(self, format_spec: str) -> str:
        return format(self.redacted(), format_spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied: pass the object, or reveal() where it is used")
