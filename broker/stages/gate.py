"""Stage 5, gate: where a call would reach, against what grant, tenant and trusted results name.

    the destination's value is …             workflow holds nothing untrusted   holds something untrusted
    in the grant or the tenant's registry    passes                             passes
    from a trusted result of this workflow   passes                             passes
    from nowhere, in a READ                  passes: the grant decides          refused
    from nowhere, in a DRAFT or a WRITE      a concern: a person has to agree   refused

Rules:
1. No detector decides: what strangers may have written counts as a whole, from the moment that a call which
   may bring it was reserved.
2. Every value of every destination field counts; an empty one reaches nothing.
3. What is refused or of concern is named by its field, never by its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker.errors import Refused
from broker.grant_book import GrantBook
from broker.model import Call, Grant
from broker.workflows import WorkflowBook, name_of
from toolcrib.v1.reasons_pb2 import Reason
from tools.contract import Destination
from tools.errors import Violation


@dataclass(frozen=True, slots=True)
class Concern:
    """Why a person has to look: the field and, in words, the cause. Never the field's value."""

    field: str
    cause: str


class Gate:
    """Looks at destinations, whatever the effect of the call."""

    def __init__(self, grants: GrantBook, workflows: WorkflowBook) -> None:
        self._grants = grants
        self._workflows = workflows

    def __call__(self, call: Call, grant: Grant) -> tuple[Concern, ...]:
        """List what needs a person's approval; empty when nothing does.

        Raises:
            Refused: DESTINATION_UNTRUSTED, with every such field.
        """
        unknown = self._find_unknown(call, grant)
        if not unknown:
            return ()
        if self._workflows.holds_untrusted(name_of(call)):
            raise _untrusted(call, unknown)
        if not call.is_write:
            return ()
        cause = "the destination is named neither by the grant nor by the registry nor by a trusted result"
        return tuple(Concern(destination.field, cause) for destination in unknown)

    def _find_unknown(self, call: Call, grant: Grant) -> Sequence[Destination]:
        """Find the destinations that nothing trusted names."""
        found = call.contract.destinations(call.message)
        if not found:
            return ()
        registry = self._grants.of(call.caller.tenant).destinations(call.environment)
        name = name_of(call)
        return [
            destination
            for destination in found
            if destination.value not in grant.destinations
            and destination.value not in registry
            and not self._workflows.trusts(name, destination.value)
        ]


def _untrusted(call: Call, unknown: Sequence[Destination]) -> Refused:
    where = (
        "this workflow holds" if call.workflow else "without a workflow, all that you read counts: you hold"
    )
    cause = (
        "names a destination that neither the grant, nor the tenant's registry, nor a trusted result names"
    )
    fields = ", ".join(dict.fromkeys(destination.field for destination in unknown))
    return Refused(
        Reason.REASON_DESTINATION_UNTRUSTED,
        f"{where} content that strangers may have written, so {fields} must be known. Nothing ran, and "
        "trying again changes nothing: a reviewer can add the destination to destinations.toml, or your "
        "orchestrator can open a new workflow",
        violations=[Violation(destination.field, cause) for destination in unknown],
    )
