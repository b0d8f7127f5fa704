"""GitHub's REST API by urllib, which finds the way out in HTTP_PROXY and HTTPS_PROXY like any client.

Rules:
1. There is no token here: the proxy adds it to requests toward the target, and to no others.
2. No redirect is followed: a repository that was renamed has to be declared by its new name.
3. What GitHub says never stands in a message of ours; its words come back in untrusted fields only.
4. At most `_MOST_BYTES` of an answer are read.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

from toolcrib.handler import Failure

if TYPE_CHECKING:
    from toolcrib.handler import Context

TARGET = "github"
_HEADERS = {
    "Accept": "application/vnd.github+json",
    "X-GitHub-Api-Version": "2022-11-28",
    "User-Agent": "toolcrib-github",
}
_MOST_BYTES = 8 * 1024 * 1024
# Kept back from the deadline, so that the answer still gets out.
_RESERVE_SECONDS = 1.0
# With less left nothing is written: it would be sent only to be in doubt.
_WRITE_SECONDS = 2.0


class Answer(NamedTuple):
    """What GitHub said.

    Attributes:
        status: HTTP's number.
        document: The JSON of the body; None where it is none.
        has_next: A list goes on: its header Link names a next page. That a page is short does not say it.
    """

    status: int
    document: Any
    has_next: bool = False


class _Stay(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for an answer."""

    def redirect_request(self, *_: Any) -> None:
        """Go nowhere."""


class Api:
    """One call's way to GitHub."""

    def __init__(self, context: Context) -> None:
        origins = context.targets[TARGET].origins
        if not origins:
            raise Failure("TARGET_NOT_SET_UP", "The operator declared no origin for the target.")
        self._origin, self._context = origins[0], context
        self._opener = urllib.request.build_opener(_Stay)
        repositories = context.targets[TARGET].settings.get("repositories", "")
        self.repositories = tuple(repositories.split())

    def get(self, path: str, query: Mapping[str, str | int]) -> Answer:
        """Read something.

        Raises:
            Failure: What `_check` raises, or GITHUB_UNAVAILABLE.
        """
        url = f"{self._origin}{path}?{urlencode(query, quote_via=quote)}"
        return self._send(urllib.request.Request(url, headers=_HEADERS), _unavailable)  # noqa: S310

    def post(self, path: str, document: object) -> Answer:
        """Write something.

        Raises:
            Failure: What `_check` raises; GITHUB_UNAVAILABLE where there is no time for it, or
                PULL_REQUEST_UNKNOWN where nobody knows whether it happened.
        """
        if self._context.remaining_seconds < _WRITE_SECONDS:
            raise _unavailable()
        body = json.dumps(document).encode()
        headers = {**_HEADERS, "Content-Type": "application/json"}
        request = urllib.request.Request(self._origin + path, body, headers, method="POST")  # noqa: S310
        return self._send(request, make_unknown)

    def _send(self, request: urllib.request.Request, lost: Callable[[], Failure]) -> Answer:
        """Send a request; `lost` makes the failure where there is no clear answer."""
        seconds = max(self._context.remaining_seconds - _RESERVE_SECONDS, 0.1)
        try:
            with self._open(request, seconds) as response:
                _check(response)
                if response.status >= 500:
                    raise lost()
                document = _read_json(_read_whole(response))
                has_next = 'rel="next"' in (response.headers.get("link") or "")
                return Answer(response.status, document, has_next)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise lost() from error

    def _open(self, request: urllib.request.Request, seconds: float) -> Any:
        try:
            return self._opener.open(request, timeout=seconds)
        except urllib.error.HTTPError as answer:  # every status that is no success; it is an answer too
            return answer


def _check(response: Any) -> None:
    """Say what is wrong with us rather than with the request.

    Raises:
        Failure: EGRESS_REFUSED, RATE_LIMITED or GITHUB_REFUSED; nothing happened.
    """
    if response.headers.get("toolcrib-egress") and response.status < 500:
        text = "The way out does not let this tool ask that; see `toolcrib egress log`."
        raise Failure("EGRESS_REFUSED", text)
    waits = response.headers.get("x-ratelimit-remaining") == "0" or response.headers.get("retry-after")
    if response.status == 429 or (response.status == 403 and waits):
        raise Failure("RATE_LIMITED", "GitHub takes no more requests of this token for now.", retryable=True)
    if response.status in (401, 403):
        raise Failure("GITHUB_REFUSED", "GitHub does not let the tool's token do that.")


def _read_whole(response: Any) -> bytes:
    """Read a body to its end.

    Raises:
        ValueError: It is longer than we read, or the connection ended before it did: `read` with a number
            takes that for an end, and only what is left of Content-Length tells.
    """
    body: bytes = response.read(_MOST_BYTES + 1)
    if len(body) > _MOST_BYTES or response.length:
        raise ValueError("an answer of more than 8 MiB, or not all of one")
    return body


def _read_json(body: bytes) -> Any:
    """Read JSON; None where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _unavailable() -> Failure:
    text = "GitHub cannot be reached, or gave no answer that can be read. Nothing was written."
    return Failure("GITHUB_UNAVAILABLE", text, retryable=True)


def read_number(value: Any) -> int:
    """Take a whole number as JSON has it.

    Raises:
        TypeError: It is none: a text, 1.5, 1e999 or true.
    """
    if type(value) is not int:
        raise TypeError("no whole number")
    return value


def make_unknown() -> Failure:
    """Say that nobody knows whether there is a pull request now."""
    text = "There was no clear answer after the pull request was sent."
    return Failure("PULL_REQUEST_UNKNOWN", text, effect="unknown")
