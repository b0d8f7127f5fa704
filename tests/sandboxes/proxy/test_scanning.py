"""A secret does not come back in an answer, however it is written and wherever the answer is cut."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Sequence
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentials.injection import Form, Injection
from sandboxes.proxy import scanning
from sandboxes.proxy.scanning import REDACTED, Scanner, prepare
from sandboxes.proxy.unescaping import unescape

SECRET = 'p4ss-W0rd/of+th1s~"c<all>=&7'
HALF = len(SECRET) // 2
TRAPS = ["p4ss%41w0rd%2541x", r"p4ss\u0041w0rd\\n", "p4ss&amp;w0rd&#65;x", 'a b+c "d" e', "ababababababac"]
ODD = "&#x{:X};"

Disguise = Callable[[str], bytes]


def each(form: str) -> Disguise:
    """Write every character in a form of its own."""
    return lambda secret: "".join(form.format(ord(sign)) for sign in secret).encode()


def inner(alphabet: Callable[[bytes], bytes], shift: int) -> Disguise:
    """Write it in base64 within a longer text, of which "." shows where it was cut."""
    return lambda secret: alphabet(b"\0" * shift + secret.encode() + b"\xff").rstrip(b"=")


DISGUISES: dict[str, Disguise] = {
    "as it is": str.encode,
    "reversed": lambda secret: secret[::-1].encode(),
    "percent-encoded": lambda secret: quote(secret, safe="").encode(),
    "percent-encoded, small letters": lambda secret: quote(secret, safe="").lower().encode(),
    "as a form": lambda secret: quote_plus(secret).encode(),
    "every sign percent-encoded": each("%{:02X}"),
    "percent-encoded twice": lambda secret: quote(quote(secret, safe="")).encode(),
    "percent-encoded three times": lambda secret: quote(quote(quote(secret, safe=""))).encode(),
    "JSON": lambda secret: json.dumps(secret)[1:-1].encode(),
    "JSON of JSON": lambda secret: json.dumps(json.dumps(secret))[3:-3].encode(),
    "JSON, every sign": each("\\u{:04x}"),
    "JSON with slashes": lambda secret: json.dumps(secret)[1:-1].replace("/", "\\/").encode(),
    "repr of bytes": each("\\x{:02x}"),
    "JavaScript": each("\\u{{{:x}}}"),
    "HTML": lambda secret: html.escape(secret).encode(),
    "HTML, decimal": each("&#{};"),
    "HTML, hex": each(ODD),
    "HTML, odd": each("&#000{}"),
    "HTML in JSON": lambda secret: json.dumps(html.escape(secret))[1:-1].encode(),
    "percent-encoded HTML": lambda secret: quote(html.escape(secret), safe="").encode(),
    "hex": lambda secret: secret.encode().hex().encode(),
    "HEX": lambda secret: secret.encode().hex().upper().encode(),
    "reversed hex": lambda secret: secret[::-1].encode().hex().encode(),
    "capitals": lambda secret: secret.upper().encode(),
    "in lines": lambda secret: b"\r\n ".join(secret[at : at + 4].encode() for at in range(0, len(secret), 4)),
    "UTF-16": lambda secret: secret.encode("utf-16-le"),
    "UTF-32": lambda secret: secret.encode("utf-32-be"),
    "base64 in lines": lambda secret: base64.encodebytes(secret.encode() * 3),
    "base64 with percent": lambda secret: quote(base64.b64encode(secret.encode()).rstrip(b"=")).encode(),
    **{f"base64 at {shift}": inner(base64.b64encode, shift) for shift in range(3)},
    **{f"base64url at {shift}": inner(base64.urlsafe_b64encode, shift) for shift in range(3)},
    "reversed base64": lambda secret: base64.b64encode(secret[::-1].encode()),
}
# What stands before and behind: nothing that an encoding takes for its own.
AROUND = st.text("xyz .:!{}[]'\n", max_size=12).map(str.encode)
CUTS = st.lists(st.integers(0, 3_000), max_size=6)


def bearer(secret: str = SECRET) -> Injection:
    return Injection("orders", Form.BEARER, {"token": secret})


def scan(scanner: Scanner, data: bytes, cuts: Sequence[int] = ()) -> bytes:
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    starts = [0, *ends]
    return b"".join(scanner.feed(data[a:b]) for a, b in zip(starts, ends, strict=False)) + scanner.finish()


FILL = b"|" * 1_000
"""More than is kept back: what stands between two of these is passed on before the body ends."""


def scan_within(scanner: Scanner, data: bytes, cuts: Sequence[int] = ()) -> bytes:
    """Scan it in the middle of a longer body."""
    clean = scan(scanner, FILL + data + FILL, cuts)
    assert clean.startswith(FILL) and clean.endswith(FILL)
    return clean[len(FILL) : -len(FILL)]


def contains(text: bytes, secret: str) -> bool:
    """Search as somebody would who has the secret already: undo the usual, then look."""
    return Scanner(bearer(secret)).clean(text) != text


@pytest.mark.parametrize("disguise", DISGUISES)
def test_gives_it_away_when_nothing_is_searched(disguise: str):
    answer = b"you sent: " + DISGUISES[disguise](SECRET) + b" !"
    assert scan(Scanner(None), answer) == answer


@pytest.mark.parametrize("disguise", DISGUISES)
@given(before=AROUND, after=AROUND, cuts=CUTS)
def test_takes_it_out_in_each_spelling_wherever_it_is_cut(disguise, before, after, cuts):
    scanner = Scanner(bearer())
    hidden = DISGUISES[disguise](SECRET)
    clean = scan_within(scanner, before + b"|" + hidden + b"|" + after, cuts)
    assert scanner.found >= 1
    assert hidden not in clean
    assert clean.startswith(before + b"|") and clean.endswith(b"|" + after)
    assert len(clean) < len(before + after) + len(REDACTED) * scanner.found + 8


@pytest.mark.parametrize("disguise", ["as it is", "JSON", "HTML", "percent-encoded", "reversed", "hex"])
@given(cuts=CUTS)
def test_takes_out_that_and_nothing_else(disguise, cuts):
    answer = b'{"a": "' + DISGUISES[disguise](SECRET) + b'", "b": 1}'
    assert scan_within(Scanner(bearer()), answer, cuts) == b'{"a": "[redacted]", "b": 1}'


@pytest.mark.parametrize("secret", TRAPS)
@pytest.mark.parametrize(
    "disguise", ["as it is", "JSON", "HTML", "percent-encoded", "as a form", "base64 at 1"]
)
@given(cuts=CUTS)
def test_takes_out_a_secret_that_looks_escaped_itself(secret, disguise, cuts):
    scanner = Scanner(bearer(secret))
    clean = scan_within(scanner, b"| " + DISGUISES[disguise](secret) + b" |", cuts)
    assert scanner.found == 1 and clean.startswith(b"| ") and clean.endswith(b" |")


@given(data=st.binary(max_size=200), cuts=CUTS)
def test_leaves_everything_else_as_it_is(data, cuts):
    scanner = Scanner(bearer())
    assert scan_within(scanner, data, cuts) == data
    assert scanner.found == 0


PIECES = st.sampled_from(
    [SECRET[:9], SECRET[: HALF - 1], SECRET[HALF + 1 :], "%", "%2", "\\u00", "&#", "&#1", "&am", "\\", " "]
)


@given(pieces=st.lists(PIECES, max_size=8), cuts=CUTS)
def test_gives_all_of_what_only_begins_like_it(pieces, cuts):
    data = "|".join(pieces).encode()
    assert scan_within(Scanner(bearer()), data, cuts) == data


@given(count=st.integers(1, 60), cuts=CUTS)
def test_counts_each(count, cuts):
    scanner = Scanner(bearer())
    assert scan(scanner, SECRET.encode() * count, cuts) == REDACTED * count
    assert scanner.found == count


LENGTHS = st.integers(HALF, len(SECRET))
DOTS = b"." * len(SECRET)


@given(length=LENGTHS, cuts=CUTS)
def test_takes_out_the_beginning_where_a_target_cuts_it(length, cuts):
    answer = b"?key=" + SECRET[:length].encode()
    assert (
        scan_within(Scanner(bearer()), answer + DOTS, cuts)
        == b"?key=[redacted]" + DOTS[len(SECRET) - length :]
    )
    assert scan(Scanner(bearer()), FILL + answer, cuts) == FILL + b"?key=[redacted]"


@given(length=LENGTHS, cuts=CUTS)
def test_takes_out_the_end_where_a_target_cuts_it(length, cuts):
    answer = SECRET[-length:].encode() + b"|"
    assert (
        scan_within(Scanner(bearer()), DOTS + answer, cuts) == DOTS[len(SECRET) - length :] + b"[redacted]|"
    )
    assert scan(Scanner(bearer()), answer + FILL, cuts) == b"[redacted]|" + FILL


@given(
    half=st.sampled_from([SECRET[:HALF], SECRET[HALF:]]),
    other=st.text("ab.4/=Wx", min_size=HALF, max_size=HALF),
)
def test_tells_who_knows_one_half_nothing_of_the_other(half, other):
    text = half + other if SECRET.startswith(half) else other + half
    assert scan_within(Scanner(bearer()), b"<%s>" % text.encode()) == b"<[redacted]>"


@pytest.mark.parametrize(
    ("secret", "is_taken"),
    [("0f1e2d3c4b5a6978", False), ("0f1e2d3c4b5a69788796a5b4", True), ("0f1e2d3c4b5a697x", True)],
)
def test_tells_nobody_a_half_that_all_digits_find(secret, is_taken):
    text = b"<%s" % secret[: len(secret) // 2].encode()
    scanner = Scanner(Injection("a", Form.BEARER, {"token": secret}))
    assert scanner.clean(text) == (b"<[redacted]" if is_taken else text)
    assert scanner.clean(secret.encode()) == b"[redacted]"


@given(cut=st.integers(14, 27), cuts=CUTS)
def test_takes_out_what_is_left_of_a_login_that_is_cut(cut, cuts):
    pair = base64.b64encode(b"a-reader:p4ssword-81f3")
    scanner = Scanner(
        Injection("a", Form.BASIC, {"username": "a", "password": "x"}), ("a-reader:p4ssword-81f3",)
    )
    clean = scan(scanner, b"Basic " + pair[:cut] + DOTS + FILL, cuts)
    assert clean.rstrip(b"|").rstrip(b".") == b"Basic [redacted]"


@pytest.mark.parametrize("shift", range(3))
def test_takes_out_the_neighbours_of_base64_wherever_it_is_cut(shift):
    """They hold some bits of it; the boundary may come between."""
    text = FILL + base64.b64encode(b"abc" + b"a" * shift + SECRET.encode() + b"xyz") + FILL
    whole = Scanner(bearer()).clean(text)
    for cut in range(len(FILL) + KEPT - 9, len(FILL) + KEPT + 60):
        assert scan(Scanner(bearer()), text, [cut]) == whole


def test_finds_it_in_pieces_of_one_byte():
    scanner = Scanner(bearer())
    answer = b"a" + DISGUISES["percent-encoded twice"](SECRET) + b"b"
    assert scan_within(scanner, answer, range(3_000)) == b"a[redacted]b"


LONG = "".join(f"{number:x}." for number in range(1_000, 1_300))


@pytest.mark.parametrize("disguise", ["as it is", "percent-encoded twice", "in lines", "HTML", "hex"])
def test_finds_a_long_one_in_pieces_of_one_byte(disguise: str):
    scanner = Scanner(bearer(LONG))
    answer = DISGUISES[disguise](LONG) + FILL * 60
    assert scan(scanner, answer, range(len(answer))) == b"[redacted]" + FILL * 60


def count_read(monkeypatch: pytest.MonkeyPatch, easy_bytes: int) -> int:
    """Say how many bytes are read of 5,000 that come one by one behind those that are kept."""
    read = []
    monkeypatch.setattr(scanning, "_EASY_BYTES", easy_bytes)
    monkeypatch.setattr(scanning, "unescape", lambda text: read.append(len(text)) or unescape(text))
    scanner = Scanner(bearer())
    scanner.feed(FILL)
    read.clear()
    for _ in range(5_000):
        scanner.feed(b" ")
    return sum(read)


def test_reads_what_is_held_again_and_again_without_the_measure(monkeypatch):
    assert count_read(monkeypatch, easy_bytes=1 << 40) > 1_000_000


def test_reads_what_is_held_only_a_few_times(monkeypatch):
    assert count_read(monkeypatch, scanning._EASY_BYTES) < 5 * 5_000


KEPT = 12 * 2 * len(SECRET)


def test_keeps_back_what_came_last_whatever_it_is():
    scanner = Scanner(bearer())
    assert scanner.feed(b"." * 5_000) == b"." * (5_000 - KEPT)
    assert scanner.held_bytes == KEPT
    assert scanner.finish() == b"." * KEPT


def test_passes_a_stream_on_at_most_half_as_much_again_behind():
    scanner = Scanner(bearer())
    assert all(
        scanner.feed(b"data: {}\n\n") is not None and scanner.held_bytes < 1.5 * KEPT for _ in range(900)
    )


def test_keeps_back_nothing_where_there_is_nothing_to_search_for():
    assert Scanner(None).feed(b"data: p4s") == b"data: p4s"


def test_keeps_back_no_more_than_it_says():
    scanner = Scanner(bearer())
    passed_on = sum(len(scanner.feed(b"p" + b" " * 999)) for _ in range(100))
    assert passed_on > 95_000
    assert passed_on + len(scanner.finish()) == 100_000


def test_cleans_headers_and_leaves_out_one_whose_name_holds_it():
    scanner = Scanner(bearer("tok-4e1c99Zz"))
    clean = scanner.headers(
        [(b"x-echo", b"Bearer tok-4e1c99Zz"), (b"x-tok-4e1c99zz", b"1"), (b"server", b"a"), (b"server", b"b")]
    )
    assert clean == [(b"x-echo", b"Bearer [redacted]"), (b"server", b"a"), (b"server", b"b")]
    assert scanner.found == 2


def test_leaves_headers_alone_that_hold_none():
    headers = [(b"x-a", b"tok-4e1c"), (b"x-b", b"99Zz")]
    assert Scanner(bearer("tok-4e1c99Zz")).headers(headers) == headers


def test_takes_nothing_off_a_body_for_what_stood_in_a_header():
    scanner = Scanner(bearer())
    scanner.headers([(b"x-echo", base64.b64encode(SECRET.encode()))])
    assert scan(scanner, b"abcd") == b"abcd"


def test_cleans_what_comes_whole():
    scanner = Scanner(bearer())
    assert scanner.clean(b"Bad token " + SECRET.encode()) == b"Bad token [redacted]"
    assert scanner.found == 1


KEY_BYTES = bytes(range(7, 60))
PEM = f"-----BEGIN PRIVATE KEY-----\n{base64.encodebytes(KEY_BYTES).decode()}-----END PRIVATE KEY-----\n"
INJECTIONS = {
    Form.BEARER: {"token": SECRET},
    Form.BASIC: {"username": "reader", "password": SECRET},
    Form.HEADER: {"name": "x-key", "prefix": "Token ", "value": SECRET},
    Form.QUERY: {"name": "key", "value": SECRET},
    Form.CLIENT_CERTIFICATE: {"certificate_pem": "CERT", "private_key_pem": PEM, "chain_pem": ""},
    Form.SIGV4: {
        "access_key_id": "AKIDEXAMPLE",
        "secret_access_key": "wJalrXUtnFEMI/K7MDENG",
        "session_token": "FwoGZXIvYXdzEBYaD",
        "region": "eu-west-1",
        "service": "s3",
    },
}
ECHOES = {
    Form.BEARER: [f"Bearer {SECRET}".encode()],
    Form.BASIC: [base64.b64encode(f"reader:{SECRET}".encode()), SECRET.encode()],
    Form.HEADER: [f"Token {SECRET}".encode()],
    Form.QUERY: [f"/a?key={quote(SECRET, safe='')}".encode()],
    Form.CLIENT_CERTIFICATE: [PEM.encode(), KEY_BYTES, KEY_BYTES.hex().encode()],
    Form.SIGV4: [b"wJalrXUtnFEMI/K7MDENG", b"x-amz-security-token:FwoGZXIvYXdzEBYaD"],
}


@pytest.mark.parametrize("form", Form)
def test_searches_for_the_secrets_of_each_form(form: Form):
    search = prepare(Injection("orders", form, INJECTIONS[form]))
    for echo in ECHOES[form]:
        scanner = Scanner(search)
        assert REDACTED in scan(scanner, echo)
        assert scanner.found == 1


@pytest.mark.parametrize("form", Form)
def test_leaves_what_is_no_secret(form: Form):
    fields = INJECTIONS[form]
    text = " ".join(
        fields[name] for name in fields if name in {"username", "access_key_id", "region", "name"}
    )
    assert scan(Scanner(Injection("orders", form, fields)), text.encode()) == text.encode()


def test_leaves_a_user_name_that_is_most_of_a_login():
    login, answer = "toolcrib-service-account:p-12", b'{"login": "toolcrib-service-account"}'
    assert scan(Scanner(None, (login.replace(":", "."),)), answer) != answer  # it is searched for in halves
    assert scan(Scanner(None, (login,)), answer) == answer
    assert scan(Scanner(None, (login,)), login.encode()) == REDACTED


def test_searches_for_what_was_made_of_a_secret():
    injection = Injection("a", Form.BASIC, {"username": "u", "password": "p-1"})
    scanner = Scanner(injection, ("a-user:p-12",))
    assert scan(scanner, b"Basic " + base64.b64encode(b"a-user:p-12") + b" ") == b"Basic [redacted] "
    signature = "83c1f0d27a5e94b6" * 3 + "0123456789abcdef"
    answer = b"<Signature>" + signature.encode()
    assert scan(Scanner(None, (signature,)), answer) == b"<Signature>[redacted]"


def test_shows_no_secret():
    assert "p4ss" not in repr(prepare(bearer())) and "p4ss" not in repr(Scanner(bearer()))
