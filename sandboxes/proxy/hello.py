"""The first message of a TLS client, read before a blind tunnel is opened: which host does it ask for?

The proxy cannot see into a blind tunnel. The ClientHello is the one part in clear, so it is held to the host
of the CONNECT. It is taken apart twice, here and by OpenSSL, and both need to find the same name; a message
that only one of them understands is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

LIMIT_BYTES = 16_389
"""One TLS record with its frame: 5 + 16,384 bytes (RFC 8446, 5.1). Real ones have 300 to 2,500."""

_HEADER_BYTES = 5
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ALPN, _ENCRYPTED_HELLO = 0, 16, 0xFE0D


class HelloRefused(Exception):
    """What came is no ClientHello that may pass; nothing that was sent stands in the text."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A ClientHello.

    Attributes:
        raw: Its bytes, to be sent on unchanged.
        server_name: Of its SNI, in lower case; empty where it has none.
        alpn: The protocols that the client offers, for example ("h2", "http/1.1").
        is_encrypted: Whether an encrypted inner hello comes with it (RFC 9849), or random bytes that look so.
    """

    raw: bytes
    server_name: str
    alpn: tuple[str, ...]
    is_encrypted: bool

    def check_name(self, host: str) -> str | None:
        """Hold it to the host of the CONNECT.

        Returns:
            None when it names that host, otherwise what is wrong.
        """
        if not self.server_name:
            return "the ClientHello names no host (SNI); a tunnel needs one, and an address has none"
        if self.server_name != host.lower():
            return "the ClientHello names another host (SNI) than the CONNECT"
        return None


async def read_hello(reader: asyncio.StreamReader, limit: int = LIMIT_BYTES, seconds: float = 5.0) -> Hello:
    """Read a ClientHello, and no byte after it.

    Args:
        reader: Right after the answer to CONNECT.
        limit: Bytes that it may have.
        seconds: For all of it: a client that sends byte by byte has no more.

    Raises:
        HelloRefused: It is none: plain text, SSL 2, in pieces over records, too long, too slow, broken.
    """
    try:
        async with asyncio.timeout(seconds):
            header = await reader.readexactly(_HEADER_BYTES)
            length = _read_length(header, limit)
            body = await reader.readexactly(length)
    except TimeoutError as error:
        raise HelloRefused(f"no ClientHello came within {seconds:g} s") from error
    except asyncio.IncompleteReadError as error:
        raise HelloRefused("the connection ended before a whole ClientHello came") from error
    except OSError as error:
        raise HelloRefused("the connection was lost before a whole ClientHello came") from error
    return parse_hello(header + body)


def parse_hello(raw: bytes) -> Hello:
    """Take a record with one whole ClientHello apart.

    Raises:
        HelloRefused: It is none.
    """
    try:
        extensions = dict(_read_extensions(raw[_HEADER_BYTES:]))
        server_name = _read_server_name(extensions.get(_SERVER_NAME))
        alpn = _read_alpn(extensions.get(_ALPN))
    except (_Broken, UnicodeDecodeError) as error:
        raise HelloRefused("the ClientHello is broken, or comes in pieces") from error
    if _name_by_openssl(raw) != server_name:
        raise HelloRefused("the ClientHello can be read in two ways")
    return Hello(raw, server_name.lower(), alpn, _ENCRYPTED_HELLO in extensions)


def _read_length(header: bytes, limit: int) -> int:
    kind, major, length = header[0], header[1], int.from_bytes(header[3:5], "big")
    if kind != _HANDSHAKE or major != 3:
        raise HelloRefused("what came is no TLS; a tunnel carries nothing else")
    if not 4 < length <= limit - _HEADER_BYTES:
        raise HelloRefused(f"the ClientHello has more than {limit} bytes, or none")
    return length


class _Broken(Exception):
    pass


class _Octets:
    """Bytes that are taken from the front."""

    def __init__(self, content: bytes) -> None:
        self._rest = memoryview(content)

    def __bool__(self) -> bool:
        return len(self._rest) > 0

    def take(self, count: int) -> bytes:
        if count > len(self._rest):
            raise _Broken
        taken, self._rest = bytes(self._rest[:count]), self._rest[count:]
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        """Take what is preceded by its length in `width` bytes."""
        return self.take(self.number(width))

    def end(self) -> None:
        if self:
            raise _Broken


def _read_extensions(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk through a ClientHello (RFC 8446, 4.1.2); of what stands twice nothing is believed."""
    outer = _Octets(message)
    if outer.number(1) != _CLIENT_HELLO:
        raise _Broken
    body = _Octets(outer.vector(3))
    outer.end()  # a second message in the record
    body.take(2 + 32)  # legacy version, random
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        body.vector(width)
    extensions = _Octets(body.vector(2)) if body else _Octets(b"")
    body.end()
    seen: set[int] = set()
    while extensions:
        kind = extensions.number(2)
        if kind in seen:
            raise _Broken
        seen.add(kind)
        yield kind, extensions.vector(2)


def _read_server_name(content: bytes | None) -> str:
    """Read the one name of an SNI extension (RFC 6066, 3)."""
    if content is None:
        return ""
    outer = _Octets(content)
    names = _Octets(outer.vector(2))
    outer.end()
    if names.number(1) != 0:  # its type: host_name
        raise _Broken
    name = names.vector(2)
    names.end()
    if not name:
        raise _Broken
    return name.decode("ascii")


def _read_alpn(content: bytes | None) -> tuple[str, ...]:
    """Read the offered protocols (RFC 7301, 3.1)."""
    if content is None:
        return ()
    outer = _Octets(content)
    names = _Octets(outer.vector(2))
    outer.end()
    offered = []
    while names:
        offered.append(names.vector(1).decode("latin-1"))
    return tuple(offered)


def _name_by_openssl(raw: bytes) -> str:
    """Have OpenSSL read the same bytes, and give the name that it finds; empty for none.

    Raises:
        HelloRefused: It finds no ClientHello of TLS 1.2 or later.
    """
    found: list[str] = []

    def hear(_connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int:
        found.append(name or "")
        return ssl.ALERT_DESCRIPTION_USER_CANCELLED  # ends it here: nothing of it is answered

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sni_callback = hear
    incoming = ssl.MemoryBIO()
    incoming.write(raw)
    with contextlib.suppress(ssl.SSLError):  # it is ended by `hear`, or before
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    if not found:
        raise HelloRefused("the ClientHello is none of TLS 1.2 or later")
    return found[0]
