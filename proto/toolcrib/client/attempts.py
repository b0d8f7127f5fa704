"""How often and when one logical call is sent: within one deadline, with one key.

The two clients differ in how they wait and not in what they decide: that is here, and knows no channel.
"""

from __future__ import annotations

import math
import random
import secrets
import time
from dataclasses import dataclass

from toolcrib.client.errors import ToolcribError, Unreachable
from toolcrib.client.rules import TRANSPORT, Again, is_open, is_undone, rule_of

DEFAULT_TIMEOUT_SECONDS = 60.0
# A tool that may have run is not run more often than this for one call.
MAX_RUNS = 3

# gRPC takes a deadline beyond its clock's end for one that has passed: every try would end before it begins.
_LONGEST_TRY_SECONDS = 86_400.0
_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 5.0


def make_key() -> str:
    """Make an idempotency key: 32 hex digits of chance."""
    return secrets.token_hex(16)


@dataclass(slots=True)
class Attempts:
    """The tries of one logical call.

    Attributes:
        key: The idempotency key of all of them; empty where none is sent.
        deadline: When the caller stops waiting, on the monotonic clock.
        is_read: Whether the call is known to change nothing.
        longest_seconds: The most that one try may take; the rest of the time where it is None.
    """

    key: str
    deadline: float
    is_read: bool
    longest_seconds: float | None = None
    _made: int = 0
    _runs: int = 0
    _is_open: bool = False

    @classmethod
    def begin(
        cls, key: str, timeout: float | None, *, is_read: bool, longest_seconds: float | None = None
    ) -> Attempts:
        """Begin a call.

        Args:
            key: See `key`.
            timeout: Seconds for all tries and the waiting between them; None: 60.
            is_read: See `is_read`.
            longest_seconds: See `longest_seconds`.

        Raises:
            ValueError: A number of seconds is none that can be waited.
        """
        seconds = DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout
        for number in (seconds, 1.0 if longest_seconds is None else longest_seconds):
            if not (math.isfinite(number) and number > 0):
                raise ValueError(f"a timeout must be more than 0 seconds, and {number!r} is not")
        return cls(key, time.monotonic() + seconds, is_read, longest_seconds)

    @property
    def seconds(self) -> float:
        """What the next try may take: gRPC's deadline for it."""
        left = min(max(self.deadline - time.monotonic(), 0.001), _LONGEST_TRY_SECONDS)
        return left if self.longest_seconds is None else min(left, self.longest_seconds)

    def wait_after(self, error: ToolcribError) -> float | None:
        """Say how many seconds to wait before the next try; None: there is none.

        What the broker asks for is the least; chance is added, so that many clients do not come back at once.
        """
        self._made += 1
        self.note(error)
        if not (self.is_read or self.key) or not self._allows(error):
            return None
        ceiling = min(_FIRST_WAIT_SECONDS * 2.0 ** min(self._made, 16), _LONGEST_WAIT_SECONDS)
        told = error.retry_after_seconds or 0.0
        wait = told + random.uniform(0.2, 1.0) * (min(told, ceiling) / 4 if told else ceiling)  # noqa: S311 - no secret
        return wait if time.monotonic() + wait < self.deadline else None

    def note(self, error: ToolcribError) -> None:
        """Note how a try ended, and tell the error what is known of all of them."""
        self._is_open = is_open(error) or (self._is_open and not is_undone(error))
        self.tell(error)

    def tell(self, error: ToolcribError) -> None:
        """Tell an error of a try that was not sent what is known of those before it."""
        error.key, error.may_have_happened = self.key, self._is_open and not self.is_read

    def _allows(self, error: ToolcribError) -> bool:
        if isinstance(error, Unreachable):
            is_new_run = error.reason == "DEADLINE_EXCEEDED" and not self.key
            return error.reason in TRANSPORT and (not is_new_run or self._may_run_again())
        match rule_of(error.reason).again:
            case Again.ALWAYS:
                return True
            case Again.SAME_KEY:  # without RetryInfo a person has to look: asking again tells nothing
                return bool(self.key) and error.retry_after_seconds is not None
            case Again.READS:
                return self._may_run_again()
            case Again.TOLD:
                return not self.key and error.retry_after_seconds is not None and self._may_run_again()
            case Again.NEVER:
                return False

    def _may_run_again(self) -> bool:
        self._runs += 1
        return self._runs < MAX_RUNS
