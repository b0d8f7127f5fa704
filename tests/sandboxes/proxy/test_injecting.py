"""A credential is added in its form toward its own target, and nothing of the tool's stands in its place."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentials.injection import FRAMING, Form, Injection, NotInjectable, make_injection
from credentials.lease import (
    AccessToken,
    ClientCertificate,
    KeyValues,
    Payload,
    Signer,
    SshLogin,
    UsernamePassword,
)
from credentials.secret import Secret
from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.injecting import Injector, OutgoingHead
from tools.manifest import Inject

TOKEN = "tok-4e1c/+9=Z"
TARGET = HttpTarget("api", "api.example", 443, ("https://api.example", "https://api.example:8443"))
HOST = ("host", "api.example")


def inject(form: str, **settings: str) -> Inject:
    return Inject.model_validate({"form": form, **settings})


def key_values(**values: str) -> KeyValues:
    return KeyValues({name: Secret(value) for name, value in values.items()}, 1, values.get("username", ""))


INJECTS: dict[str, tuple[Inject, Payload]] = {
    "bearer": (inject("bearer"), key_values(token=TOKEN)),
    "basic": (inject("basic"), UsernamePassword("reader", Secret("pass: word"))),
    "header": (inject("header", name="X-Api-Key", prefix="Token ", key="api_key"), key_values(api_key=TOKEN)),
    "query": (inject("query", name="api_key"), key_values(token="a b&c=%d")),
}


def make_injector(form: str, target: HttpTarget = TARGET) -> Injector:
    return Injector(make_injection("orders", *INJECTS[form]), target)


def apply(form: str, *headers: tuple[str, str], query: str | None = None, kept: tuple[str, ...] = ()):
    head = OutgoingHead("GET", "/a", query, (HOST, *headers))
    return make_injector(form).apply(head, kept=kept)


def values_of(head: OutgoingHead, name: str) -> list[str]:
    return [value for key, value in head.headers if key == name]


def test_adds_a_bearer_token():
    assert values_of(apply("bearer"), "authorization") == [f"Bearer {TOKEN}"]


def test_adds_a_login():
    [value] = values_of(apply("basic"), "authorization")
    assert base64.b64decode(value.removeprefix("Basic ")) == b"reader:pass: word"


def test_adds_a_header_with_its_prefix():
    assert values_of(apply("header"), "x-api-key") == [f"Token {TOKEN}"]


@pytest.mark.parametrize(("before", "begin"), [(None, ""), ("q=1", "q=1&")])
def test_adds_a_parameter_percent_encoded(before: str | None, begin: str):
    assert apply("query", query=before).target == f"/a?{begin}api_key=a%20b%26c%3D%25d"


@pytest.mark.parametrize("form", INJECTS)
@pytest.mark.parametrize("name", ["authorization", "Proxy-Authorization", "cookie", "AUTHORIZATION"])
def test_drops_the_tools_own_login(form: str, name: str):
    head = apply(form, (name, "mine"))
    assert "mine" not in dict(head.headers).values()


def test_keeps_a_cookie_that_the_rule_lists():
    assert values_of(apply("bearer", ("cookie", "theme=dark"), kept=("cookie",)), "cookie") == ["theme=dark"]


@pytest.mark.parametrize("form", INJECTS)
def test_asks_for_no_part_of_an_answer_unless_the_rule_lists_it(form: str):
    part = (("Range", "bytes=90-95"), ("if-range", '"a"'))
    assert "90-95" not in str(apply(form, *part).headers)
    assert "90-95" in str(apply(form, *part, kept=("range",)).headers)


@pytest.mark.parametrize("name", ["x-api-key", "X_API_KEY", "x.api.key", "X-Api_Key", "x~api~key"])
def test_drops_the_injected_header_in_every_spelling(name: str):
    assert [value for _, value in apply("header", (name, "mine")).headers] == [
        "api.example",
        f"Token {TOKEN}",
    ]


@pytest.mark.parametrize(
    "name",
    ["api_key", "API_KEY", "api%5fkey", "api%255Fkey", "api.key", "api+key", "+api_key", "api_key[]",
     "api_key%5B0%5D", "x;api_key", "api_key%00x", "api-key", "api[key", "api%5Bkey"],
)  # fmt: skip
@pytest.mark.parametrize("value", ["=mine", ""])
def test_drops_the_injected_parameter_in_every_spelling(name: str, value: str):
    head = apply("query", query=f"a=1&{name}{value}&b=2")
    assert head.query == "a=1&b=2&api_key=a%20b%26c%3D%25d"


def test_drops_a_token_that_the_tool_puts_into_the_query():
    assert apply("bearer", query="access_token=mine&q=1").query == "q=1"  # RFC 6750, 2.3


def test_passes_the_rest_of_a_request_as_it_is():
    head = apply("bearer", ("accept", "a/b"), ("x-trace", "1"), ("accept", "c"), query="b=2;3&&a=%20+")
    assert head.headers[:-1] == (HOST, ("accept", "a/b"), ("x-trace", "1"), ("accept", "c"))
    assert head.target == "/a?b=2;3&&a=%20+"


@given(query=st.text("abk_ei&=;%5Fpy+[].", max_size=30))
def test_leaves_one_parameter_of_the_injected_name(query: str):
    sent = apply("query", query=query).query
    assert sent is not None
    names = [part.partition("=")[0].lower() for part in sent.replace(";", "&").split("&")]
    assert names.count("api_key") == 1 and names[-1] == "api_key"


@pytest.mark.parametrize("host", ["other.example", "api.example:80", "api.example.", "", "api.example:9443"])
def test_adds_nothing_toward_another_host(host: str):
    head = OutgoingHead("GET", "/", None, (("host", host),))
    with pytest.raises(NotInjectable, match="own target"):
        make_injector("bearer").apply(head)


@pytest.mark.parametrize("host", ["api.example", "API.example", "api.example:443", "api.example:8443"])
def test_adds_toward_each_origin_of_the_target(host: str):
    head = OutgoingHead("GET", "/", None, (("host", host),))
    assert values_of(make_injector("bearer").apply(head), "authorization")


def test_adds_nothing_where_the_host_is_said_twice():
    with pytest.raises(NotInjectable, match="own target"):
        apply("bearer", HOST)


def test_drops_nothing_but_the_proxys_own_where_nothing_is_added():
    head = OutgoingHead("GET", "/", "q", (HOST, ("Proxy-Authorization", "x"), ("cookie", "a")))
    assert Injector(None, TARGET).apply(head).headers == (HOST, ("cookie", "a"))


AWS = {"access_key_id": "AKID", "secret_access_key": "s3cr3t", "session_token": "s0m3"}


def test_drops_what_the_tool_signed_itself():
    injection = make_injection(
        "store", inject("sigv4", region="eu-west-1", service="s3"), key_values(**AWS, token="x")
    )
    headers = (HOST, ("authorization", "mine"), ("x_amz_date", "mine"), ("X-Amz-Security-Token", "mine"))
    query = "list-type=2&X-Amz-Signature=mine&x-amz-credential=mine&AWSAccessKeyId=mine"
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    head = Injector(injection, TARGET, lambda: moment).apply(OutgoingHead("GET", "/b", query, headers))
    assert head.query == "list-type=2"
    assert "mine" not in str(head.headers)
    assert values_of(head, "x-amz-date") == ["20260102T000000Z"]
    assert values_of(head, "x-amz-security-token") == ["s0m3"]


def test_shows_a_certificate_and_adds_nothing_else():
    payload = ClientCertificate("reader", "CERT\n", Secret("KEY"), "CHAIN\n")
    injector = Injector(make_injection("mtls", inject("client_certificate"), payload), TARGET)
    shown = injector.client_certificate
    assert shown is not None and (shown.certificate_pem, shown.key_pem) == ("CERT\nCHAIN\n", "KEY")
    assert injector.apply(OutgoingHead("GET", "/", None, (HOST,))).headers == (HOST,)


def test_refuses_a_certificate_without_tls():
    payload = ClientCertificate("reader", "CERT", Secret("KEY"), "")
    injection = make_injection("mtls", inject("client_certificate"), payload)
    with pytest.raises(NotInjectable, match="https"):
        Injector(injection, HttpTarget("api", "api.example", 80, ("http://api.example",)))


def test_shows_no_secret():
    injector, head = make_injector("basic"), apply("basic")
    assert "pass" not in repr(injector)
    assert "pass" not in repr(make_injection("orders", *INJECTS["basic"]))
    assert "pass" not in repr(head)


def test_takes_a_token_of_an_authorization_server():
    payload = AccessToken(Secret(TOKEN), datetime.now(UTC))
    assert make_injection("crm", inject("bearer"), payload).fields == {"token": TOKEN}


def test_takes_a_login_out_of_values():
    injection = make_injection("crm", inject("basic"), key_values(username="u", password="p", name="n"))
    assert injection.fields == {"username": "u", "password": "p"}


def test_takes_the_named_value_and_not_a_setting_of_its_name():
    injection = make_injection("crm", inject("header", name="X-Key", key="name"), key_values(name="value-1"))
    assert injection.fields == {"name": "X-Key", "prefix": "", "value": "value-1"}


async def sign(_: bytes):
    raise NotImplementedError


MISSING: dict[str, tuple[Inject, Payload]] = {
    "token": (inject("bearer"), key_values(other="x")),
    "api_key": (inject("header", name="X", key="api_key"), key_values(token="x")),
    "password": (inject("basic"), key_values(username="u", token="x")),
    "username": (inject("basic"), key_values(password="x")),
    "secret_access_key": (inject("sigv4", region="a", service="s3"), key_values(access_key_id="x")),
    "region": (
        inject("sigv4", region="a", service="s3").model_copy(update={"region": None}),
        key_values(**AWS),
    ),
    "private_key_pem": (inject("client_certificate"), key_values(certificate_pem="x")),
}


@pytest.mark.parametrize("missing", MISSING)
def test_says_which_value_is_missing(missing: str):
    with pytest.raises(NotInjectable, match=f"credential orders: form .* needs {missing}"):
        make_injection("orders", *MISSING[missing])


@pytest.mark.parametrize("payload", [SshLogin("u", Secret("k"), "c"), Signer("a", 1, "p", sign)])
def test_refuses_what_cannot_be_added(payload: Payload):
    with pytest.raises(NotInjectable, match="what its engine gives cannot be added"):
        make_injection("orders", inject("bearer"), payload)


@pytest.mark.parametrize("form", INJECTS)
@pytest.mark.parametrize(
    "bad",
    ["a\r\nx-b: c", "a\nb", "a\0b", "a\tb", "\x7fab", "pässword", "пароль", "a\x85b", " ab", "ab "],
)
def test_refuses_a_secret_that_could_be_read_as_more(form: str, bad: str):
    key = "api_key" if form == "header" else "token"
    payload = UsernamePassword("u", Secret(bad)) if form == "basic" else key_values(**{key: bad})
    with pytest.raises(NotInjectable) as refused:
        make_injection("orders", INJECTS[form][0], payload)
    assert bad not in str(refused.value)


@pytest.mark.parametrize("token", ["a b", ""])
def test_refuses_a_token_that_is_no_word(token: str):
    with pytest.raises(NotInjectable):
        make_injection("orders", inject("bearer"), key_values(token=token))


def test_refuses_a_user_name_that_ends_early():
    with pytest.raises(NotInjectable, match="colon"):
        make_injection("orders", inject("basic"), UsernamePassword("a:b", Secret("c")))


@pytest.mark.parametrize("name", [*FRAMING, "Content_Length"])
def test_refuses_a_header_that_is_the_proxys_own(name: str):
    with pytest.raises(NotInjectable, match="set by the proxy"):
        make_injection("orders", inject("header", name=name), key_values(token="x"))


ODD = [
    Injection("a", Form.BEARER, {}),
    Injection("a", Form.BEARER, {"token": "x", "more": "y"}),
    Injection("a", Form.HEADER, {"name": "x: y", "prefix": "", "value": "z"}),
    Injection("a", Form.HEADER, {"name": "x", "prefix": "a\n", "value": "z"}),
    Injection("a", Form.QUERY, {"name": "x=y&z", "value": "z"}),
]


@pytest.mark.parametrize("number", range(len(ODD)))
def test_refuses_an_injection_that_nobody_made(number: int):
    with pytest.raises(NotInjectable):
        Injector(ODD[number], TARGET)
