"""Tokens that somebody made who must not be let in; each beside the same one made right, which passes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from jwt.algorithms import get_default_algorithms

from broker.errors import Refused
from tests.broker.tokens.conftest import ISSUER, NOW, Desk
from tests.parts.issuer import encode_part, make_key, publish

T = NOW.timestamp()
STRANGER = make_key()
WEAK = make_key("RS256", 1024)
RSA = make_key("RS256")
P384 = make_key("ES384")


@dataclass
class Draft:
    """A token before it is signed; hostile changes are made to it."""

    header: dict[str, Any]
    claims: dict[str, Any]
    key: Any
    raw_header: bytes | None = None
    raw_claims: bytes | None = None
    finish: Callable[[str], str] = field(default=lambda text: text)

    def sign(self) -> str:
        header = encode_part(self.raw_header if self.raw_header is not None else self.header)
        claims = encode_part(self.raw_claims if self.raw_claims is not None else self.claims)
        signed = f"{header}.{claims}".encode()
        algorithm = get_default_algorithms()[str(self.header.get("alg"))]
        return self.finish(f"{signed.decode()}.{encode_part(algorithm.sign(signed, self.key))}")


def draft(desk: Desk) -> Draft:
    return Draft({"alg": "ES256", "kid": "k1", "typ": "JWT"}, desk.claims(), desk.mint.keys["k1"])


Change = Callable[[Draft, Desk], None]
HOSTILE: dict[str, Change] = {}


def hostile(change: Change) -> Change:
    HOSTILE[change.__name__] = change
    return change


def add(name: str, *, header: dict[str, Any] | None = None, **claims: Any) -> None:
    """Add a token whose header or claims are others; None leaves a claim out."""

    def change(d: Draft, _: Desk) -> None:
        d.header |= header or {}
        d.claims |= claims
        d.claims = {key: value for key, value in d.claims.items() if value is not None}

    HOSTILE[name] = change


for _name, _iss in {
    "other_issuer": "https://evil.example.org", "issuer_with_slash": ISSUER + "/",
    "issuer_upper": ISSUER.upper(), "issuer_list": [ISSUER], "issuer_number": 1, "no_issuer": None,
    "issuer_prefix": "https://id.example.org",
}.items():  # fmt: skip
    add(_name, iss=_iss)
for _name, _aud in {
    "other_audience": "elsewhere", "audience_prefix": "toolcrib2", "no_audience": None, "empty_audience": [],
    "audience_object": {"toolcrib": 1}, "mixed_audience": ["toolcrib", 1], "audience_case": "Toolcrib",
    "nested_audience": [["toolcrib"]], "many_audiences": ["toolcrib"] * 40,
}.items():  # fmt: skip
    add(_name, aud=_aud)
_TIMES: dict[str, dict[str, Any]] = {
    "expired": {"iat": T - 99, "exp": T - 31}, "no_expiry": {"exp": None},
    "expiry_text": {"exp": str(T + 60)},
    "expiry_true": {"exp": True}, "expiry_far": {"exp": T + 86_400}, "expiry_negative": {"exp": -1},
    "expiry_huge": {"exp": 10**300}, "expiry_beyond_floats": {"exp": 10**400},
    "expiry_before_issue": {"iat": T, "exp": T - 1},
    "not_yet": {"nbf": T + 31}, "nbf_text": {"nbf": "0"}, "nbf_null_list": {"nbf": []},
    "issued_later": {"iat": T + 31}, "no_issue_time": {"iat": None}, "issued_list": {"iat": [T]},
    "issued_long_ago": {"iat": T - 4_000, "exp": T + 10},
}  # fmt: skip
for _name, _times in _TIMES.items():
    add(_name, **_times)
for _name, _sub in {
    "no_subject": None, "subject_number": 7, "subject_list": ["desk-1"], "subject_object": {"a": 1},
    "subject_empty": "", "subject_unicode": "d\u0435sk", "subject_invisible": "desk\u200b",
    "subject_fullwidth": "\uff44esk", "subject_nul": "desk\0",
    "subject_newline": "desk\n", "subject_long": "d" * 129,
    "subject_own": "../toolcrib-broker", "subject_upper": "Desk", "subject_space": "desk 1",
    "subject_surrogate": "\ud800",
}.items():  # fmt: skip
    add(_name, sub=_sub)
for _name, _act in {
    "nested_act": {"sub": "desk-1", "act": {"sub": "x"}}, "act_text": "desk-1", "act_empty": {},
    "act_number": {"sub": 1}, "act_of_another_issuer": {"sub": "desk-1", "iss": "https://evil.example.org"},
    "act_list": [{"sub": "desk-1"}], "act_false": False, "act_upper": {"sub": "Desk"},
}.items():  # fmt: skip
    add(_name, act=_act)
_MEMBERS: dict[str, dict[str, Any]] = {
    "crit": {"crit": ["exp"], "exp": 1}, "jku": {"jku": "https://evil.example.org/keys"},
    "embedded_key": {"jwk": publish(STRANGER)}, "x5u": {"x5u": "https://evil.example.org"},
    "x5c": {"x5c": ["MIIB"]}, "detached_b64": {"b64": False, "crit": ["b64"]}, "compressed": {"zip": "DEF"},
    "nested_jwt": {"cty": "JWT"},
    "kid_path": {"kid": "../../etc/passwd"}, "kid_sql": {"kid": "k1' OR '1'='1"}, "kid_number": {"kid": 1},
    "kid_null": {"kid": None}, "kid_list": {"kid": ["k1"]}, "kid_other": {"kid": "k9"},
    "kid_long": {"kid": "k" * 300}, "kid_control": {"kid": "k1\0"}, "typ_number": {"typ": 1},
    "alg_not_allowed": {"alg": "ES384"},
    "alg_not_the_keys": {"alg": "RS256"},
}  # fmt: skip
for _name, _member in _MEMBERS.items():

    def _change(d: Draft, _: Desk, member: dict[str, Any] = _member) -> None:
        header = d.header | member
        d.raw_header = json.dumps(header).encode()

    HOSTILE[_name] = _change


@hostile
def of_a_strangers_key(d: Draft, _: Desk) -> None:
    d.key = STRANGER


@hostile
def embedded_key_that_fits(d: Draft, _: Desk) -> None:
    d.key, d.header = STRANGER, {**d.header, "jwk": publish(STRANGER, kid="k1")}


@hostile
def two_expiries(d: Draft, _: Desk) -> None:
    d.raw_claims = json.dumps(d.claims).encode()[:-1] + b', "exp": 99999999999}'


@hostile
def two_algorithms(d: Draft, _: Desk) -> None:
    d.raw_header = b'{"alg": "none", "alg": "ES256", "kid": "k1"}'


@hostile
def two_subjects_one_inside(d: Draft, _: Desk) -> None:
    d.raw_claims = json.dumps(d.claims).encode()[:-1] + b', "act": {"sub": "a", "sub": "b"}}'


@hostile
def no_json(d: Draft, _: Desk) -> None:
    d.raw_claims = b"exp=1"


@hostile
def claims_list(d: Draft, _: Desk) -> None:
    d.raw_claims = json.dumps([d.claims]).encode()


@hostile
def not_a_number(d: Draft, _: Desk) -> None:
    d.raw_claims = json.dumps(d.claims | {"exp": float("nan")}).encode()


@hostile
def endless_expiry(d: Draft, _: Desk) -> None:
    d.raw_claims = json.dumps(d.claims).encode().replace(str(d.claims["exp"]).encode(), b"1e999")


@hostile
def deep_claims(d: Draft, _: Desk) -> None:
    d.raw_claims = json.dumps(d.claims).encode()[:-1] + b', "x": ' + b"[" * 5000 + b"]" * 5000 + b"}"


@hostile
def utf_16(d: Draft, _: Desk) -> None:
    d.raw_claims = json.dumps(d.claims).encode("utf-16")


@hostile
def byte_order_mark(d: Draft, _: Desk) -> None:
    d.raw_claims = b"\xef\xbb\xbf" + json.dumps(d.claims).encode()


@hostile
def huge(d: Draft, _: Desk) -> None:
    d.claims |= {"x": "x" * 16_384}


def _text(name: str, finish: Callable[[str], str]) -> None:
    def change(d: Draft, _: Desk) -> None:
        d.finish = finish

    HOSTILE[name] = change


def _swap_claims(text: str) -> str:
    header, claims, signature = text.split(".")
    changed = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"sub": "desk-2"}
    return f"{header}.{encode_part(changed)}.{signature}"


def _strip_signature(text: str) -> str:
    return text.rpartition(".")[0] + "."


def _none(alg: str) -> Callable[[str], str]:
    return lambda text: f"{encode_part({'alg': alg, 'kid': 'k1'})}.{text.split('.')[1]}.AAAA"


def _other_end_bits(text: str) -> str:
    """Change bits of the last character that decode to nothing: another text of the same bytes."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


_text("changed_claims", _swap_claims)
_text("no_signature", _strip_signature)
for _alg in ("none", "None", "NONE", "nOnE", ""):
    _text(f"alg_{_alg or 'empty'}_{len(HOSTILE)}", _none(_alg))
_text("detached", lambda text: f"{text.split('.')[0]}..{text.split('.')[2]}")
_text("two_parts", lambda text: text.rpartition(".")[0])
_text("four_parts", lambda text: text + ".x")
_text("encrypted", lambda text: text + ".x.y")
_text("json_form", lambda text: json.dumps({"payload": text.split(".")[1], "signatures": []}))
_text("padded", lambda text: text + "==")
_text("standard_base64", lambda text: text.replace("-", "+").replace("_", "/") + "/+")
_text("other_end_bits", _other_end_bits)
_text("newline_inside", lambda text: text[:20] + "\n" + text[20:])
_text("surrogate", lambda text: text + "\ud800")
_text("zero_signature", lambda text: text.rpartition(".")[0] + "." + encode_part(bytes(64)))
_text("empty", lambda _: "..")
_text(
    "der_signature",
    lambda text: text.rpartition(".")[0] + "." + encode_part(b"0\x06\x02\x01\x01\x02\x01\x01"),
)


@hostile
def hmac_with_the_public_key(d: Draft, desk: Desk) -> None:
    pem = (
        desk.mint.keys["k1"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    signed = f"{encode_part({'alg': 'HS256', 'kid': 'k1'})}.{encode_part(d.claims)}"
    mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    d.finish = lambda _: f"{signed}.{encode_part(mac)}"


def test_has_a_table_worth_the_name():
    assert len(HOSTILE) >= 90


@pytest.mark.parametrize("name", HOSTILE)
def test_refuses_a_hostile_token(desk, name):
    assert desk.ask(draft(desk).sign()).name == "id-desk-1"

    made = draft(desk)
    HOSTILE[name](made, desk)
    token = made.sign()
    with pytest.raises(Refused) as refusal:
        desk.ask(token)

    assert refusal.value.reason_name == "TOKEN_INVALID"
    assert all(part not in refusal.value.message for part in token.split(".") if len(part) > 12)


def test_checks_a_token_without_a_kid_when_there_is_one_key_only(desk):
    made = draft(desk)
    del made.header["kid"]
    desk.ask(made.sign())
    desk.mint.keys["k2"] = make_key()
    desk.publish()
    made.claims["jti"] = "another"
    with pytest.raises(Refused, match="names no key"):
        desk.ask(made.sign())


@pytest.mark.parametrize(
    "entry",
    [
        publish(WEAK, kid="bad", alg="RS256"),
        publish(RSA, kid="bad", alg="ES256"),
        publish(RSA, kid="bad", alg="PS256"),
        publish(RSA, kid="bad") | {"use": "enc"},
        publish(RSA, kid="bad", key_ops=["sign"]),
        publish(RSA, kid="bad", d="AQAB"),
        publish(RSA, kid="bad") | {"e": "Aw"},
        publish(RSA, kid="bad") | {"n": "AAAA"},
        publish(P384, kid="bad"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "bad"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "bad"},
        {"kty": "EC", "crv": "secp256k1", "kid": "bad"},
        {"kid": "bad"},
        "bad",
    ],
)
def test_leaves_a_key_out_that_must_not_be_used(desk, entry):
    desk.mint.extra = [entry, publish(RSA, kid="good", alg="RS256")]
    desk.publish()
    made = Draft({"alg": "RS256", "kid": "good"}, desk.claims(), RSA)
    assert desk.ask(made.sign()).name == "id-desk-1"
    made.header["kid"] = "bad"
    with pytest.raises(Refused):
        desk.ask(made.sign())


def test_believes_neither_of_two_keys_with_one_name(desk):
    desk.mint.extra = [publish(STRANGER, kid="k1", alg="ES256"), publish(STRANGER, kid="k2", alg="ES256")]
    desk.publish()
    for key in (STRANGER, desk.mint.keys["k1"]):
        made = draft(desk)
        made.key = key
        with pytest.raises(Refused):
            desk.ask(made.sign())
    made = draft(desk)
    made.key, made.header["kid"] = STRANGER, "k2"
    desk.ask(made.sign())


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS384", "ES384", "ES512", "EdDSA"])
async def test_checks_each_algorithm_that_the_operator_allows(tmp_path, algorithm):
    desk = Desk(tmp_path, algorithms=[algorithm])
    async with desk.tokens:
        assert desk.ask(desk.token()).name == "id-desk-1"
        made = Draft({"alg": "ES256", "kid": "k1"}, desk.claims(), STRANGER)
        with pytest.raises(Refused, match="alg"):
            desk.ask(made.sign())
