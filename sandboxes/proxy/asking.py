"""A request on its way to a target: its head written anew, its body read or streamed, its answer awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from credentials.injection import NotInjectable
from sandboxes.egress.records import Outcome
from sandboxes.proxy.bodies import (
    BodyInvalid,
    BodyReader,
    BodyTooLong,
    MeasuredBody,
    read_answered_body,
)
from sandboxes.proxy.calls import Place
from sandboxes.proxy.heads import AnswerHead, Headers, HeadInvalid, RequestHead, read_answer, write_request
from sandboxes.proxy.injecting import OutgoingHead
from sandboxes.proxy.ledger import Digest, Line
from sandboxes.proxy.refusals import Hurdle, Refusal, refuse_answer, refuse_request
from sandboxes.proxy.turns import WITHOUT_BODY, BodyMiscounted, BodyWriter, Turn
from sandboxes.proxy.upstream import Link
from sandboxes.proxy.wire import TargetLost, Wire
from tools.http_rules import FRAMING_HEADERS, Url, Verdict

_WHOLE_BYTES = 64 * 1024
"""A request's body of this size is read before the target is asked: it then goes out with the head."""
_SIGNED_BYTES = 8 * 1024 * 1024
"""A body that is signed is kept up to this size, whatever the target's limit is."""
_KEPT_STEP_BYTES = 256 * 1024
"""Room for a body of an unsaid length is taken in such steps."""
_MOST_INTERIM = 16
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
_SAYS_EMPTY = frozenset({"POST", "PUT", "PATCH"})
_OURS = FRAMING_HEADERS | {"proxy-authorization", "proxy-authenticate"}


class NoAnswer(Exception):
    """The target ended the connection before it said anything."""


class Asking:
    """One request toward its target."""

    def __init__(self, head: RequestHead, place: Place, url: Url, turn: Turn, client: Wire) -> None:
        self._head, self._place, self._url = head, place, url
        self._turn, self._client = turn, client
        self._body: BodyReader = turn.body or MeasuredBody(0, client, None)
        self._body.most_bytes = place.access.caps.request_bytes
        self._digest = Digest(place.target.digests)
        self._whole: bytes | None = b""
        self._kept_bytes = 0
        self._is_written = False
        self._link: Link | None = None

    @property
    def is_sent(self) -> bool:
        """Whether all of it was sent; an answer may come before."""
        return self._is_written and self._link is not None and not self._link.wire.has_unsent

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be sent again when nothing of an answer came."""
        return self._head.method in _REPEATABLE and self._whole == b""

    @property
    def sha256(self) -> str:
        """Digest of the body as far as it was passed on, where the operator asks for it."""
        return self._digest.finish()

    async def read_whole(self) -> None:
        """Read the body, if it is small or has to be signed; a large one is streamed later.

        Raises:
            Refusal: It is too large, or broken, or too much is kept already.
            ClientLost: The sandbox's end is gone.
        """
        head, most = self._head, self._place.access.caps.request_bytes
        if not head.has_body:
            return
        limit = min(most, _SIGNED_BYTES) if self._place.injector.needs_body else _WHOLE_BYTES
        if (head.framing.chunked and not self._place.injector.needs_body) or (
            head.framing.length or 0
        ) > limit:
            self._whole = None
            return
        self._keep(head.framing.length or 0)
        self._promise()
        whole = bytearray()
        while piece := await self._read_piece():
            if whole:
                await asyncio.sleep(0)  # a chunk may have one byte: 10,000 of them come at once
            if len(whole) + len(piece) > limit:
                raise too_large(limit)
            self._keep(len(whole) + len(piece))
            whole += piece
        self._whole = bytes(whole)

    def let_go(self) -> None:
        """Keep nothing of the body any more."""
        self._whole = None
        self._place.share.give_bytes_back(self._kept_bytes)
        self._kept_bytes = 0

    def write_head(self, line: Line) -> OutgoingHead:
        """Write the head anew, with the credential.

        Raises:
            Refusal: The credential cannot be added.
        """
        assert line.verdict is not None
        headers = (
            ("host", self._url.origin.partition("://")[2]),
            *_passing(self._head.headers, line.verdict),
        )
        plain = OutgoingHead(self._head.method, self._url.path, self._url.query, headers)
        kept = line.verdict.rule.headers if line.verdict.rule else ()
        try:
            ready = self._place.injector.apply(plain, self._whole, kept)
        except NotInjectable as error:
            raise Refusal(403, Hurdle.CREDENTIAL, str(error), Outcome.REFUSED) from error
        injection = self._place.access.injection
        line.injected = injection.credential if injection else ""
        return ready

    def begin(self, link: Link, request: OutgoingHead) -> None:
        """Send the head, and the body where it was read."""
        self._link = link
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
        headers.append((b"accept-encoding", b"identity"))
        headers.extend(self._framing())
        try:
            data = write_request(request.method, request.target, headers)
        except HeadInvalid as error:
            raise Refusal(403, Hurdle.CREDENTIAL, "the request cannot be written", Outcome.REFUSED) from error
        if self._whole and len(self._whole) > _WHOLE_BYTES:
            link.wire.write(data)
            link.wire.write(self._whole)
        else:
            link.wire.write(data + (self._whole or b""))
        self._is_written = self._whole is not None

    async def race(self, answering: Coroutine[Any, Any, None]) -> None:
        """Pass an answer on, while the rest of the body is sent.

        Raises:
            Refusal: The body cannot be sent, or the answer cannot be passed on.
        """
        if self._whole is not None:
            await answering
            return
        loop = asyncio.get_running_loop()
        sender, answerer = loop.create_task(self._send_rest()), loop.create_task(answering)
        try:
            await asyncio.wait({sender, answerer}, return_when=asyncio.FIRST_COMPLETED)
            if not answerer.done():
                sender.result()
            await answerer
        finally:
            for task in (sender, answerer):
                task.cancel()
            await asyncio.wait({sender, answerer})
            for task in (sender, answerer):
                if not task.cancelled():
                    task.exception()  # the first one was raised

    async def read_answer(self) -> AnswerHead:
        """Wait for the head of the final answer; interim ones are dropped.

        Raises:
            NoAnswer: The target said nothing at all.
            Refusal: What it said is no answer.
        """
        assert self._link is not None
        try:
            for _ in range(_MOST_INTERIM):
                raw = await self._link.wire.read_head()
                if raw is None:
                    raise NoAnswer
                head = read_answer(raw)
                if head.status >= 200:
                    return head
                if head.status == 101:
                    raise refuse_answer("the target changes the protocol, which nobody asked for")
        except HeadInvalid as error:
            raise refuse_answer(f"the target's answer is none: {error}") from error
        except TargetLost as error:
            raise NoAnswer from error
        raise refuse_answer("the target sends interim answers without end")

    def read_body(self, head: AnswerHead) -> BodyReader:
        """Give what reads the body of the answer."""
        assert self._link is not None
        wire, most = self._link.wire, self._place.access.caps.response_bytes
        if self._head.method == "HEAD" or head.status in WITHOUT_BODY:
            return MeasuredBody(0, wire, most)
        return read_answered_body(head.framing, wire, most)

    def _framing(self) -> list[tuple[bytes, bytes]]:
        if self._whole is None:
            length = self._head.framing.length
            if length is None:
                return [(b"transfer-encoding", b"chunked")]
            return [(b"content-length", str(length).encode())]
        if self._whole or self._head.method in _SAYS_EMPTY:
            return [(b"content-length", str(len(self._whole)).encode())]
        return []

    async def _send_rest(self) -> None:
        assert self._link is not None
        wire, framing = self._link.wire, self._head.framing
        framed = BodyWriter(framing.length, framing.chunked)
        self._promise()
        try:
            while piece := await self._read_piece():
                await asyncio.sleep(0)  # a chunk may have one byte: 10,000 of them come at once
                wire.write(framed.write(piece))
                await wire.drain()
            wire.write(framed.finish())
            self._is_written = True
        except (TargetLost, BodyMiscounted):
            # It may have answered before it had all; that answer is what counts.
            return

    async def _read_piece(self) -> bytes:
        try:
            piece = await self._body.read()
        except BodyTooLong as error:
            raise too_large(self._place.access.caps.request_bytes) from error
        except BodyInvalid as error:
            raise refuse_request("its body is broken, or ends too early") from error
        self._digest.feed(piece)
        return piece

    def _keep(self, size: int) -> None:
        """Have room for so much of a body, in the call's share of what all keep.

        Raises:
            Refusal: There is none to be had.
        """
        if size <= max(self._kept_bytes, _WHOLE_BYTES):
            return
        more = -(-(size - self._kept_bytes) // _KEPT_STEP_BYTES) * _KEPT_STEP_BYTES
        if problem := self._place.share.find_problem_with_bytes(more):
            raise Refusal(503, Hurdle.LIMIT, problem, Outcome.OVER_LIMIT)
        self._kept_bytes += more

    def _promise(self) -> None:
        """Tell a client that waits for it to send the body."""
        if self._turn.waits:
            self._client.write(self._turn.go_on())


def too_large(most_bytes: int) -> Refusal:
    """Say that a request's body is too large."""
    text = f"the request's body is larger than the {most_bytes} bytes that the target's limits allow"
    return Refusal(413, Hurdle.SIZE, text, Outcome.CUT)


def _passing(headers: Headers, verdict: Verdict) -> Headers:
    named = {
        part.strip().lower() for name, value in headers if name == "connection" for part in value.split(",")
    }
    left_out = _OURS | named | set(verdict.dropped)
    return [(name, value) for name, value in headers if name not in left_out]
