"""A secret is found in every listed spelling, wherever it stands in a text, and only what holds it goes."""

from __future__ import annotations

import base64
import logging
import pickle
import secrets
import string
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from broker.redaction import REDACTED, Redaction
from credentials.lease import KeyValues, Lease, Payload, UsernamePassword
from credentials.secret import Secret
from credentials.spellings import drop_unseen
from sandboxes.conversation import CUT_NOTE
from tests.broker.disguises import DISGUISES, STACKED

SECRET = "p4ss-w0rd/of+th1s c\\all%21 é€😀"
PLAIN = st.text(string.ascii_letters + string.digits + ' .,:;=&?"{}[]\n', max_size=20)


def make_lease(payload: Payload, name: str = "orders") -> Lease:
    now = datetime.now(UTC)
    return Lease(name, "lease", "accessor", "database", "role", payload, now, now)


def make_redaction(secret: str = SECRET) -> Redaction:
    return Redaction([make_lease(UsernamePassword("v-orders-x1", Secret(secret)))])


@pytest.mark.parametrize("name", [*DISGUISES, *STACKED])
@given(before=PLAIN, after=PLAIN)
def test_takes_a_secret_out_in_each_disguise(name: str, before: str, after: str):
    hidden = (DISGUISES | STACKED)[name](SECRET)
    cleaned = make_redaction().clean(f"{before}-{hidden}-{after}")
    assert cleaned.found == {"orders"}
    assert REDACTED in cleaned.text
    assert not make_redaction().find(cleaned.text)


@pytest.mark.parametrize("name", DISGUISES)
@given(secret=st.text(st.characters(exclude_categories=["Cs"]), min_size=12, max_size=40))
def test_finds_any_secret_in_each_disguise(name: str, secret: str):
    assume(len(drop_unseen(secret)) >= 12)
    assert make_redaction(secret).find(f"before {DISGUISES[name](secret)} after")


@pytest.mark.parametrize("name", DISGUISES)
def test_leaves_the_text_around_a_secret(name: str):
    cleaned = make_redaction().clean(f"login: {DISGUISES[name](SECRET)} :failed")
    assert cleaned.text.startswith("login: ")
    assert cleaned.text.endswith(" :failed")


@given(st.text(max_size=200))
def test_finds_nothing_in_other_texts(text: str):
    assert not make_redaction("Zq9-" * 8).find(text)


@given(st.binary(max_size=200))
def test_finds_nothing_in_other_bytes(data: bytes):
    assert not make_redaction("Zq9-" * 8).find_bytes(data)


@given(before=st.binary(max_size=9), after=st.binary(max_size=9))
def test_finds_a_secret_among_any_bytes(before: bytes, after: bytes):
    assert make_redaction().find_bytes(before + SECRET.encode() + after)


@pytest.mark.parametrize("secret", ["p4ss-w0rd/of+th1s", SECRET, "A%41\\u0042-%5c"])
@pytest.mark.parametrize("name", [*DISGUISES, *STACKED])
def test_finds_a_secret_in_bytes_that_are_no_text(secret: str, name: str):
    hidden = (DISGUISES | STACKED)[name](secret).encode()
    for before, after in ((b"\xff", b"\xfe"), (b"\x00\x80 a", b"\xc3%"), (b"", b"\\\xff")):
        assert make_redaction(secret).find_bytes(before + hidden + after)
    assert not make_redaction(secret).find_bytes(b"\xff" + hidden[:4] + b"\xff")


def test_finds_a_secret_in_bytes_of_two_a_character():
    assert make_redaction("p4ss-w0rd/of+th1s").find_bytes("p4ss-w0rd/of+th1s".encode("utf-16-le"))


@pytest.mark.parametrize(
    "disguise", [bytes, lambda raw: raw[::-1], base64.b64encode, lambda raw: raw.hex().encode()]
)
def test_finds_the_bytes_that_a_key_stands_for(disguise):
    raw = secrets.token_bytes(200)
    body = base64.b64encode(raw).decode()
    assert make_redaction(body).find_bytes(b"\xff\x00" + disguise(raw) + b"\xc3")
    assert make_redaction(body).find("\n".join(body[at : at + 64] for at in range(0, len(body), 64)))


def test_takes_secret_and_user_name_out_of_an_error():
    cleaned = make_redaction().clean(f"login of v-orders-x1 with {SECRET} failed")
    assert cleaned == ("login of [redacted] with [redacted] failed", {"orders"})


def test_says_nothing_of_a_user_name():
    assert make_redaction().clean("login of v-orders-x1") == ("login of [redacted]", frozenset())


def test_takes_every_value_of_every_credential_out():
    values = KeyValues({"a": Secret("first-value-1"), "b": Secret("second-value-2"), "c": Secret("")}, 1)
    redaction = Redaction([make_lease(values, "kv"), make_lease(UsernamePassword("v-x", Secret(SECRET)))])
    cleaned = redaction.clean(f"first-value-1 {SECRET[::-1]} second-value-2")
    assert cleaned == ("[redacted] [redacted] [redacted]", {"kv", "orders"})


@pytest.mark.parametrize("kept", [8, 15, 20])
@pytest.mark.parametrize("name", ["raw", "reversed", "hex", "base64+0", "JSON, all", "percent, all"])
def test_takes_a_secret_out_of_which_a_log_has_the_beginning(name: str, kept: int):
    hidden = DISGUISES[name]("abcdefghijklmnopqrstuvwxyz")
    cut = hidden[: kept * len(hidden) // 26]
    cleaned = make_redaction("abcdefghijklmnopqrstuvwxyz").clean_log(f"it says {cut}{CUT_NOTE}")
    assert cleaned.text == f"it says [redacted]{CUT_NOTE}"
    assert bool(cleaned.found) is (kept > 13)


@pytest.mark.parametrize("text", ["p", "\\", "%", "\\u00", "%4", "\ud800", "", "\\U0011ffff", "\\N{DASH}"])
def test_reads_whatever_there_is(text: str):
    assert make_redaction().clean(text).found == frozenset()


def test_gives_up_the_whole_text_rather_than_a_part_of_a_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("broker.redaction._ROUNDS", 1)
    cleaned = make_redaction().clean(f"a {SECRET} b {DISGUISES['percent, all'](SECRET)}")
    assert cleaned == (REDACTED, {"orders"})


def test_finds_nothing_where_nothing_was_minted():
    assert Redaction([]).clean("anything") == ("anything", frozenset())
    assert Redaction([]).clean_log("anything").text == "anything"
    assert not Redaction([]).find_bytes(b"anything")


def test_shows_no_secret_of_its_own(caplog: pytest.LogCaptureFixture):
    redaction, lease = make_redaction(), make_lease(UsernamePassword("v", Secret(SECRET)))
    logging.getLogger("x").warning("%r %s %r", redaction, lease, [lease, lease.payload, lease.secrets])
    assert "p4ss" not in caplog.text
    with pytest.raises(TypeError):
        pickle.dumps(lease)
