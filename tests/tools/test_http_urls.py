"""Strict reading of what an HTTP request is for: one form, and nothing that parsers read differently."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.http_urls import (
    MAX_URL_CHARACTERS,
    Authority,
    is_plain_path,
    is_plain_query,
    make_origin,
    read_authority,
    read_origin,
    read_target,
)

PIECES = [
    "a",
    "b1",
    "..",
    ".",
    "%2e",
    "%2E%2e",
    "%2f",
    "%5C",
    "%00",
    "%252e",
    "%25",
    "/",
    "//",
    "\\",
    ";",
    "~",
]
PIECES += ["%c0%af", "%EF%BC%8F", "%e2%80%8b", "%20", "%0d%0a", "?", "#", "@", "é", "\t", " ", "%zz", "%41"]
paths = st.lists(st.sampled_from(PIECES), max_size=8).map(lambda parts: "/" + "".join(parts))


@pytest.mark.parametrize(
    ("target", "host", "scheme", "origin", "path", "query"),
    [
        ("http://api.example/a?b=c", None, "http", "http://api.example", "/a", "b=c"),
        ("https://api.example:8443/", None, "http", "https://api.example:8443", "/", None),
        ("https://api.example:443/a", None, "http", "https://api.example", "/a", None),
        ("http://api.example/a?", "api.example:80", "http", "http://api.example", "/a", ""),
        ("/a/b/", "api.example", "https", "https://api.example", "/a/b/", None),
        ("/a", "127.0.0.1:8080", "http", "http://127.0.0.1:8080", "/a", None),
        ("http://[fd00::1]:8080/a", None, "http", "http://[fd00::1]:8080", "/a", None),
        ("http://xn--bcher-kva.a/%C3%BC", None, "http", "http://xn--bcher-kva.a", "/%C3%BC", None),
    ],
)  # fmt: skip
def test_reads_the_one_form(
    target: str, host: str | None, scheme: str, origin: str, path: str, query: str | None
) -> None:
    url = read_target(target, host, scheme)

    assert url is not None
    assert (url.origin, url.path, url.query) == (origin, path, query)


@pytest.mark.parametrize(
    "target",
    [
        "", "*", "a", "//api.example/a", "http:/api.example/a", "http:api.example/a", "ftp://api.example/a",
        "HTTP://api.example/a", "http://API.example/a", "http://api.example", "http://api.example?a",
        "http://api.example#a", "http://api.example/a#b", "http://user@api.example/",
        "http://a:b@api.example/",
        "http://api.example@bad.example/", "http://api.example\\@bad.example/", "http://api.example;/",
        "http://api.example./", "http://.api.example/", "http://api..example/", "http://-a.example/",
        "http://api_x.example/", "http://api.example:/", "http://api.example:080/", "http://api.example:0/",
        "http://api.example:65536/", "http://api.example:8a/", "http://api.example:-1/", "http:///a",
        "http://bücher.example/", "http://api.example/ü", "http://api%2eexample/", "http://[::1/",
        "http://::1/",
        "http://[0:0::1]/", "http://[::1%25eth0]/", "http://[::1%eth0]/", "http://[::FFFF:1]/",
        "http://[v1.a]/",
        "http://[::ffff:127.0.0.1]/", " http://api.example/", "http://api.example/ ", "http://api.example/\n",
        "http://api.example/a b", "http://api.example/a\tb", "http://api.example/a\x00",
        "http://" + "a" * 64 + "/", "http://" + "a." * 130 + "a/", "http://a/" + "a" * MAX_URL_CHARACTERS,
    ],
)  # fmt: skip
def test_refuses_a_url_that_somebody_may_read_otherwise(target: str) -> None:
    assert read_target(target) is None


@pytest.mark.parametrize(
    "path",
    [
        "", "a", "//", "/a//b", "//a", "/a//", "/.", "/..", "/a/..", "/a/../b", "/./a", "/a/...", "/..;/a",
        "/a;b",
        "/a;", "/%2e", "/%2E%2e/a", "/.%2e/a", "/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a%00", "/a%0d%0ab",
        "/a%7f",
        "/%252e%252e/a", "/%252f", "/%25%32%66", "/a%2", "/a%", "/a%zz", "/%u002e", "/%c0%af", "/%c0%ae",
        "/%e0%80%af", "/%ff", "/%ED%A0%80", "/%EF%BC%8F", "/%EF%BC%8E%EF%BC%8E/", "/%E2%80%A4%E2%80%A4/",
        "/..%20", "/%20../a", "/%E2%80%8B..", "/..%EF%BB%BF", "/%41", "/%7E", "/%2D", "/a?b", "/a#b", '/"',
        "/<a>",
        "/..%3B/a", "/..%3b", "/a%3Bb", "/a../b", "/a..", "/..a", "/...a", "/..=", "/..%CD%8F",
        "/%EF%B8%8F..", "/%25u002e", "/%25U002f",
        "/{a}", "/a|b", "/a^b", "/`", "/[a]", "/é", "/a b", "/\t",
    ],
)  # fmt: skip
def test_refuses_a_path_that_hides_something(path: str) -> None:
    assert not is_plain_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a",
        "/a/",
        "/a/b.json",
        "/a..b",
        "/.git",
        "/a%20b",
        "/%C3%A9.",
        "/%E4%B8%AD",
        "/@a:b",
        "/100%25",
        "/a,b",
    ],
)
def test_takes_a_plain_path(path: str) -> None:
    assert is_plain_path(path)


@pytest.mark.parametrize(
    "query", ["a;b", "a b", "a#b", "a=%", "a=%zz", "a=%00", "a=%ff", "a[b]=1", 'a="', "é", "\n"]
)
def test_refuses_a_query_that_is_none(query: str) -> None:
    assert not is_plain_query(query)


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("api.example:443", None, Authority("api.example", 443)),
        ("api.example", 80, Authority("api.example", 80)),
        ("[fd00::1]:443", None, Authority("fd00::1", 443)),
        ("api.example", None, None), ("api.example:443/", None, None), ("a@api.example:443", None, None),
        ("api.example:443:443", None, None), ("", 80, None), (":443", None, None),
        ("api.example, b", 80, None),
        ("api.example:443\n", None, None), ("api.example.:443", None, None), ("API.example:443", None, None),
        ("http://api.example:443", None, None), ("api.example:4٤3", None, None),
    ],
)  # fmt: skip
def test_reads_an_authority(text: str, default: int | None, expected: Authority | None) -> None:
    assert read_authority(text, default) == expected


@pytest.mark.parametrize(
    "host", ["b.example", "api.example:8080", "API.example", "", "api.example api.example"]
)
def test_refuses_a_host_header_that_says_something_else(host: str) -> None:
    assert read_target("http://api.example/a", host) is None


def test_needs_a_host_for_the_origin_form() -> None:
    assert read_target("/a") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://api.example", "https://api.example"), ("https://api.example:443", "https://api.example"),
        ("http://[::1]:80", "http://[::1]"), ("https://api.example/", None), ("https://api.example?", None),
        ("api.example", None), ("", None), ("/", None), ("https://", None), ("https://a/b", None),
    ],
)  # fmt: skip
def test_reads_an_origin(text: str, expected: str | None) -> None:
    assert read_origin(text) == expected


@given(paths)
def test_lets_no_dots_slashes_or_escapes_hide(path: str) -> None:
    if not is_plain_path(path):
        return
    once = unicodedata.normalize("NFKC", unquote(path, errors="strict"))

    assert path.count("/") == once.count("/")
    assert not {"\\", "\x00", "\r", "\n", "?", "#", ";"} & set(once)
    assert not {".", ".."} & {segment.strip() for segment in once.split("/")}
    assert unicodedata.normalize("NFKC", unquote(once)) == once


@given(st.from_regex(r"[a-z]{1,9}(\.[a-z0-9]{1,9}){0,2}", fullmatch=True), st.integers(1, 65535), paths)
def test_reads_as_the_standard_library_does(host: str, port: int, path: str) -> None:
    url = read_target(f"{make_origin('http', host, port)}{path}")
    if url is None:
        return
    other = urlsplit(f"http://{host}:{port}{path}")

    assert (url.host, url.port, url.path) == (other.hostname, other.port, other.path)
    assert read_target(f"{url.origin}{url.path}" + (f"?{url.query}" if url.query is not None else "")) == url


@given(
    st.text(max_size=30).filter(lambda text: not set(unicodedata.normalize("NFKC", text)) & set("./\\%;?#"))
)
def test_takes_what_a_client_escapes(text: str) -> None:
    is_text = all(unicodedata.category(character)[0] != "C" for character in text)

    assert not is_text or is_plain_path("/a" + quote(text, safe="~"))
