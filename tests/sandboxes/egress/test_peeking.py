"""What a sandbox may say first at a target of each kind."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes.egress.peeking import MOST_BYTES, Start, judge_start
from tests.sandboxes.egress.conftest import OPENINGS


def client_hello() -> bytes:
    """What OpenSSL's client says first."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="db.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def startup(version: int, length: int = 23) -> bytes:
    return length.to_bytes(4, "big") + version.to_bytes(4, "big") + b"user\0tool\0\0"


RIGHT = [
    *OPENINGS.items(),
    ("postgresql", startup(3 << 16)),
    ("postgresql", startup((3 << 16) + 2)),
    ("postgresql", startup(3 << 16, 10_000)),
    ("postgresql", bytes.fromhex("00000008 04d21630")),  # GSSENCRequest
    ("postgresql", bytes.fromhex("00000010 04d2162e 00000001 00000002")),  # CancelRequest
    ("ssh", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
    ("smtp", b"ehlo target\r\n"),
    ("smtp", b"QUIT\r\n"),
    ("smtp", b"NOOP\n"),
    ("ldap", bytes.fromhex("3084 0000 0010 0201 01 77 84")),  # as Windows' clients write lengths
    ("ldap", bytes.fromhex("3082 0123 0204 7fffffff 63 82")),
    *((kind, client_hello()) for kind in ("tls", "smtp", "ldap")),
]
WRONG = [
    ("postgresql", startup(2 << 16)),
    ("postgresql", startup(3 << 16, 8)),
    ("postgresql", startup(3 << 16, 10_001)),
    ("postgresql", bytes.fromhex("00000009 04d2162f")),
    ("postgresql", bytes.fromhex("00000008 04d2162e")),  # a CancelRequest without a key
    ("postgresql", bytes.fromhex("0000010d 04d2162e")),
    ("postgresql", bytes.fromhex("51 00000010") + b"select 1\0"),  # a query without a start
    ("postgresql", client_hello()),
    ("ssh", b"SSH-1.5-old\r\n"),
    ("ssh", b"ssh-2.0-x\r\n"),
    ("ssh", b"banner\r\nSSH-2.0-x\r\n"),
    ("smtp", b"MAIL FROM:<a@b>\r\n"),
    ("smtp", b"EHLOX\r\n"),
    ("smtp", b"\r\nEHLO x\r\n"),
    ("smtp", b" EHLO x\r\n"),
    ("ldap", bytes.fromhex("3080 020101 60")),  # without a length
    ("ldap", bytes.fromhex("3004 020101 60")),
    ("ldap", bytes.fromhex("3083 100000 020101 60")),  # 1 MiB
    ("ldap", bytes.fromhex("3085 0000000010 020101 60")),
    ("ldap", bytes.fromhex("300c 040101 60")),
    ("ldap", bytes.fromhex("300c 0200 60")),
    ("ldap", bytes.fromhex("300c 0205 0000000001 60")),
    ("ldap", bytes.fromhex("300c 020101 61")),  # an answer
    ("ldap", bytes.fromhex("310c 020101 60")),
    ("tls", bytes.fromhex("15 0301 0002 0228")),  # an alert
    ("tls", bytes.fromhex("16 0301 0200 02 0001fc 0303")),  # a ServerHello
    ("tls", bytes.fromhex("16 0201 0200 01 0001fc 0303")),
    ("tls", bytes.fromhex("16 0305 0200 01 0001fc 0303")),
    ("tls", bytes.fromhex("16 0301 0004 01 0001fc 0303")),  # cut into tiny records
    ("tls", bytes.fromhex("16 0301 4001 01 0001fc 0303")),
    ("tls", bytes.fromhex("16 0301 0200 01 020000 0303")),
    ("tls", bytes.fromhex("16 0301 0200 01 0001fc 0203")),
    ("tls", bytes.fromhex("802e 0100 02")),  # SSL 2
    ("http", b"GET / HTTP/1.1\r\n"),  # the HTTP proxy's
    ("gopher", b"\r\n"),
    *((kind, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") for kind in OPENINGS),
    *((kind, b"PRI * HTTP/2.0\r\n") for kind in OPENINGS),
    *((kind, b"*1\r\n$4\r\nPING\r\n") for kind in OPENINGS),  # Redis
    *((kind, bytes(40)) for kind in OPENINGS),
    *((kind, b"\xff" * 40) for kind in OPENINGS),
]


@pytest.mark.parametrize(("kind", "said"), RIGHT)
def test_takes_a_beginning_of_its_kind(kind: str, said: bytes) -> None:
    assert judge_start(kind, said[:MOST_BYTES]) is Start.RIGHT


@pytest.mark.parametrize(("kind", "said"), RIGHT)
def test_waits_while_a_right_beginning_comes_in_pieces(kind: str, said: bytes) -> None:
    starts = [judge_start(kind, said[:size]) for size in range(min(len(said), MOST_BYTES) + 1)]

    assert starts == sorted(starts, key=[Start.UNCLEAR, Start.RIGHT].index)
    assert starts[0] is Start.UNCLEAR


@pytest.mark.parametrize(("kind", "said"), WRONG)
def test_refuses_what_is_no_beginning_of_its_kind(kind: str, said: bytes) -> None:
    assert judge_start(kind, said[:MOST_BYTES]) is Start.WRONG


@pytest.mark.parametrize("kind", OPENINGS)
@pytest.mark.parametrize("other", OPENINGS)
def test_refuses_what_is_spoken_elsewhere(kind: str, other: str) -> None:
    fits = kind == other or (other == "tls" and kind in ("smtp", "ldap"))

    assert (judge_start(kind, OPENINGS[other]) is Start.RIGHT) == fits


ANYTHING = st.binary(max_size=MOST_BYTES) | st.builds(
    lambda opening, at, byte: opening[: at % len(opening)] + bytes([byte]) + opening[at % len(opening) :],
    st.sampled_from([said[:MOST_BYTES] for _, said in RIGHT]),
    st.integers(0, MOST_BYTES),
    st.integers(0, 255),
)


@given(st.sampled_from(sorted(OPENINGS)), ANYTHING)
def test_never_takes_back_what_it_said_of_a_part(kind: str, said: bytes) -> None:
    starts = [judge_start(kind, said[:size]) for size in range(len(said) + 1)]
    decided = [start for start in starts if start is not Start.UNCLEAR]

    assert len(set(decided)) <= 1
    assert starts[len(starts) - len(decided) :] == decided


@given(st.sampled_from(sorted(OPENINGS)), st.binary(min_size=MOST_BYTES, max_size=MOST_BYTES))
def test_has_decided_when_it_has_seen_the_most_that_is_kept_back(kind: str, said: bytes) -> None:
    assert judge_start(kind, said) is not Start.UNCLEAR
