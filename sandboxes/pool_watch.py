"""What a pool tells whoever watches it: for metrics, audit and log. Each call returns at once."""

from __future__ import annotations

import enum
from typing import Protocol

from sandboxes.pool_stock import Kind


class Why(enum.StrEnum):
    """Why a sandbox was ended that no call had."""

    RETIRED = "retired"
    """It was near its idle age."""
    SURPLUS = "surplus"
    """Demand fell, or its memory was needed."""
    NOT_WANTED = "not_wanted"
    """Its version or its grants are not in force any more."""
    EGRESS_LOST = "egress_lost"
    """The egress process that could serve it is gone."""
    DIED = "died"
    """It ended by itself."""
    BUSY = "busy"
    """It used the processor although it had no call."""


class PoolWatch(Protocol):
    """Told what happens."""

    def taken(self, kind: Kind, age_seconds: float | None) -> None:
        """Note that a call got a place: a warm sandbox of some age, or a cold one (None)."""

    def refused(self, kind: Kind) -> None:
        """Note that a call got none."""

    def made(self, kind: Kind, seconds: float, *, warm: bool) -> None:
        """Note that one was made, and for how long it kept a maker busy."""

    def failed(self, kind: Kind, cause: str) -> None:
        """Note that one could not be made, or did not say that it is loaded."""

    def ended(self, kind: Kind, why: Why) -> None:
        """Note that one ended without a call."""

    def flagged(self, kind: Kind, cpu_share: float) -> None:
        """Note that one used this share of a processor although it had no call."""


class Silence:
    """Nobody watches."""

    def taken(self, kind: Kind, age_seconds: float | None) -> None:
        """Ignore it."""

    def refused(self, kind: Kind) -> None:
        """Ignore it."""

    def made(self, kind: Kind, seconds: float, *, warm: bool) -> None:
        """Ignore it."""

    def failed(self, kind: Kind, cause: str) -> None:
        """Ignore it."""

    def ended(self, kind: Kind, why: Why) -> None:
        """Ignore it."""

    def flagged(self, kind: Kind, cpu_share: float) -> None:
        """Ignore it."""
