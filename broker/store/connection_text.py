"""What a call connected to, as the text of its column: one JSON object, empty text where there is nothing.

It is kept clear: names of the operator, templates of rules, numbers and times, nothing of what was said. So
it stays when a tenant is erased, as the audit does; not so digests of bodies, by which one can check a guess.
"""

from __future__ import annotations

import json
import logging

from broker.model import CallRecord
from broker.store.records import StoreError
from sandboxes.egress.codec import ControlError
from sandboxes.egress.records import ConnectionEntry, ConnectionRecord, keep_connections

log = logging.getLogger(__name__)

DIGESTS = ("request_sha256", "response_sha256")


def write_connections(call: CallRecord) -> str:
    """Write a call's connections; what cannot be written is counted, and does not keep its end from being."""
    kept, dropped = keep_connections(call.connections)
    dropped += call.connections_dropped
    documents = []
    for record in kept:
        try:
            documents.append(ConnectionEntry.of(record).document())
        except ControlError as error:
            log.warning("connection dropped", extra={"call_id": call.call_id, "cause": str(error)})
            dropped += 1
    if not documents and not dropped:
        return ""
    return json.dumps({"dropped": dropped, "kept": documents}, separators=(",", ":"))


def read_connections(call_id: str, text: str) -> tuple[tuple[ConnectionRecord, ...], int]:
    """Read a call's connections, and how many more there were.

    Raises:
        StoreError: The text was changed.
    """
    if not text:
        return (), 0
    try:
        document = json.loads(text)
        return tuple(ConnectionEntry.read(one).record for one in document["kept"]), int(document["dropped"])
    except (ControlError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise StoreError(f"call {call_id}: its connections cannot be read: {error}") from error


def without_digests(text: str) -> str:
    """Take the digests of bodies out.

    Of a text that was changed nothing stays: it may hold one, and must not keep a tenant from being erased.
    """
    if not any(name in text for name in DIGESTS):
        return text
    try:
        document = json.loads(text)
        kept = [
            {name: value for name, value in one.items() if name not in DIGESTS} for one in document["kept"]
        ]
        return json.dumps({"dropped": document["dropped"], "kept": kept}, separators=(",", ":"))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        log.warning("connections of a call cannot be read; all of them are erased")
        return ""
