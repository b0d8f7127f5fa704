"""Heads of requests and answers: one form, and everything else is refused."""

from __future__ import annotations

import pytest

from sandboxes.proxy.heads import Framing, HeadInvalid, read_answer, read_request

HOST = b"Host: a.example\r\n"
SMUGGLING = {
    "bare LF": b"GET / HTTP/1.1\nHost: a.example\n\r\n\r\n",
    "bare LF in a header": b"GET / HTTP/1.1\r\n" + HOST + b"A: b\nContent-Length: 5\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\n" + HOST + b"A: b\rContent-Length: 5\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\n" + HOST + b"A: b\0c\r\n\r\n",
    "a tab in a value": b"GET / HTTP/1.1\r\n" + HOST + b"A: b\tc\r\n\r\n",
    "obs-fold": b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n\r\n",
    "obs-fold first": b"GET / HTTP/1.1\r\n c: d\r\n" + HOST + b"\r\n",
    "space before colon": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length : 5\r\n\r\n",
    "both lengths": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "the same length twice": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 5\r\ncontent-length: 5\r\n\r\n",
    "a list of lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5, 5\r\n\r\n",
    "a signed length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -5\r\n\r\n",
    "a length in hex": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x5\r\n\r\n",
    "an empty length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length:\r\n\r\n",
    "another coding": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "an odd coding": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n",
    "a coding behind a tab": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "two codings": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n",
    "chunks in 1.0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "upgrade": b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "a method in small letters": b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method that is no word": b"GE(T / HTTP/1.1\r\n" + HOST + b"\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tab": b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a line before": b"\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
    "another version": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\n" + HOST + b": a\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\n" + HOST + b"a\r\n\r\n",
    "bytes beyond ASCII": b"GET / HTTP/1.1\r\n" + HOST + b"A: \xc3\xa9\r\n\r\n",
    "a target beyond ASCII": b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n",
    "too many headers": b"GET / HTTP/1.1\r\n" + HOST + b"a: b\r\n" * 100 + b"\r\n",
    "too long": b"GET / HTTP/1.1\r\n" + HOST + b"a: " + b"b" * 33_000 + b"\r\n\r\n",
    "an odd expectation": b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 200-maybe\r\nContent-Length: 1\r\n\r\n",
}


@pytest.mark.parametrize("raw", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_refuses_a_request_that_can_be_read_in_two_ways(raw: bytes) -> None:
    with pytest.raises(HeadInvalid):
        read_request(raw)


def test_reads_an_ordinary_request() -> None:
    head = read_request(b"POST /a?b HTTP/1.1\r\nHost:a.example\r\nX-A:  b c \r\nContent-Length: 12\r\n\r\n")
    assert (head.method, head.target, head.host, head.minor) == ("POST", "/a?b", "a.example", 1)
    assert head.headers[1] == ("x-a", "b c")
    assert head.framing == Framing(12, chunked=False)


def test_takes_a_request_without_a_length_as_one_without_a_body() -> None:
    assert not read_request(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n").has_body


def test_reads_an_answer_up_to_the_end_of_its_connection() -> None:
    assert read_answer(b"HTTP/1.1 200 OK\r\n\r\n").framing == Framing(None, chunked=False)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_refuses_an_answer_that_can_be_read_in_two_ways(raw: bytes) -> None:
    with pytest.raises(HeadInvalid):
        read_answer(raw)
