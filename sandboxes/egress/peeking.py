"""What a sandbox says first, judged by the kind of its target before anything of it is passed on.

So a socket to a mail server is no way to speak to whatever else may listen there, and what no client of that
kind begins with reaches nobody. Only the beginning is judged, what follows is carried unread. The fewest
bytes that decide are looked at, at most `MOST_BYTES`:

    postgresql   StartupMessage 3.x, SSLRequest, GSSENCRequest, CancelRequest, of lengths that they can have
    ssh          "SSH-2.0-"
    smtp         a verb that may come before a mail, or TLS; the server speaks first, and that passes at once
    ldap         an LDAPMessage: a BER SEQUENCE of a length within reason, a message id, a request; or TLS
    tls          a handshake record that begins a ClientHello

A kind that is not in this list is refused: nobody speaks it here.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping

MOST_BYTES = 32
"""What is kept back at most while it is not clear."""


class Start(enum.Enum):
    """What the first bytes are."""

    UNCLEAR = "more is needed to tell"
    RIGHT = "a beginning of its kind"
    WRONG = "no beginning of its kind"


def judge_start(kind: str, data: bytes) -> Start:
    """Judge the first bytes of a connection to a target of a kind."""
    judge = _JUDGES.get(kind)
    return Start.WRONG if judge is None else judge(data)


# PostgreSQL 18, "Message Formats": length of the whole, then a code. MAX_STARTUP_PACKET_LENGTH is 10,000; the
# key of a CancelRequest has 4 bytes, since protocol 3.2 up to 256.
_POSTGRESQL_HEAD = struct.Struct(">II")
_POSTGRESQL_CODES: Mapping[int, tuple[int, int]] = {
    80_877_102: (16, 268),  # CancelRequest
    80_877_103: (8, 8),  # SSLRequest
    80_877_104: (8, 8),  # GSSENCRequest
}
_STARTUP_LENGTHS = (9, 10_000)


def _judge_postgresql(data: bytes) -> Start:
    if len(data) < _POSTGRESQL_HEAD.size:
        return Start.UNCLEAR if data[:2] in (b"", b"\0", b"\0\0") else Start.WRONG
    length, code = _POSTGRESQL_HEAD.unpack_from(data)
    startup = _STARTUP_LENGTHS if code >> 16 == 3 else (1, 0)
    low, high = _POSTGRESQL_CODES.get(code, startup)
    return Start.RIGHT if low <= length <= high else Start.WRONG


# RFC 4253, section 4.2: the client's first line; only the server may say something before its own.
_SSH = b"SSH-2.0-"


def _judge_ssh(data: bytes) -> Start:
    return _judge_prefix(data, _SSH)


# RFC 5321, section 4.1.4: what may come without a session. LHLO is that of RFC 2033.
_VERBS = frozenset({b"EHLO", b"HELO", b"LHLO", b"NOOP", b"QUIT", b"RSET", b"HELP"})
_VERB_BYTES = 4


def _judge_smtp(data: bytes) -> Start:
    if data[:1] == _TLS_HANDSHAKE:
        return _judge_tls(data)
    said = data[:_VERB_BYTES].upper()
    if not any(verb.startswith(said) for verb in _VERBS):
        return Start.WRONG
    if len(data) <= _VERB_BYTES:
        return Start.UNCLEAR
    return Start.RIGHT if data[_VERB_BYTES : _VERB_BYTES + 1] in b" \r\n" else Start.WRONG


# RFC 4511, section 4.1.1 and 5.1: definite lengths only; requests by their tag.
_SEQUENCE, _INTEGER = 0x30, 0x02
_LDAP_REQUESTS = frozenset({0x60, 0x42, 0x63, 0x66, 0x68, 0x4A, 0x6C, 0x6E, 0x50, 0x77})
_LDAP_LENGTHS = range(5, 1024 * 1024)
_SHORT_FORM, _LENGTH_BYTES = 0x80, range(1, 5)


def _judge_ldap(data: bytes) -> Start:
    if data[:1] == _TLS_HANDSHAKE:
        return _judge_tls(data)
    if data[:1] not in (b"", bytes([_SEQUENCE])):
        return Start.WRONG
    try:
        length, at = _read_length(data, 1)
        if length not in _LDAP_LENGTHS or data[at] != _INTEGER:
            return Start.WRONG
        id_bytes = data[at + 1]
        if id_bytes not in _LENGTH_BYTES:
            return Start.WRONG
        return Start.RIGHT if data[at + 2 + id_bytes] in _LDAP_REQUESTS else Start.WRONG
    except IndexError:
        return Start.UNCLEAR


def _read_length(data: bytes, at: int) -> tuple[int, int]:
    """Read a BER length; what cannot be one is -1.

    Returns:
        The length, and where its content begins.

    Raises:
        IndexError: There are not enough bytes.
    """
    first = data[at]
    if first < _SHORT_FORM:
        return first, at + 1
    count = first - _SHORT_FORM
    if count not in _LENGTH_BYTES:
        return -1, at + 1
    end = at + 1 + count
    _ = data[end - 1]  # all of it is there
    return int.from_bytes(data[at + 1 : end], "big"), end


# RFC 8446, sections 4.1.2 and 5.1: a record of type handshake, version 3.x, and in it a ClientHello.
_TLS_HANDSHAKE = b"\x16"
_TLS_MAJOR, _CLIENT_HELLO = 0x03, 0x01
_TLS_MINORS = range(5)
_RECORD_LENGTHS = range(40, 2**14 + 1)
_HELLO_LENGTHS = range(36, 2**17)


def _judge_tls(data: bytes) -> Start:
    try:
        record = int.from_bytes(data[3:5], "big")
        hello = int.from_bytes(data[6:9], "big")
        wrong = (
            data[0] != _TLS_HANDSHAKE[0]
            or data[1] != _TLS_MAJOR
            or data[2] not in _TLS_MINORS
            or (len(data) >= 5 and record not in _RECORD_LENGTHS)
            or data[5] != _CLIENT_HELLO
            or (len(data) >= 9 and hello not in _HELLO_LENGTHS)
            or data[9] != _TLS_MAJOR
        )
    except IndexError:
        return Start.UNCLEAR
    return Start.WRONG if wrong else Start.RIGHT


def _judge_prefix(data: bytes, prefix: bytes) -> Start:
    if data.startswith(prefix):
        return Start.RIGHT
    return Start.UNCLEAR if prefix.startswith(data) else Start.WRONG


_JUDGES: Mapping[str, Callable[[bytes], Start]] = {
    "postgresql": _judge_postgresql,
    "ssh": _judge_ssh,
    "smtp": _judge_smtp,
    "ldap": _judge_ldap,
    "tls": _judge_tls,
}
