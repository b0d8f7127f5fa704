"""An answer on its way into the sandbox: cleaned, unpacked, searched for the secret, capped.

What is small goes out in one piece, with its length; what is large goes as it comes, in chunks where its
length may change on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
from collections.abc import Iterator
from dataclasses import dataclass

from sandboxes.egress.records import Outcome
from sandboxes.proxy.bodies import BodyInvalid, BodyReader, BodyTooLong
from sandboxes.proxy.calls import Place
from sandboxes.proxy.heads import AnswerHead, HeadInvalid
from sandboxes.proxy.ledger import Digest
from sandboxes.proxy.refusals import CHECK_HEADER, Hurdle, Refusal, refuse_answer
from sandboxes.proxy.scanning import Scanner
from sandboxes.proxy.shares import EASY_BYTES, PIECE_BYTES, Share
from sandboxes.proxy.turns import BodyMiscounted, RawHeaders, Turn
from sandboxes.proxy.unpacking import PackingRefused, Unpacker
from sandboxes.proxy.wire import ClientLost, TargetLost, Wire
from tools.http_rules import FRAMING_HEADERS

_HELD_BYTES = 64 * 1024
_DRAINED_BYTES = 64 * 1024
_DRAIN_SECONDS = 2.0
_REASONS = {status.value: status.phrase.encode() for status in http.HTTPStatus}
_NEVER = FRAMING_HEADERS | {
    "alt-svc",  # another way to the target, past the proxy
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-status",
    CHECK_HEADER,  # ours alone: a target must not look like a refusal
}


@dataclass(frozen=True, slots=True)
class Passage:
    """What an answer is held to on its way.

    Attributes:
        place: The target, with its limits and its credential.
        sent: What beside the credential's secrets must not come back.
        method: Of the request: an answer to HEAD has no body.
    """

    place: Place
    sent: tuple[str, ...]
    method: str


class Answering:
    """The answer to one request.

    Attributes:
        status: Of the answer; 0 before there is one.
        has_begun: Whether something of it was written.
        stripped: How often a secret was taken out of it.
        sha256: Of its body as it was passed on, where the operator asks for it.
    """

    def __init__(self, client: Wire, turn: Turn) -> None:
        self.status, self.stripped, self.sha256 = 0, 0, ""
        self.has_begun = False
        self._client, self._turn = client, turn
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._headers: RawHeaders = []
        self._length: int | None = None
        self._has_body = self._waits = False

    async def refuse(self, refusal: Refusal, is_head: bool) -> None:
        """Answer with a refusal; where the request's body is not read to its end, the connection ends."""
        await self._drain_request()
        self.status = refusal.status
        if not self._turn.request_is_read:
            self._turn.end_connection()
        headers = [(b"content-type", b"text/plain"), (CHECK_HEADER.encode(), refusal.check.encode())]
        data = self._write_head(headers, len(refusal.body))
        if not is_head:
            data += self._turn.write(refusal.body)
        data += self._turn.finish()
        self._client.write(data)

    async def pass_on(self, head: AnswerHead, body: BodyReader, passage: Passage) -> None:
        """Pass an answer on.

        Raises:
            Refusal: It cannot be passed on, or not to its end.
            ClientLost: Nobody takes it.
        """
        access = passage.place.access
        self._has_body = passage.method != "HEAD" and head.status not in {204, 304}
        scanner = Scanner(passage.place.search, passage.sent)
        digest = Digest(passage.place.target.digests)
        try:
            unpacker = Unpacker(_coding(head) if self._has_body else "")
            if self._has_body and (head.framing.length or 0) > access.caps.response_bytes:
                raise BodyTooLong
            size = sum(len(name) + len(value) for name, value in head.headers)
            async with self._turn_for(size, passage.place.share, scanner):
                self._prepare(head, passage, scanner, unpacker)
            steps = _Steps(unpacker, scanner, digest, access.caps.response_bytes)
            await self._pump(body, steps, passage.place.share)
        except PackingRefused as error:
            raise refuse_answer("the answer's body is packed in a way that is not unpacked here") from error
        except BodyTooLong as error:
            text = f"the answer is larger than the {access.caps.response_bytes} bytes that the limits allow"
            raise Refusal(502, Hurdle.SIZE, text, Outcome.CUT) from error
        except (BodyInvalid, TargetLost) as error:
            raise refuse_answer("the answer's body is broken, or ends too early") from error
        except (HeadInvalid, BodyMiscounted) as error:
            raise refuse_answer("the answer cannot be written") from error
        finally:
            self.stripped, self.sha256 = scanner.found, digest.finish()

    def _prepare(self, head: AnswerHead, passage: Passage, scanner: Scanner, unpacker: Unpacker) -> None:
        """Choose what the sandbox is told of head and length."""
        injection = passage.place.access.injection
        named = {
            part.strip().lower()
            for name, value in head.headers
            if name == "connection"
            for part in value.split(",")
        }
        left_out = _NEVER | named
        if injection is not None:
            left_out |= {"set-cookie"}  # a login made with the credential is a credential
        if not unpacker.is_plain:
            left_out |= {"content-encoding"}
        kept = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in head.headers
            if name not in left_out
        ]
        self.status = head.status
        self._headers = scanner.headers(kept)
        unchanged = unpacker.is_plain and injection is None
        self._length = head.framing.length if unchanged or not self._has_body else None
        # A small body of a known length is waited for; of any other only what came with the head.
        self._waits = self._has_body and (head.framing.length or _HELD_BYTES) < _HELD_BYTES

    def _turn_for(
        self, size: int, share: Share, scanner: Scanner
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Wait for the call's turn where what there is to search takes long."""
        if size <= EASY_BYTES and not (self._held_bytes or self.has_begun):
            return contextlib.nullcontext()
        return share.work() if scanner.searches else share.pause()

    async def _pump(self, body: BodyReader, steps: _Steps, share: Share) -> None:
        while True:
            piece = body.take()
            if piece is None:
                # The head is not sent before anything came: that may show that nothing can be passed on.
                if self._held and not self._waits:
                    await self._flush()
                piece = await body.read()
            if not piece:
                break
            for part in steps.cut(piece):
                async with self._turn_for(len(part), share, steps.scanner):
                    clean = steps.clean(part)
                self._held.append(clean)
                self._held_bytes += len(clean)
                if self._held_bytes > _HELD_BYTES:
                    await self._flush()
        async with self._turn_for(steps.scanner.held_bytes, share, steps.scanner):
            self._held.append(steps.finish())
        await self._finish()

    async def _flush(self) -> None:
        """Write what is held, after the head where that was not written yet."""
        data = b"" if self.has_begun else self._write_head(self._headers, self._length)
        held = self._take_held()
        if held:
            data += self._turn.write(held)
        if data:
            self._client.write(data)
            await self._client.drain()

    async def _finish(self) -> None:
        held = self._take_held()
        data = b""
        if not self.has_begun:
            data = self._write_head(self._headers, len(held) if self._has_body else self._length)
        if held:
            data += self._turn.write(held)
        self._client.write(data + self._turn.finish())
        await self._client.drain()

    def _take_held(self) -> bytes:
        held = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        return held

    def _write_head(self, headers: RawHeaders, length: int | None) -> bytes:
        data = self._turn.begin(self.status, headers, length)
        self.has_begun = True
        return data

    async def _drain_request(self) -> None:
        """Read what is left of a small request, so that the connection can have another."""
        body = self._turn.body
        if body is None or self._turn.waits:
            return
        body.most_bytes = None  # how much of it is read is limited here
        most = self._client.taken_bytes + _DRAINED_BYTES
        with contextlib.suppress(TimeoutError, BodyInvalid, ClientLost):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not body.is_read and self._client.taken_bytes < most:
                    await body.read()
                    await asyncio.sleep(0)  # a chunk may have one byte


class _Steps:
    """What happens to each piece of a body: it is unpacked and counted, cut, searched, digested."""

    def __init__(self, unpacker: Unpacker, scanner: Scanner, digest: Digest, most_bytes: int) -> None:
        self.scanner = scanner
        self._unpacker, self._digest = unpacker, digest
        self._left = most_bytes

    def cut(self, piece: bytes) -> Iterator[bytes]:
        """Unpack and count; give parts that are searched in a few milliseconds.

        Raises:
            BodyTooLong: It unpacks to more than it may.
            PackingRefused: It cannot be unpacked.
        """
        for part in self._unpacker.feed(piece):
            self._left -= len(part)
            if self._left < 0:
                raise BodyTooLong
            most = PIECE_BYTES if self.scanner.searches else len(part)
            yield from (part[at : at + most] for at in range(0, len(part), most))

    def clean(self, part: bytes) -> bytes:
        """Search and digest."""
        clean = self.scanner.feed(part)
        self._digest.feed(clean)
        return clean

    def finish(self) -> bytes:
        """Give the last piece.

        Raises:
            PackingRefused: The body is cut.
        """
        self._unpacker.finish()
        clean = self.scanner.finish()
        self._digest.feed(clean)
        return clean


def write_refusal(refusal: Refusal) -> bytes:
    """Write a refusal for a connection that ends with it."""
    reason = _REASONS.get(refusal.status, b"").decode()
    head = (
        f"HTTP/1.1 {refusal.status} {reason}\r\ncontent-type: text/plain\r\n"
        f"content-length: {len(refusal.body)}\r\n{CHECK_HEADER}: {refusal.check}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + refusal.body


def _coding(head: AnswerHead) -> str:
    codings = [value for name, value in head.headers if name == "content-encoding"]
    return ",".join(codings)
