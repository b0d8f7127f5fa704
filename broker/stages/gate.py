"""Stage 5, gate: where a call would reach, against what grant and tenant trust.

First form: a value in a field with the role `destination` must be named by the grant or by the tenant's
registry of known destinations. What is not becomes a concern, which only an approval could lift.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.grant_book import GrantBook
from broker.model import Call, Grant


@dataclass(frozen=True, slots=True)
class Concern:
    """Why a person has to look: the field and, in words, the cause. Never the field's value."""

    field: str
    cause: str


class Gate:
    """Looks at destinations, whatever the effect of the call."""

    def __init__(self, grants: GrantBook) -> None:
        self._grants = grants

    def __call__(self, call: Call, grant: Grant) -> tuple[Concern, ...]:
        """List what needs a person's approval; empty when nothing does."""
        known = grant.destinations | self._grants.of(call.caller.tenant).destinations(call.environment)
        return tuple(
            Concern(destination.field, "the destination is named neither by the grant nor by the registry")
            for destination in call.contract.destinations(call.message)
            if destination.value not in known
        )
