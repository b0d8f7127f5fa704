"""The CRM's API by urllib, which finds the way out in HTTP_PROXY like any client.

Rules:
1. There is no token here: the proxy adds the token of the call's subject. So whose contacts these are is said
   by the token alone, and no argument can change it.
2. No redirect is followed, and what the server says never stands in a message of ours.
3. At most `_MOST_BYTES` of an answer are read.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

from toolcrib.handler import Failure

if TYPE_CHECKING:
    from toolcrib.handler import Context

TARGET = "crm"
_MOST_BYTES = 512 * 1024
# Kept back from the deadline, so that the answer still gets out.
_RESERVE_SECONDS = 1.0


class Answer(NamedTuple):
    """What the server said.

    Attributes:
        status: HTTP's number.
        document: The JSON of the body; None where it is none.
    """

    status: int
    document: Any


class _Stay(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for an answer."""

    def redirect_request(self, *_: Any) -> None:
        """Go nowhere."""


class Lost(Exception):
    """There is no clear answer; the request may have reached the server."""


def ask(
    context: Context, path: str, document: object = None, headers: dict[str, str] | None = None
) -> Answer:
    """Send one request: a GET, or a POST where there is a document.

    Raises:
        Failure: TARGET_NOT_SET_UP, EGRESS_REFUSED or CRM_DENIED; nothing happened.
        Lost: There is no clear answer.
    """
    origins = context.targets[TARGET].origins
    if not origins:
        raise Failure("TARGET_NOT_SET_UP", "The operator declared no origin for the target.")
    everything = {"User-Agent": "toolcrib-crm", "Accept": "application/json", **(headers or {})}
    body = None if document is None else json.dumps(document).encode()
    if body is not None:
        everything["Content-Type"] = "application/json"
    request = urllib.request.Request(origins[0] + path, body, everything)  # noqa: S310
    try:
        with _open(request, max(context.remaining_seconds - _RESERVE_SECONDS, 0.1)) as response:
            _check(response)
            return Answer(response.status, _read(response))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Lost from error


def _open(request: urllib.request.Request, seconds: float) -> Any:
    try:
        return urllib.request.build_opener(_Stay).open(request, timeout=seconds)
    except urllib.error.HTTPError as answer:  # every status that is no success; it is an answer too
        return answer


def _check(response: Any) -> None:
    if response.status >= 500:
        raise Lost
    if response.headers.get("toolcrib-egress"):
        text = "The way out does not let this tool ask that; see `toolcrib egress log`."
        raise Failure("EGRESS_REFUSED", text)
    if response.status in (401, 403):
        raise Failure("CRM_DENIED", "The CRM does not let this user, or this tool, do that.")


def _read(response: Any) -> Any:
    """Read a whole body; None where it is no JSON.

    Raises:
        ValueError: It is longer than we read, or the connection ended before it did: `read` with a number
            takes that for an end, and only what is left of Content-Length tells.
    """
    body = response.read(_MOST_BYTES + 1)
    if len(body) > _MOST_BYTES or response.length:
        raise ValueError("an answer of more than 512 KiB, or not all of one")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
