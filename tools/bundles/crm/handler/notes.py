"""Adds a note to a contact of the call's subject.

The CRM promises: of all requests of a user with one `Idempotency-Key` (for a day) one takes effect, and the
others get its answer. So the contract says `dedupes`: an attempt in doubt is sent again with the same key.
What it answers otherwise is what such servers say by custom (the IETF's draft of the header):

    409   the first request with this key is still at work: nobody knows yet
    422   the key came with another note before
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from crm.v1 import crm_pb2

from toolcrib.handler import Failure

from .api import Lost, ask

if TYPE_CHECKING:
    from toolcrib.handler import Context

_NOT_ADDED = frozenset({301, 302, 303, 307, 308, 400, 404, 405, 406, 410, 413, 415, 422, 429})
"""By these, and those of `ask`, the CRM says that nothing was added; by any other it says nothing clear."""
_ID = re.compile(r"N-[0-9]{1,12}", re.ASCII)


def add_note(request: crm_pb2.AddNoteRequest, context: Context) -> crm_pb2.AddNoteResponse:
    """Add a note: once, however often it is asked with one key.

    Raises:
        Failure: CONTACT_UNKNOWN, KEY_TAKEN, NOTE_REFUSED, NOTE_UNKNOWN, or what `ask` raises.
    """
    path = f"/v1/contacts/{request.contact_id}/notes"
    headers = {"Idempotency-Key": context.idempotency_key}
    try:
        answer = ask(context, path, {"text": request.text}, headers)
    except Lost as error:
        raise _unknown() from error
    if answer.status in _NOT_ADDED:
        raise _refused(answer.status)
    if answer.status not in (200, 201):
        raise _unknown()
    note_id = answer.document.get("id") if isinstance(answer.document, dict) else None
    if not isinstance(note_id, str) or not _ID.fullmatch(note_id):
        raise _unknown()
    return crm_pb2.AddNoteResponse(note_id=note_id, contact_id=request.contact_id)


def _refused(status: int) -> Failure:
    if status == 404:
        return Failure("CONTACT_UNKNOWN", "The user has no such contact.")
    if status == 422:
        return Failure("KEY_TAKEN", "The idempotency key holds another note; use a new key.")
    return Failure("NOTE_REFUSED", f"The CRM answered {status}; nothing was added.")


def _unknown() -> Failure:
    text = "There was no clear answer after the note was sent."
    return Failure("NOTE_UNKNOWN", text, effect="unknown")
