"""One connection of the sandbox: requests one after another, or a tunnel."""

from __future__ import annotations

import asyncio
import contextlib

from sandboxes.egress.records import Outcome
from sandboxes.proxy.answering import write_refusal
from sandboxes.proxy.blind import ESTABLISHED, carry
from sandboxes.proxy.calls import OpenedCall, Place
from sandboxes.proxy.exchange import Exchange, Scope
from sandboxes.proxy.heads import HeadInvalid, RequestHead, read_request
from sandboxes.proxy.ledger import Line
from sandboxes.proxy.refusals import Hurdle, Refusal, refuse_request
from sandboxes.proxy.tunnel import TlsRefused, open_tls
from sandboxes.proxy.upstream import Upstream
from sandboxes.proxy.wire import ClientLost, Wire
from tools.http_rules import Authority, Check, make_origin, read_authority

IDLE_SECONDS = 60.0
"""How long a connection may wait for its next request."""
HEAD_SECONDS = 10.0
"""How long a head may take from its first byte to its last; so a TLS handshake."""
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 256 * 1024
_CLOSE_SECONDS = 1.0
"""How long a client may take to say the end of TLS, once it was told all."""
_FLUSH_SECONDS = 30.0
"""How long it may take over what it is told: a slow one gets its whole answer."""


class Connection:
    """A connection that a sandbox made at one of its doors."""

    def __init__(
        self, call: OpenedCall, door: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Take it over.

        Args:
            call: Whose it is.
            door: The target's name; empty for the forward door.
            reader: Of the accepted connection.
            writer: Likewise.
        """
        self._call = call
        self._client = Wire(reader, writer, ClientLost)
        self._raw = writer.transport  # below TLS, once that is opened
        self._upstream = Upstream(call.dialer, call.limits.connect_timeout_seconds)
        target = call.place(door).target if door else None
        scheme = "https" if target is not None and target.is_tls else "http"
        self._scope = Scope(scheme, call.origins(door), absolute_only=not door)
        self._is_forward = not door
        self._began = 0.0

    async def run(self) -> None:
        """Serve it until it ends; it counts as long as this runs, so then its socket is closed, too."""
        try:
            with contextlib.suppress(ClientLost):
                await self._serve()
                await self._end()
        finally:
            self._upstream.close()
            self._client.abort()

    async def _end(self) -> None:
        """Close it; in TLS the client has its part in that, and a time for it."""
        self._upstream.close()
        self._client.close()
        if self._client.writer.can_write_eof():
            return  # not TLS: it is closed at once, and what the client did not take by now is dropped
        closed = asyncio.ensure_future(_wait_closed(self._client.writer))
        try:
            for _ in range(round(_FLUSH_SECONDS / _CLOSE_SECONDS)):
                done, _ = await asyncio.wait({closed}, timeout=_CLOSE_SECONDS)
                if done or not self._has_unsent:
                    return
        finally:
            closed.cancel()

    @property
    def _has_unsent(self) -> bool:
        return self._client.has_unsent or self._raw.get_write_buffer_size() > 0

    async def _serve(self) -> None:
        while (raw := await self._read_head()) is not None:
            if self._is_forward and raw.startswith(b"CONNECT "):
                await self._connect(raw)
                return
            if problem := self._call.count_request():
                await self._refuse(Line(), Refusal(429, Hurdle.LIMIT, problem, Outcome.OVER_LIMIT))
                return
            exchange = Exchange(self._call, self._scope, self._client, self._upstream, self._began)
            if not await exchange.run(raw):
                await _let_read(self._client)
                return
            # Who sends on and on, and takes no answers, fills no memory, and keeps nobody waiting.
            await self._client.drain()
            if self._client.has_unread:
                await asyncio.sleep(0)

    async def _read_head(self) -> bytes | None:
        """Wait for a request; None when there is none any more."""
        loop = asyncio.get_running_loop()
        self._began = 0.0
        try:
            async with asyncio.timeout(IDLE_SECONDS) as patience:

                def begin() -> None:
                    self._began = loop.time()
                    patience.reschedule(self._began + HEAD_SECONDS)

                raw = await self._client.read_head(begin)
                self._began = self._began or loop.time()
                return raw
        except HeadInvalid as error:
            await self._refuse(Line(), refuse_request(str(error)))
        except TimeoutError:
            if self._began:
                text = f"the request's head did not come within {HEAD_SECONDS:g} s"
                await self._refuse(Line(), Refusal(408, Hurdle.TIME, text, Outcome.TIMED_OUT))
        return None

    async def _connect(self, raw: bytes) -> None:
        """Open a tunnel to an origin: requests in it are judged, or TLS goes through it unread."""
        line = Line(method="CONNECT")
        try:
            authority = _read_connect(read_request(raw))
            origin, place = self._find(authority)
            line.target = place.target.name
            if self._client.has_unread:
                raise refuse_request("a tunnel is used only once it is established")
            if place.access.opaque:
                await carry(self._call, place, authority.host, self._client, line)
                return
            await self._open(place, origin, authority, line)
        except HeadInvalid as error:
            await self._refuse(line, refuse_request(str(error)))
        except Refusal as refusal:
            await self._refuse(line, refusal)

    def _find(self, authority: Authority) -> tuple[str, Place]:
        for scheme in ("https", "http"):
            origin = make_origin(scheme, authority.host, authority.port)
            if (place := self._scope.origins.get(origin)) is not None:
                return origin, place
        text = "no target of this call, or more than one, has this host and port"
        raise Refusal(403, Check.TARGET, text, Outcome.REFUSED)

    async def _open(self, place: Place, origin: str, authority: Authority, line: Line) -> None:
        """Go on with requests to one origin, in TLS where it is https."""
        scheme = origin.partition(":")[0]
        if scheme == "https":
            await self._open_tls(place, authority, line)
        else:
            self._client.write(ESTABLISHED)
        self._scope = Scope(scheme, {origin: place}, absolute_only=False)
        self._is_forward = False
        await self._serve()

    async def _open_tls(self, place: Place, authority: Authority, line: Line) -> None:
        if self._call.leaves is None:
            raise Refusal(502, Hurdle.TLS, "the call has no authority of its own", Outcome.PROTOCOL_REFUSED)
        try:
            context = self._call.leaves.context(authority.host)
        except ValueError as error:
            raise Refusal(502, Hurdle.TLS, "no certificate can name this host", Outcome.REFUSED) from error
        self._client.write(ESTABLISHED)
        try:
            await open_tls(self._client.writer, context, HEAD_SECONDS)
        except TlsRefused as error:
            line.outcome, line.detail, line.status = Outcome.PROTOCOL_REFUSED, str(error), 200
            self._call.ledger.note(line)
            raise ClientLost from error

    async def _refuse(self, line: Line, refusal: Refusal) -> None:
        """Say no, and end the connection."""
        line.outcome, line.detail, line.status = refusal.outcome, refusal.text, refusal.status
        self._call.ledger.note(line)
        self._client.write(write_refusal(refusal))
        await _let_read(self._client)


def _read_connect(head: RequestHead) -> Authority:
    """Read what a CONNECT is for.

    Raises:
        Refusal: It is not of the one form, or its Host says something else.
    """
    authority = read_authority(head.target)
    if authority is None or head.has_body:
        raise refuse_request('CONNECT wants "HOST:PORT", in lower case, and nothing else')
    if head.host is not None and read_authority(head.host, authority.port) != authority:
        raise refuse_request("CONNECT and its Host header name different hosts")
    return authority


def turn_away(
    call: OpenedCall, problem: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Refuse a connection that is one too many; where there are not many of those, so that it is read."""
    refusal = Refusal(503, Hurdle.LIMIT, problem, Outcome.OVER_LIMIT)
    call.ledger.note(Line(outcome=refusal.outcome, detail=refusal.text, status=refusal.status))
    writer.write(write_refusal(refusal))
    if call.can_linger():
        call.hold(_let_read(Wire(reader, writer, ClientLost)), writer, is_counted=False)
    else:
        writer.transport.abort()  # what the kernel took is read still, and it took this at once


async def _wait_closed(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # it was reset, or TLS was not ended as it should be
        await writer.wait_closed()


async def _let_read(client: Wire) -> None:
    """Let the client read what it was told before what it still sends resets the connection."""
    left = _LINGER_BYTES
    try:
        with contextlib.suppress(TimeoutError, ClientLost, OSError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await client.drain()
                if not client.writer.can_write_eof():
                    return  # TLS: its end is said when it is closed
                client.writer.write_eof()
                while left > 0 and (data := await client.read()):
                    left -= len(data)
    finally:
        client.close()
