"""What a starting broker does about the calls that an earlier one did not end.

RESERVED              nothing ran: FAILED, key and budgets given back
DISPATCHED, a read    FAILED. One without a key may have been answered: its end is written behind its answer
DISPATCHED, a write   IN_DOUBT: it may have happened, and it is never run again on a guess (resolution.py)
DISPATCHED, sent again by a resolution: FAILED; the call that it was about is still in doubt, by itself

What a brake in force holds back ran when it was set, and the broker ended before it had stopped it: it is
marked as stopped, so that it is not sent again when the brake is lifted.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

from broker.brakes import Brakes
from broker.model import CallRecord, CallState, Mark
from broker.stages.reserve import UNKNOWN_OUTCOME
from broker.store.protocol import Store
from broker.store.records import AuditEvent
from sandboxes.egress.records import lost_record
from toolcrib.v1.reasons_pb2 import Reason
from tools.contract import Effect

log = logging.getLogger(__name__)

LOST_CONNECTIONS = "the broker ended while the call ran: what its tool had reached by then is not known"


async def adopt_unfinished(store: Store, brakes: Brakes) -> list[CallRecord]:
    """End every call of an earlier epoch; returns them as they are now.

    Args:
        store: Has the calls.
        brakes: Those in force, loaded.
    """
    adopted = []
    for call in await store.unfinished():
        ended = _end(call)
        if brakes.holds_back(call):
            ended = replace(ended, marks=(*ended.marks, Mark.STOPPED))
        event = AuditEvent(
            "call.adopted",
            call.tenant,
            call.environment,
            datetime.now(UTC),
            call.call_id,
            details={
                "was": call.state.value,
                "is": ended.state.value,
                "epoch": call.epoch,
                "leases": [lease.facts() for lease in call.leases],
            },
        )
        await store.adopt(ended, event)
        log.warning("adopted", extra={"call_id": call.call_id, "outcome": ended.state.value})
        adopted.append(ended)
    return adopted


def _end(call: CallRecord) -> CallRecord:
    now = datetime.now(UTC)
    ended = replace(call, ended=now)
    if call.state is CallState.DISPATCHED:
        # What a call connected to is written with its end, and this one's was not.
        ended = replace(ended, connections=(lost_record(now, LOST_CONNECTIONS),))
    # Only what a resolution sent again is a write without a key of its own.
    if call.state is CallState.DISPATCHED and call.effect is not Effect.READ and call.key:
        return replace(
            ended,
            state=CallState.IN_DOUBT,
            reason=Reason.REASON_IN_DOUBT,
            message=f"the broker ended while the tool ran: {UNKNOWN_OUTCOME}",
        )
    message = "the broker ended before the call did; ask again"
    if call.state is CallState.DISPATCHED and call.effect is Effect.READ and not call.key:
        message = "the broker ended before the end of the call was on record: it may have been answered"
    return replace(ended, state=CallState.FAILED, reason=Reason.REASON_SANDBOX_UNAVAILABLE, message=message)
