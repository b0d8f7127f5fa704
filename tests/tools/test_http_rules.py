"""Rules over HTTP requests: one line each, read and matched alike by manifest, grant and proxy."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.http_rules import Ask, Check, HttpRule, RuleInvalid, judge, parse_rule, read_target
from tools.http_urls import is_plain_path

SEARCH = "GET /search/issues?q={text}&per_page={int}"
PULLS = "POST /repos/{owner:slug}/{repo:slug}/pulls"
PAGES = "GET /pages/{path:rest}?*"


def check(rule: str, request: str, require: tuple[str, ...] = ()) -> Check:
    """Judge "METHOD /path?query" by one rule."""
    method, _, target = request.partition(" ")
    path, mark, query = target.partition("?")
    return judge([parse_rule(rule, require)], Ask(method, path, query if mark else None)).check


def test_reads_a_rule() -> None:
    rule = parse_rule(SEARCH, ["q"], {"x-api-version": "{int}"})

    assert (rule.method, rule.path, rule.text) == ("GET", "/search/issues", SEARCH)
    assert (rule.query, rule.require) == ({"q": "{text}", "per_page": "{int}"}, {"q"})
    assert rule.headers == {"x-api-version": "{int}"}


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "begin with a method"), ("GET", "begin with a method"), ("get /a", "capital letters"),
        ("GET  /a", 'begin with "/"'), ("GET a", 'begin with "/"'), ("GET http://a/b", 'begin with "/"'),
        ("TRACE /a", "never passed on"), ("CONNECT /a", "never passed on"), ("GET /a//b", "one slash"),
        ("GET /a/../b", "never be asked"), ("GET /%2e%2e/b", "capital letters"),
        ("GET /%2E%2E", "never be asked"),
        ("GET /a%2Fb", "never be asked"), ("GET /a;b", "cannot stand"), ("GET /a b", "cannot stand"),
        ("GET /{int}", "write {name:int}"), ("GET /{A}", "write {name}"), ("GET /{}", "write {name}"),
        ("GET /{a:number}", "is no type: known are"), ("GET /{a:text}", "query and headers"),
        ("GET /{a}{b}", "two parts"), ("GET /{a", "not closed"), ("GET /{a}/{a}", "stands twice"),
        ("GET /{a:rest}/b", "must be the last"), ("GET /x{a:rest}", "must be the last"),
        ("GET /{a:b|}", "words"),
        ("GET /a?", "is no parameter"), ("GET /a?b&", "is no parameter"), ("GET /a?b={int}&b={int}", "twice"),
        ("GET /a?b={c:int}", "write {int}"), ("GET /a?b={rest}", "write {text}"),
        ("GET /a?b={text}x", "alone"),
        ("GET /a?b={what}", "is no type"), ("GET /a?b={}", "write {text}"), ("GET /a?*&b", "is no parameter"),
        ("GET /a?b=c;d", "cannot stand"), ("GET /a#b", "cannot stand"), ("GET /" + "a" * 1000, "longer"),
        ("GET /{a}" + "b" * 65, "64 at most"), ("GET /" + "b" * 65 + "{a:int}", "64 at most"),
        ("GET /a?b={int}" + "c" * 65, "64 at most"),
    ],
)  # fmt: skip
def test_says_what_to_write_instead(text: str, remedy: str) -> None:
    with pytest.raises(RuleInvalid, match=".") as caught:
        parse_rule(text)

    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("require", "headers", "remedy"),
    [
        (["b"], {}, "require names b"), ([], {"X-A": "{int}", "x-a": "1"}, "once"),
        ([], {"x a": "{int}"}, "no header"),
        ([], {"host": "{text}"}, "leave it out"), ([], {"transfer-encoding": "{text}"}, "leave it out"),
        ([], {"x-http-method-override": "{text}"}, "leave it out"), ([], {"x-a": "{rest}"}, "write {text}"),
        ([], {"x-a": "a\nb"}, "cannot stand"), ([], {"x-a": "{int}" + "b" * 65}, "64 at most"),
    ],
)  # fmt: skip
def test_refuses_what_no_rule_can_promise(require: list[str], headers: dict[str, str], remedy: str) -> None:
    with pytest.raises(RuleInvalid) as caught:
        parse_rule("GET /a?c={int}", require, headers)

    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "request_line"),
    [
        (SEARCH, "GET /search/issues"), (SEARCH, "GET /search/issues?q=a+b%20c"),
        (SEARCH, "GET /search/issues?q="),
        (SEARCH, "GET /search/issues?per_page=5&q=is:open%26x"), (PULLS, "POST /repos/acme/shop.js/pulls"),
        (PAGES, "GET /pages/a"), (PAGES, "GET /pages/a:(b)/@c"), ("GET /{a:rest}/", "GET /a/b/"),
        (PAGES, "GET /pages/a/b/c%20d?x&y=1"), ("GET /", "GET /"),
        ("GET /a/", "GET /a/"),
        ("GET /{a}", "GET /x~%C3%A9"), ("GET /{a:int}", "GET /-12"), ("GET /{a:hex}", "GET /aF09"),
        ("GET /{a:uuid}", "GET /123e4567-e89b-12d3-a456-426614174000"), ("GET /{a:x|y}", "GET /y"),
        ("GET /{a:int}:cancel", "GET /7:cancel"), ("GET /v{a:int}/b", "GET /v2/b"),
        ("GET /{a}.json", "GET /b.json"), ("GET /{a}", "GET /" + "a" * 1024),
        ("GET /{a}", "GET /" + "%20" * 1024), ("GET /{a:x|xy}y/{b}a", "GET /xyy/aaa"),
        ("GET /{a}" + "b" * 64, "GET /a" + "b" * 64), ("GET /{a:rest}", "GET /" + "a" * 2000),
        ("GET /a?uploads", "GET /a?uploads"), ("GET /a?uploads", "GET /a?uploads="),
        ("GET /a?f[x]={int}", "GET /a?f%5Bx%5D=1"), ("GET /a?sort={asc|desc}", "GET /a?sort=desc"),
        ("GET /a?p={segment}", "GET /a?p=a%20b"),
        ("GET /a?v=v{int}", "GET /a?v=v1"), ("GET /a?id=*", "GET /a?id=*"), ("GET /a?*", "GET /a?"),
    ],
)  # fmt: skip
def test_allows_what_a_rule_says(rule: str, request_line: str) -> None:
    assert check(rule, request_line) is Check.ALLOWED


@pytest.mark.parametrize(
    ("rule", "request_line", "expected"),
    [
        (SEARCH, "HEAD /search/issues", Check.METHOD), (SEARCH, "get /search/issues", Check.METHOD),
        (SEARCH, "GET /search/issues/", Check.PATH), (SEARCH, "GET /search/ISSUES", Check.PATH),
        (SEARCH, "GET /search", Check.PATH), (SEARCH, "GET /search/issues/a", Check.PATH),
        (SEARCH, "GET /search/issues?", Check.QUERY), (SEARCH, "GET /search/issues?q", Check.QUERY),
        (SEARCH, "GET /search/issues?q=a&q=b", Check.QUERY),
        (SEARCH, "GET /search/issues?%71=a", Check.QUERY),
        (SEARCH, "GET /search/issues?Q=a", Check.QUERY), (SEARCH, "GET /search/issues?q=a&x=1", Check.QUERY),
        (SEARCH, "GET /search/issues?per_page=5x", Check.QUERY),
        (SEARCH, "GET /search/issues?per_page=", Check.QUERY),
        (SEARCH, "GET /search/issues?q=a&&per_page=1", Check.QUERY),
        (SEARCH, "GET /search/issues?q=a&", Check.QUERY),
        (SEARCH, "GET /search/issues?q=a;x=1", Check.URL), (SEARCH, "GET /search/issues?q=%00", Check.URL),
        (PULLS, "POST /repos/acme/shop/pulls?a=1", Check.QUERY),
        (PULLS, "POST /repos//shop/pulls", Check.URL),
        (PULLS, "POST /repos/acme/..%2fshop/pulls", Check.URL),
        (PULLS, "POST /repos/a%20b/c/pulls", Check.PATH),
        (PULLS, "POST /repos/.git/c/pulls", Check.PATH), (PAGES, "GET /pages", Check.PATH),
        (PAGES, "GET /pages/", Check.PATH), (PAGES, "GET /pages/a/", Check.PATH),
        (PAGES, "GET /pages/a/../b", Check.URL),
        ("GET /{a}", "GET /a:b", Check.PATH), ("GET /{a:int}", "GET /٣", Check.URL),
        ("GET /{a:int}", "GET /1.0", Check.PATH),
        ("GET /{a:int}", "GET /" + "1" * 19, Check.PATH), ("GET /{a:hex}", "GET /0x1", Check.PATH),
        ("GET /{a}", "GET /" + "a" * 1025, Check.PATH),
        ("GET /a?b={segment}", "GET /a?b=" + "a" * 1025, Check.QUERY),
        ("GET /{a:x|xy}z/{b}", "GET /xyyz/b", Check.PATH),
        ("GET /{a:x|y}", "GET /xy", Check.PATH), ("GET /a", "GET /a?", Check.QUERY),
        ("GET /a.b", "GET /axb", Check.PATH),
        ("GET /a?b=c", "GET /a?b=C", Check.QUERY), ("GET /a?uploads", "GET /a?uploads=1", Check.QUERY),
        ("GET /a/", "GET /a", Check.PATH), ("GET /{a}", "GET /", Check.PATH),
        ("GET /a?p={segment}", "GET /a?p=..", Check.QUERY),
        ("GET /a?p={segment}", "GET /a?p=..%2F..%2Fetc", Check.QUERY),
        ("GET /a?p={segment}", "GET /a?p=a%0D%0Ab", Check.QUERY),
        ("GET /a?p={segment}", "GET /a?p=%252e", Check.QUERY),
        ("GET /a?p=v{segment}.json", "GET /a?p=va%2Fb.json", Check.QUERY),
    ],
)  # fmt: skip
def test_refuses_everything_else(rule: str, request_line: str, expected: Check) -> None:
    assert check(rule, request_line) is expected


def test_wants_the_required_parameters() -> None:
    assert check(SEARCH, "GET /search/issues?per_page=1", ("q",)) is Check.QUERY
    assert check(SEARCH, "GET /search/issues", ("q",)) is Check.QUERY
    assert check(SEARCH, "GET /search/issues?q=a", ("q",)) is Check.ALLOWED


def test_drops_headers_that_nobody_listed() -> None:
    headers = (("host", "a"), ("authorization", "x"), ("accept", "*/*"), ("x-a", "1"), ("cookie", "b"))
    verdict = judge([parse_rule("GET /a", headers={"x-a": "{int}"})], Ask("GET", "/a", None, headers))

    assert verdict.check is Check.ALLOWED
    assert verdict.dropped == ("authorization", "cookie")


@pytest.mark.parametrize("headers", [(("x-a", "one"),), (("x-a", "1"), ("x-a", "2")), (("x-a", ""),)])
def test_refuses_a_listed_header_that_says_something_else(headers: tuple[tuple[str, str], ...]) -> None:
    verdict = judge([parse_rule("GET /a", headers={"x-a": "{int}"})], Ask("GET", "/a", None, headers))

    assert verdict.check is Check.HEADER


def test_takes_no_path_for_a_segment_in_a_header() -> None:
    rules = [parse_rule("GET /a", headers={"x-a": "{segment}"})]

    assert judge(rules, Ask("GET", "/a", None, (("x-a", "b%20c"),))).check is Check.ALLOWED
    assert judge(rules, Ask("GET", "/a", None, (("x-a", "..%2Fb"),))).check is Check.HEADER


@pytest.mark.parametrize(
    "name",
    [
        "x-forwarded-for", "X-Forwarded-Host", "x-forwarded-prefix", "forwarded", "x-original-method",
        "x-rewrite-uri", "x-http-path-override", "x-real-ip", "http2-settings", "upgrade", "connection",
        "proxy-authenticate", "x-host", "te",
    ],
)  # fmt: skip
def test_lets_no_rule_list_what_leads_past_the_rules(name: str) -> None:
    with pytest.raises(RuleInvalid, match="cannot be let pass"):
        parse_rule("GET /a", headers={name: "{text}"})


def test_narrows_a_usual_header_that_a_rule_lists() -> None:
    rules = [parse_rule("PUT /a", headers={"content-type": "{application/json|text/plain}"})]

    assert judge(rules, Ask("PUT", "/a", None, (("content-type", "text/plain"),))).check is Check.ALLOWED
    assert judge(rules, Ask("PUT", "/a", None, (("content-type", "text/html"),))).check is Check.HEADER


def test_takes_the_first_rule_that_fits_and_tells_the_check_that_got_furthest() -> None:
    rules = [parse_rule("GET /a?b={int}"), parse_rule("GET /a?b={text}"), parse_rule("PUT /c")]

    assert judge(rules, Ask("GET", "/a", "b=x")).rule == rules[1]
    assert judge(rules, Ask("GET", "/a", "c=x")).check is Check.QUERY
    assert judge([], Ask("GET", "/a")).check is Check.METHOD


def test_needs_a_rule_of_the_grant_too_where_it_has_any() -> None:
    rules, narrowed = [parse_rule("GET /{a}")], [parse_rule("GET /b")]

    assert judge(rules, Ask("GET", "/b"), narrowed).grant_rule == narrowed[0]
    assert judge(rules, Ask("GET", "/c"), narrowed).check is Check.GRANT
    assert judge(rules, Ask("GET", "/b"), []).check is Check.GRANT
    assert judge([], Ask("GET", "/b"), narrowed).check is Check.METHOD


def test_puts_no_word_of_the_request_into_its_reasons() -> None:
    for rule in (SEARCH, PULLS, PAGES):
        verdict = judge(
            [parse_rule(rule)], Ask("SECRET", "/secret", "secret=secret", (("secret", "secret"),))
        )

        assert "secret" not in verdict.why.lower()


segments = st.from_regex(r"[A-Za-z0-9._~%/;:@-]{1,12}|%[0-9a-f]{2}|\.\.?|%2e", fullmatch=True)
RULES: list[HttpRule] = [
    parse_rule(text)
    for text in (SEARCH, PULLS, PAGES, "GET /{a}/{b:slug}", "GET /v{a:int}/{b:hex}", "GET /x/{y:rest}")
]


@given(st.lists(segments, min_size=1, max_size=4), st.sampled_from(RULES))
def test_lets_nothing_pass_that_is_not_plain(parts: list[str], rule: HttpRule) -> None:
    verdict = judge([rule], Ask(rule.method, "/" + "/".join(parts)))

    assert verdict.check is not Check.ALLOWED or is_plain_path("/" + "/".join(parts))


@given(st.sampled_from(RULES), st.lists(st.text("abz019._-", min_size=1), min_size=2, max_size=2), st.text())
def test_reads_again_as_itself_what_it_allowed(rule: HttpRule, values: list[str], text: str) -> None:
    path = rule.path
    for hole, value in zip([part for part in path.split("/") if "{" in part], values, strict=False):
        path = path.replace(hole, value)
    query = f"q={quote(text)}" if rule.query else None
    if judge([rule], Ask(rule.method, path, query)).check is not Check.ALLOWED:
        return
    url = read_target("http://a.example" + path + (f"?{query}" if query is not None else ""))

    assert url is not None
    assert (url.path, url.query) == (path, query)
