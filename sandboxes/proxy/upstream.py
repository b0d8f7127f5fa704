"""The one connection to a target that a connection of the sandbox has: kept while the origin is the same.

Rules:
1. Another origin, target or credential means another connection, looked up and checked anew.
2. A kept connection is used again only when the target said nothing since: what it says unasked would be
   taken for the answer to the next request.
"""

from __future__ import annotations

import asyncio

from sandboxes.egress.records import Outcome
from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.dialing import ClientCertificate, Dialer, DialFailed, Obstacle
from sandboxes.proxy.refusals import Hurdle, Refusal
from sandboxes.proxy.wire import TargetLost, Wire
from tools.http_rules import Url

_FRESH_SECONDS = 1.0
"""How long a kept connection is trusted with a request that must not be sent twice."""


class Link:
    """A connection to a target.

    Attributes:
        is_used: Whether a request went over it before.
        can_be_kept: Whether another may, when the answer is complete.
    """

    def __init__(self, wire: Wire, address: str, origin: str) -> None:
        self.wire, self.address, self.origin = wire, address, origin
        self.is_used = self.can_be_kept = False
        self.idle_since = 0.0


class Upstream:
    """Holds at most one connection to a target."""

    def __init__(self, dialer: Dialer, connect_seconds: float) -> None:
        self._dialer, self._connect_seconds = dialer, connect_seconds
        self._link: Link | None = None

    async def take(
        self, target: HttpTarget, url: Url, certificate: ClientCertificate | None, repeatable: bool
    ) -> Link:
        """Give a connection to an origin; it is kept by `keep` only.

        Args:
            target: Whose origin it is.
            url: What is asked for.
            certificate: What the target is shown.
            repeatable: Whether the request may be sent again when a kept connection turns out to be dead.

        Raises:
            Refusal: There is none to be had.
        """
        link, self._link = self._link, None
        if link is not None and self._fits(link, url, repeatable):
            return link
        if link is not None:
            link.wire.abort()
        return await self._dial(target, url, certificate)

    def keep(self, link: Link) -> None:
        """Keep a connection for the next request, or end it."""
        if not link.can_be_kept:
            link.wire.abort()
            return
        link.is_used, link.idle_since = True, asyncio.get_running_loop().time()
        self._link = link

    def close(self) -> None:
        """End what is kept."""
        link, self._link = self._link, None
        if link is not None:
            link.wire.abort()

    def _fits(self, link: Link, url: Url, repeatable: bool) -> bool:
        if link.origin != url.origin or link.wire.has_unread:
            return False
        return repeatable or asyncio.get_running_loop().time() - link.idle_since < _FRESH_SECONDS

    async def _dial(self, target: HttpTarget, url: Url, certificate: ClientCertificate | None) -> Link:
        try:
            dialed = await self._dialer.dial(
                target,
                url.host,
                opened=target.is_tls,
                seconds=self._connect_seconds,
                certificate=certificate,
            )
        except DialFailed as error:
            raise explain(error) from error
        return Link(Wire(dialed.reader, dialed.writer, TargetLost), dialed.address, url.origin)


def explain(error: DialFailed) -> Refusal:
    """Say to the sandbox why there is no connection."""
    if error.kind in {Obstacle.ADDRESS, Obstacle.HOST}:
        return Refusal(403, Hurdle.ADDRESS, error.text, Outcome.REFUSED)
    status = 504 if error.kind is Obstacle.TIME else 502
    return Refusal(status, Hurdle.CONNECT, error.text, Outcome.CONNECT_FAILED)
