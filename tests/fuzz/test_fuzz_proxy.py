"""The proxy's fuzzer in its short form, and proof that it would see what it looks for."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.fuzz_proxy import SECRET, Mutator, check_heard, fuzz

CASES = 300
LONG = bool(os.environ.get("TOOLCRIB_LONG"))
HEAD = b"POST /ok/1 HTTP/1.1\r\nhost: pages.example\r\nauthorization: Bearer " + SECRET.encode() + b"\r\n"


async def test_passes_nothing_on_but_what_a_rule_allows() -> None:
    tally = await fuzz(seed=7, seconds=1e6, most=CASES * (20 if LONG else 1))
    assert tally.failures == []
    assert tally.heard > tally.cases / 10
    assert tally.statuses["400"] > tally.cases / 10


def test_makes_the_same_case_of_the_same_number() -> None:
    assert Mutator(1, 3).make_request() == Mutator(1, 3).make_request()
    assert Mutator(1, 3).make_request() != Mutator(1, 4).make_request()


def test_counts_what_a_target_may_hear() -> None:
    chunked = HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    assert check_heard(chunked + HEAD + b"content-length: 2\r\n\r\nhi" + HEAD + b"\r\n") == 3


@pytest.mark.parametrize(
    "heard",
    [
        b"DELETE /all HTTP/1.1\r\nhost: pages.example\r\n\r\n",
        HEAD.replace(b"host: pages", b"host: evil") + b"\r\n",
        HEAD.replace(b"authorization", b"accept") + b"\r\n",
        HEAD + b"cookie: a\r\n\r\n",
        HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        HEAD + b"content-length: 2\r\n\r\nhiDELETE /all HTTP/1.1\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nDELETE",
    ],
)
def test_sees_what_a_target_must_not_hear(heard: bytes) -> None:
    with pytest.raises(AssertionError):
        check_heard(heard)
