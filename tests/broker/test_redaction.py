"""A secret is found in every listed spelling, wherever it stands in a text."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.redaction import Redaction
from credentials.lease import Lease
from credentials.secret import Secret

SECRET = "p4ss-w0rd-of-th1s-call"


def make_redaction(secret: str = SECRET) -> Redaction:
    lease = Lease("orders", "lease", "accessor", "v-orders-x1", Secret(secret), datetime.now(UTC), 60)
    return Redaction([lease])


@pytest.mark.parametrize(
    "spelling",
    [SECRET, SECRET[::-1], SECRET.encode().hex(), SECRET.encode().hex().upper()],
)
def test_finds_a_secret_in_each_spelling(spelling):
    assert make_redaction().finds(f"before {spelling} after")


@given(before=st.binary(max_size=9), after=st.binary(max_size=9))
def test_finds_a_secret_inside_any_base64(before, after):
    assert make_redaction().finds(base64.b64encode(before + SECRET.encode() + after).decode())


@given(st.text(max_size=200))
def test_finds_nothing_in_other_texts(text):
    assert not make_redaction("Zq9-" * 8).finds(text)


def test_takes_secret_and_user_name_out_of_an_error():
    cleaned = make_redaction().clean(f"login of v-orders-x1 with {SECRET} failed")
    assert cleaned == "login of [redacted] with [redacted] failed"


def test_finds_nothing_where_nothing_was_minted():
    assert not Redaction([]).finds("anything")
