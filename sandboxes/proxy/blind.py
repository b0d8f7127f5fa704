"""A tunnel to an opaque target: TLS is carried without a look, once its first message names the host."""

from __future__ import annotations

from sandboxes.egress.records import Outcome
from sandboxes.proxy.calls import OpenedCall, Place
from sandboxes.proxy.dialing import Dialed, DialFailed
from sandboxes.proxy.hello import LIMIT_BYTES, Hello, HelloRefused, read_hello
from sandboxes.proxy.ledger import Line
from sandboxes.proxy.refusals import Hurdle, Refusal
from sandboxes.proxy.tunnel import Carried, Ending, TunnelCaps, carry_blind
from sandboxes.proxy.upstream import explain
from sandboxes.proxy.wire import Wire
from tools.http_rules import Check

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_HELLO_SECONDS = 10.0
_OUTCOMES = {
    Ending.ENDED: Outcome.ENDED,
    Ending.CUT: Outcome.CUT,
    Ending.TIMED_OUT: Outcome.TIMED_OUT,
    Ending.LOST: Outcome.ENDED,
}


async def carry(call: OpenedCall, place: Place, host: str, client: Wire, line: Line) -> None:
    """Answer a CONNECT and carry what follows; it is noted in the call's records.

    Args:
        call: Whose it is.
        place: The target.
        host: That the CONNECT names; the ClientHello has to name it, too.
        client: The sandbox's end.
        line: Its record so far.

    Raises:
        Refusal: There is no connection, or none may be made: nothing was answered yet.
    """
    _admit(place)
    seconds = float(call.limits.connect_timeout_seconds)
    try:
        dialed = await call.dialer.dial(place.target, host, opened=False, seconds=seconds)
    except DialFailed as error:
        raise explain(error) from error
    line.address = dialed.address
    line.outcome, line.status = Outcome.ABORTED, 200  # until it ended
    carried = Carried()
    try:
        client.write(ESTABLISHED)
        line.outcome = _OUTCOMES[await _carry(place, host, client, dialed, carried)]
    except HelloRefused as error:
        # Too late for an answer in HTTP: the client speaks TLS already.
        line.outcome, line.detail = Outcome.PROTOCOL_REFUSED, str(error)
        client.abort()
    finally:
        dialed.writer.transport.abort()
        line.bytes_up, line.bytes_down = carried.up_bytes, carried.down_bytes
        call.ledger.note(line)


def _admit(place: Place) -> None:
    if place.access.narrowed is not None:
        text = "the grant's rules cannot be held to a target that is opaque"
        raise Refusal(403, Check.GRANT, text, Outcome.REFUSED)
    if not place.count_request():
        text = f"the call made {place.access.caps.requests} connections to this target, and may make no more"
        raise Refusal(429, Hurdle.LIMIT, text, Outcome.OVER_LIMIT)


async def _carry(place: Place, host: str, client: Wire, dialed: Dialed, carried: Carried) -> Ending:
    hello = await _read_hello(client, host)
    dialed.writer.write(hello.raw)
    carried.up_bytes = len(hello.raw)
    caps = place.access.caps
    tunnel_caps = TunnelCaps(caps.request_bytes, caps.response_bytes, caps.seconds)
    ends = ((client.reader, client.writer), (dialed.reader, dialed.writer))
    await carry_blind(*ends, tunnel_caps, carried)
    return carried.ending


async def _read_hello(client: Wire, host: str) -> Hello:
    hello = await read_hello(client.reader, LIMIT_BYTES, _HELLO_SECONDS)
    problem = hello.check_name(host)
    if problem is not None:
        raise HelloRefused(problem)
    return hello
