"""One HTTP exchange: a request judged, written anew, sent, and its answer passed on.

Rules:
1. Nothing reaches a target before the whole head was read, judged and given its credential.
2. What is sent is written from what was parsed, never copied: hop-by-hop headers, framing and Host are ours.
3. Bodies go through in pieces; while one end does not take them, the other is not read.
4. Once an answer has begun it can only be completed or cut: a cut one ends the connection, so that nobody
   takes a part for the whole.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sandboxes.egress.records import Outcome
from sandboxes.proxy.answering import Answering, Passage
from sandboxes.proxy.asking import Asking, NoAnswer, too_large
from sandboxes.proxy.calls import OpenedCall, Origins, Place
from sandboxes.proxy.heads import HeadInvalid, RequestHead, read_request, says_close
from sandboxes.proxy.ledger import Line
from sandboxes.proxy.refusals import Hurdle, Refusal, refuse_answer, refuse_request
from sandboxes.proxy.turns import Turn
from sandboxes.proxy.upstream import Link, Upstream
from sandboxes.proxy.wire import ClientLost, Wire
from tools.http_rules import Ask, Check, Url, judge, read_target


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a connection of the sandbox may lead.

    Attributes:
        scheme: Of requests that say none (in origin form).
        origins: What may be asked for.
        absolute_only: Whether it is a forward proxy, which needs to be told the origin.
    """

    scheme: str
    origins: Origins
    absolute_only: bool


class Exchange:
    """One request and its answer, on one connection of the sandbox."""

    def __init__(
        self, call: OpenedCall, scope: Scope, client: Wire, upstream: Upstream, began: float
    ) -> None:
        """Prepare.

        Args:
            call: Whose it is.
            scope: Where it may lead.
            client: The sandbox's end.
            upstream: Holds the connection to the target, beyond this exchange.
            began: When its first byte came, by the loop's clock.
        """
        self.line = Line()
        self._call, self._scope, self._client, self._upstream = call, scope, client, upstream
        self._turn = Turn()
        self._answering = Answering(client, self._turn)
        self._began = began
        self._taken_before = client.taken_bytes
        self._link: Link | None = None

    async def run(self, raw: bytes) -> bool:
        """Carry it out, whatever comes; it is noted in the call's records.

        Args:
            raw: The request's head.

        Returns:
            Whether the connection can have another request.
        """
        self._taken_before -= len(raw)
        try:
            head = read_request(raw)
            return await self.answer(head)
        except HeadInvalid as error:
            return await self.refuse(refuse_request(str(error)))
        finally:
            self._call.ledger.note(self.line)

    async def answer(self, head: RequestHead) -> bool:
        """Carry out a request whose head was read."""
        line = self.line
        line.outcome, line.method = Outcome.ABORTED, head.method  # until it ended
        try:
            self._turn.take(head, self._client)
            place, url = self._find(head)
            async with asyncio.timeout_at(self._began + place.access.caps.seconds):
                await self._carry(head, place, url)
            line.outcome = Outcome.ENDED
        except Refusal as refusal:
            return await self.refuse(refusal)
        except HeadInvalid as error:
            return await self.refuse(refuse_request(str(error)))
        except TimeoutError:
            text = "the target's limit of time for one request is over"
            return await self.refuse(Refusal(504, Hurdle.TIME, text, Outcome.TIMED_OUT))
        except ClientLost:
            line.detail = "the sandbox closed the connection before the answer was complete"
            self._client.abort()
            return False
        finally:
            self._settle()
        return self._turn.may_go_on()

    async def refuse(self, refusal: Refusal) -> bool:
        """Answer with a refusal; where an answer has begun already, cut it."""
        line = self.line
        line.outcome, line.detail, line.status = refusal.outcome, refusal.text, refusal.status
        if self._answering.has_begun:
            line.status = self._answering.status
            self._client.abort()
            return False
        await self._answering.refuse(refusal, line.method == "HEAD")
        return self._turn.may_go_on()

    def _settle(self) -> None:
        line, link = self.line, self._link
        line.stripped, line.response_sha256 = self._answering.stripped, self._answering.sha256
        if link is None:
            return
        line.bytes_up = self._client.taken_bytes - self._taken_before
        line.bytes_down = link.wire.taken_bytes
        if line.outcome is not Outcome.ENDED:
            link.can_be_kept = False
        link.wire.taken_bytes = 0
        self._upstream.keep(link)
        self._link = None

    def _find(self, head: RequestHead) -> tuple[Place, Url]:
        """Judge the request.

        Raises:
            Refusal: It may not pass.
        """
        scope = self._scope
        if scope.absolute_only and head.target.startswith("/"):
            text = 'this is a proxy: it wants "http://HOST/PATH" in the request line, or CONNECT'
            raise refuse_request(text)
        url = read_target(head.target, head.host, scope.scheme)
        if url is None:
            text = "its URL, or its Host, is of no form that every parser reads alike"
            raise Refusal(403, Check.URL, text, Outcome.REFUSED)
        if scope.absolute_only and url.scheme == "https":
            raise refuse_request("https goes through CONNECT here")
        place = scope.origins.get(url.origin)
        if place is None:
            text = "no target of this call, or more than one, has this origin"
            raise Refusal(403, Check.TARGET, text, Outcome.REFUSED)
        self.line.target = place.target.name
        self._judge(head, place, url)
        return place, url

    def _judge(self, head: RequestHead, place: Place, url: Url) -> None:
        access = place.access
        if access.opaque:
            text = "this target is opaque: it is reached through CONNECT, in TLS"
            raise Refusal(403, Check.OPAQUE, text, Outcome.REFUSED)
        if not place.count_request():
            text = f"the call made {access.caps.requests} requests at this target, and may make no more"
            raise Refusal(429, Hurdle.LIMIT, text, Outcome.OVER_LIMIT)
        ask = Ask(head.method, url.path, url.query, head.headers)
        verdict = judge(access.allow, ask, access.narrowed)
        if verdict.check is not Check.ALLOWED or verdict.rule is None:
            raise Refusal(403, verdict.check, verdict.why, Outcome.REFUSED)
        self.line.verdict = verdict
        if (head.framing.length or 0) > access.caps.request_bytes:
            raise too_large(access.caps.request_bytes)

    async def _carry(self, head: RequestHead, place: Place, url: Url) -> None:
        """Send the request and pass its answer on.

        Raises:
            Refusal: It cannot be sent, or its answer cannot be passed on.
            ClientLost: Nobody waits for it any more.
        """
        asking = Asking(head, place, url, self._turn, self._client)
        try:
            await asking.read_whole()
            request = asking.write_head(self.line)
            while True:
                link = await self._take_link(place, url, asking.is_repeatable)
                asking.begin(link, request)
                try:
                    await asking.race(self._answer(asking, link, Passage(place, request.sent, head.method)))
                    return
                except NoAnswer as error:
                    if not (link.is_used and asking.is_repeatable):
                        raise refuse_answer("the target ended the connection without an answer") from error
                    link.wire.abort()  # a kept one that had died; the next is a new one
        finally:
            asking.let_go()
            self.line.request_sha256 = asking.sha256

    async def _take_link(self, place: Place, url: Url, is_repeatable: bool) -> Link:
        certificate = place.injector.client_certificate
        link = await self._upstream.take(place.target, url, certificate, is_repeatable)
        self._link, self.line.address = link, link.address
        return link

    async def _answer(self, asking: Asking, link: Link, passage: Passage) -> None:
        answer = await asking.read_answer()
        body = asking.read_body(answer)
        await self._answering.pass_on(answer, body, passage)
        self.line.status = answer.status
        ends = answer.minor == 0 or says_close(answer.headers)
        link.can_be_kept = asking.is_sent and body.is_over and not ends
