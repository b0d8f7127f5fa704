"""How a handler says that a call did not go well."""

from __future__ import annotations

import re
from typing import Literal

from toolcrib.handler.v1 import handler_pb2

Effect = Literal["none", "applied", "unknown"]

_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_MAX_MESSAGE = 1000


class Failure(Exception):
    """A definite end that is no result.

    Args:
        code: Upper-case words for programs, for example "ORDER_UNKNOWN"; up to 64 of [A-Z0-9_].
        message: For the caller; cut at 1,000 characters. Never put a credential into it.
        retryable: Whether the same request may go well later.
        effect: Whether the write happened. "unknown" makes it in doubt: the broker will not guess.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False, effect: Effect = "none") -> None:
        if not _CODE.fullmatch(code):
            raise ValueError(f"code {code!r}: use up to 64 of A-Z, 0-9 and _, for example ORDER_UNKNOWN")
        if effect not in ("none", "applied", "unknown"):
            raise ValueError(f'effect {effect!r}: use "none", "applied" or "unknown"')
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.retryable, self.effect = code, message[:_MAX_MESSAGE], retryable, effect

    def to_message(self) -> handler_pb2.Failure:
        """Make the frame's message."""
        effects = {
            "none": handler_pb2.EFFECT_NONE,
            "applied": handler_pb2.EFFECT_APPLIED,
            "unknown": handler_pb2.EFFECT_UNKNOWN,
        }
        return handler_pb2.Failure(
            code=self.code, message=self.message, retryable=self.retryable, effect=effects[self.effect]
        )
