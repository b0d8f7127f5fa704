"""Finds contacts of the call's subject."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from crm.v1 import crm_pb2

from toolcrib.handler import Failure

from .api import Lost, ask

if TYPE_CHECKING:
    from toolcrib.handler import Context

_DEFAULT_LIMIT = 20
_MOST_TEXT, _MOST_ADDRESS = 200, 320
_ID = re.compile(r"C-[0-9]{1,12}", re.ASCII)


def find_contacts(request: crm_pb2.FindContactsRequest, context: Context) -> crm_pb2.FindContactsResponse:
    """Find contacts.

    Raises:
        Failure: CRM_UNAVAILABLE, ANSWER_UNREADABLE, or what `ask` raises.
    """
    limit = request.limit or _DEFAULT_LIMIT
    query = urlencode({"text": request.text, "limit": limit}, quote_via=quote)
    try:
        answer = ask(context, f"/v1/contacts?{query}")
    except Lost as error:
        text = "The CRM cannot be reached, or gave no answer that can be read."
        raise Failure("CRM_UNAVAILABLE", text, retryable=True) from error
    try:
        if answer.status != 200:
            raise ValueError("no answer of a search")
        found = [_read(item) for item in answer.document["contacts"][:limit]]
        return crm_pb2.FindContactsResponse(contacts=found, more=bool(answer.document["more"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Failure("ANSWER_UNREADABLE", "The CRM gave no list of contacts that can be read.") from error


def _read(item: Any) -> crm_pb2.Contact:
    if not _ID.fullmatch(item["id"]):
        raise ValueError("no id of a contact")
    return crm_pb2.Contact(
        contact_id=item["id"],
        name=_text(item.get("name"), _MOST_TEXT),
        company=_text(item.get("company"), _MOST_TEXT),
        email=_text(item.get("email"), _MOST_ADDRESS),
    )


def _text(value: Any, most: int) -> str:
    """Cut a text; what is none, or has half of a surrogate pair, becomes one."""
    text = value if isinstance(value, str) else ""
    return text[:most].encode("utf-8", "replace").decode()
