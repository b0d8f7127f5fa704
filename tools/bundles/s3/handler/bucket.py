"""A tenant's objects in the bucket, one request at a time, by urllib, which finds the way out in HTTP_PROXY.

Rules:
1. There is no key here: the proxy signs requests toward the target (AWS SigV4), and no others.
2. Every name is BUCKET/TENANT/NAME. The tenant is the call's, so no argument can name another one's objects;
   the contract lets no part begin with a dot, so none reaches `.toolcrib`, where the marks of writes are.
3. What the server says never stands in a message of ours.
4. No redirect is followed: the bucket is in the declared region, or it is set up wrong.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

from toolcrib.handler import Failure

if TYPE_CHECKING:
    from toolcrib.handler import Context

TARGET = "s3"
MOST_OBJECT_BYTES = 2 * 1024 * 1024
# Kept back from the deadline, so that the answer still gets out.
_RESERVE_SECONDS = 1.0
# With less left no object is sent: it would only be in doubt.
_WRITE_SECONDS = 2.0
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_NO_PART = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f\\]")


class Answer(NamedTuple):
    """What the server said.

    Attributes:
        status: HTTP's number.
        headers: By name, whatever its case.
        body: At most 2 MiB of it.
        is_cut: There was more.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool


class _Stay(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for an answer."""

    def redirect_request(self, *_: Any) -> None:
        """Go nowhere."""


class Bucket:
    """The objects of the call's tenant."""

    def __init__(self, context: Context) -> None:
        target = context.targets[TARGET]
        bucket = target.settings.get("bucket", "")
        if not target.origins or not _BUCKET.fullmatch(bucket):
            raise Failure("TARGET_NOT_SET_UP", "The operator declared no origin, or no bucket.")
        self._base = f"{target.origins[0]}/{bucket}"
        self.folder = f"{context.tenant}/"
        self._context = context
        self._opener = urllib.request.build_opener(_Stay)

    def ask(
        self,
        method: str,
        name: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        effect_if_lost: bool = False,
    ) -> Answer:
        """Send one request about an object of the tenant.

        Args:
            method: HTTP's.
            name: As the contract has it, or a mark's.
            body: Of a PUT.
            headers: More headers.
            effect_if_lost: Without a clear answer nobody knows whether the write happened.

        Raises:
            Failure: BUCKET_UNAVAILABLE, BUCKET_DENIED, EGRESS_REFUSED, NAME_INVALID or PUT_UNKNOWN.
        """
        if _NO_PART.search(name):
            raise Failure("NAME_INVALID", "The name has an empty part, '.', '..' or a control character.")
        if effect_if_lost and self._context.remaining_seconds < _WRITE_SECONDS:
            raise _unavailable()
        url = f"{self._base}/{quote(self.folder + name)}"
        request = urllib.request.Request(url, body, dict(headers or {}), method=method)  # noqa: S310
        return self._send(request, effect_if_lost)

    def list(self, query: Mapping[str, str | int]) -> Answer:
        """List the bucket.

        Raises:
            Failure: As `ask`.
        """
        url = f"{self._base}?{urlencode(query, quote_via=quote)}"
        return self._send(urllib.request.Request(url), effect_if_lost=False)  # noqa: S310

    def expect(self, answer: Answer, *statuses: int) -> Answer:
        """Give the answer back where its status is one of these.

        Raises:
            Failure: BUCKET_REFUSED.
        """
        if answer.status not in statuses:
            text = f"The object store answered {answer.status}; nothing was put."
            raise Failure("BUCKET_REFUSED", text, retryable=answer.status >= 500)
        return answer

    def _send(self, request: urllib.request.Request, effect_if_lost: bool) -> Answer:
        request.add_header("User-Agent", "toolcrib-s3")
        seconds = max(self._context.remaining_seconds - _RESERVE_SECONDS, 0.1)
        try:
            with self._open(request, seconds) as response:
                _check(response)
                body = response.read(MOST_OBJECT_BYTES + 1)
                is_cut = len(body) > MOST_OBJECT_BYTES
                if response.length and not is_cut:  # `read` with a number takes a lost connection for the end
                    raise http.client.IncompleteRead(body)
                return Answer(response.status, response.headers, body[:MOST_OBJECT_BYTES], is_cut)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if effect_if_lost:
                text = "The connection ended before the object store said whether it put the object."
                raise Failure("PUT_UNKNOWN", text, effect="unknown") from error
            raise _unavailable() from error

    def _open(self, request: urllib.request.Request, seconds: float) -> Any:
        try:
            return self._opener.open(request, timeout=seconds)
        except urllib.error.HTTPError as answer:  # every status that is no success; it is an answer too
            return answer


def _unavailable() -> Failure:
    text = "The object store cannot be reached, or not in time. Nothing was put."
    return Failure("BUCKET_UNAVAILABLE", text, retryable=True)


def _check(response: Any) -> None:
    """Say what is wrong with us rather than with the request.

    Raises:
        Failure: EGRESS_REFUSED or BUCKET_DENIED; nothing happened.
    """
    if response.headers.get("toolcrib-egress") and response.status < 500:
        text = "The way out does not let this tool ask that; see `toolcrib egress log`."
        raise Failure("EGRESS_REFUSED", text)
    if response.status in (401, 403):
        raise Failure("BUCKET_DENIED", "The object store does not let this tool do that.")
