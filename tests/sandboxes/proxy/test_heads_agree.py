"""Whatever head is read here, h11 reads likewise: the one form is a part of what another parser takes."""

from __future__ import annotations

import random

import h11

from sandboxes.proxy.heads import (
    AnswerHead,
    Headers,
    HeadInvalid,
    RequestHead,
    read_answer,
    read_request,
    write_answer,
    write_request,
)

CASES = 6_000
STARTS = [
    "GET / HTTP/1.1",
    "GET http://a.example/b?c HTTP/1.0",
    "CONNECT a.example:443 HTTP/1.1",
    "HEAD /\t HTTP/1.1",
]
ANSWERS = [
    "HTTP/1.1 200 OK",
    "HTTP/1.1 204",
    "HTTP/1.0 404 Not\tFound",
    "HTTP/1.1 99 No",
    "HTTP/1.1 500 \xe9",
]
NAMES = ["Host", "host", "A", "x-y", "Content-Length", "Transfer-Encoding", "Connection", "Expect", "a b", ""]
VALUES = [
    "a.example",
    "",
    " ",
    "1",
    "01",
    "1_0",
    "+1",
    "chunked",
    "Chunked ",
    "close",
    "100-continue",
    "a\tb",
    "\xe9",
    "\x01",
    ",",
]
ENDS = ["\r\n"] * 12 + ["\n", "\r", "\r\n ", "\0\r\n"]


def make_head(chance: random.Random, starts: list[str]) -> bytes:
    lines = [f"{chance.choice(NAMES)}{chance.choice([':', ': '])}{chance.choice(VALUES)}" for _ in range(3)]
    lines = [chance.choice(starts), *["Host: a.example"] * chance.randrange(2), *lines[: chance.randrange(4)]]
    return ("".join(line + chance.choice(ENDS) for line in lines) + "\r\n").encode("latin-1")


def headers_of(event: h11.Request | h11.Response | h11.InformationalResponse) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]


def same(headers: Headers, event: h11.Request | h11.Response | h11.InformationalResponse) -> bool:
    """Compare; h11 puts Host first and writes codings in small letters."""
    return sorted((name, value.lower()) for name, value in headers) == sorted(
        (name, value.lower()) for name, value in headers_of(event)
    )


def parse(raw: bytes) -> tuple[RequestHead, h11.Request] | None:
    """Read a request's head here, and where it is read, by h11."""
    try:
        head = read_request(raw)
    except HeadInvalid:
        return None
    other = h11.Connection(h11.SERVER)
    other.receive_data(raw)
    event = other.next_event()
    assert isinstance(event, h11.Request)
    assert (other.next_event() is h11.NEED_DATA) == head.has_body
    return head, event


def parse_answer(raw: bytes) -> tuple[AnswerHead, h11.Response | h11.InformationalResponse] | None:
    try:
        head = read_answer(raw)
    except HeadInvalid:
        return None
    other = h11.Connection(h11.CLIENT)
    other.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    other.receive_data(raw)
    event = other.next_event()
    assert isinstance(event, h11.Response | h11.InformationalResponse)
    return head, event


def test_reads_no_request_otherwise_than_h11() -> None:
    chance, read = random.Random(5), 0
    for _ in range(CASES):
        if (found := parse(make_head(chance, STARTS))) is not None:
            head, event = found
            read += 1
            assert (head.method, head.target) == (event.method.decode(), event.target.decode())
            assert same(head.headers, event)
    assert read > CASES / 50


def test_reads_no_answer_otherwise_than_h11() -> None:
    chance, read = random.Random(6), 0
    for _ in range(CASES):
        if (found := parse_answer(make_head(chance, ANSWERS))) is not None:
            head, event = found
            read += 1
            assert head.status == event.status_code and same(head.headers, event)
    assert read > CASES / 50


def write_or_refuse(headers: list[tuple[bytes, bytes]]) -> bool:
    """Write a request and an answer; what is written is read again as it was meant."""
    try:
        raw, answer = write_request("GET", "/", headers), write_answer(200, headers)
    except HeadInvalid:
        return False
    meant = [(name.decode().lower(), value.decode("latin-1").strip(" \t")) for name, value in headers]
    for event in (h11.Connection(h11.SERVER), h11.Connection(h11.CLIENT)):
        if event.our_role is h11.CLIENT:
            event.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
        event.receive_data(raw if event.our_role is h11.SERVER else answer)
        assert sorted(headers_of(event.next_event())) == sorted(meant)  # type: ignore[arg-type]
    return True


def test_writes_no_header_that_is_two() -> None:
    chance, written = random.Random(7), 0
    parts = ["a", "b: c", "\r\nx: y", "\n", "\r", "\0", " ", "\t", "\xff", "\r\n\r\n", "Evil: 1\r\n"]
    for _ in range(CASES):
        value = "".join(chance.choices(parts, k=chance.randrange(4))).encode("latin-1")
        name = chance.choice([b"a", b"x-y", b"a\r\nb", b"a:b", b"", b" a"])
        written += write_or_refuse([(b"host", b"a"), (name, value)])
    assert written > CASES / 50
