"""Stage 4, authorize: the tenant's grants → the `Grant` that allows this call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from broker.grant_book import GrantBook
from broker.model import Call, Grant
from broker.trail import Trail


class Authorizer:
    """Asks the grants in force; default deny."""

    def __init__(self, grants: GrantBook, clock: Callable[[], datetime]) -> None:
        self._grants = grants
        self._clock = clock

    def __call__(self, call: Call, trail: Trail) -> Grant:
        """Find the grant that allows a call.

        Raises:
            Refused: NOT_GRANTED, or POLICY_FAILED where a policy could not be evaluated.
        """
        grant = self._grants.of(call.caller.tenant).authorize(call, self._clock())
        trail.grant = grant
        return grant
