"""What `egress explain` says of one request, and of whom it asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import yaml

from broker.egress_explanation import EgressExplainer, Explanation, Request, find_fault
from broker.policy.files import Policy, read_policies
from broker.policy.permits import Permit, find_permits
from sandboxes.proxy.access import HttpTarget
from tools.http_rules import Check
from tools.manifest import read_manifest

METHOD = "web.v1.Web/Fetch"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
MANIFEST = """
bundle: web
version: 1.0.0
description: Fetches.
image: {command: ["true"]}
credentials:
  key: {engine: kv, role: web-key, target: api, inject: {form: bearer}}
targets:
  api: {kind: http, allow: ["GET /issues/{id:int}?q={text}", "POST /issues"]}
  feed: {kind: http, opaque: true}
  spare: {kind: http, allow: [GET /]}
tools:
  web.v1.Web/Fetch: {credentials: [key], targets: [api, feed, spare], deadline_seconds: 5}
"""
TARGETS = {
    "api": HttpTarget("api", "10.0.0.1", 443, ("https://api.example",)),
    "feed": HttpTarget("feed", "10.0.0.2", 443, ("https://feed.example",)),
    "more": HttpTarget("more", "10.0.0.3", 443, ("https://more.example",)),
}


def explain(
    url: str, method: str = "GET", permits: list[Permit] | None = None, **headers: str
) -> Explanation:
    manifest = read_manifest(yaml.safe_dump(yaml.safe_load(MANIFEST)))
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return EgressExplainer(manifest, METHOD, TARGETS).explain(Request(method, url, named), permits)


def read(*texts: str) -> list[Policy]:
    return list(read_policies({"a.cedar": "\n".join(texts)})[0])


def permit(name: str, annotations: str = "", condition: str = "", effect: str = "permit") -> str:
    targets = '@targets("api, feed, spare")' if effect == "permit" else ""
    scope = f'principal == Agent::"bot", action == Action::"{METHOD}", resource == Environment::"dev"'
    return f'@id("{name}") {targets} {annotations} {effect} ({scope}) {condition};'


def find(*texts: str, agent: str = "bot", environment: str = "dev", now: datetime = NOW) -> list[Permit]:
    targets = ("api", "feed", "spare")
    asked = {"agent": agent, "method": METHOD, "environment": environment, "targets": targets}
    return list(find_permits(read(*texts), now, **asked))  # type: ignore[arg-type]


def test_says_which_rule_allows_and_what_is_added() -> None:
    found = explain("https://api.example/issues/7?q=a+b", authorization="x", accept="*/*")

    assert (found.is_allowed, found.target, found.rule) == (True, "api", "GET /issues/{id:int}?q={text}")
    assert (found.opened, found.injected, found.injected_form) == (True, "key", "bearer")
    assert (found.dropped, found.grant_id) == (("authorization",), "")


def test_says_what_is_dropped_where_a_credential_is_added() -> None:
    found = explain("https://api.example/issues/7", authorization="x", range="bytes=0-1", x_trace="1")

    assert found.dropped == ("authorization", "x-trace", "range")


@pytest.mark.parametrize(
    ("url", "method", "check", "why"),
    [
        ("https://api.example/issues/a", "GET", Check.PATH, "tool.yaml has: GET /issues/{id:int}?q={text};"),
        ("https://api.example/issues/1?z=1", "GET", Check.QUERY, "not this query"),
        ("https://api.example/issues/1", "PUT", Check.METHOD, "no rule allows this method"),
        ("https://api.example/issues/../1", "GET", Check.URL, "parsers"),
        ("https://api.example:8443/issues/1", "GET", Check.TARGET, "its targets have https://api.example"),
        ("https://more.example/", "GET", Check.TARGET, "no target spare of kind http: add [targets.spare]"),
        ("http://feed.example/", "GET", Check.TARGET, "origin"),
    ],
)
def test_says_what_refuses_and_what_to_change(url: str, method: str, check: Check, why: str) -> None:
    found = explain(url, method)

    assert (found.check, found.is_allowed, found.injected) == (check, False, "")
    assert why in found.why


def test_sees_no_path_behind_an_opaque_target() -> None:
    found = explain("https://feed.example/%2e%2e/", "PUT")

    assert (found.is_allowed, found.opened, found.rule) == (True, False, "")


def test_holds_no_rules_of_a_grant_to_what_is_opaque() -> None:
    found = explain("https://feed.example/", permits=find(permit("a", '@egress("api GET /issues/{id}")')))

    assert (found.check, found.grant_id) == (Check.GRANT, "a")


def test_names_the_rule_of_the_grant() -> None:
    permits = find(permit("a", '@egress("api GET /issues/7")'))

    assert explain("https://api.example/issues/7", permits=permits).grant_rule == "GET /issues/7"
    refused = explain("https://api.example/issues/8", permits=permits)
    assert (refused.check, refused.rule != "") == (Check.GRANT, True)
    assert "@egress of a has for api: GET /issues/7" in refused.why


def test_refuses_where_nothing_is_granted() -> None:
    assert explain("https://api.example/issues/7", permits=[]).check is Check.GRANT


def test_says_that_conditions_remain() -> None:
    found = explain("https://api.example/issues/7", permits=find(permit("a", condition="when {false}")))

    assert "where the grant's conditions are met" in found.why


SEVEN, EIGHT = '@egress("api GET /issues/7")', '@egress("api GET /issues/8")'
EUR, USD = '@limit_amount("100 EUR/1d")', '@limit_amount("100 USD/1d")'


@pytest.mark.parametrize(
    ("texts", "url", "why"),
    [
        ([permit("a", EUR)], "/issues/7", "where the grant's conditions are met"),
        ([permit("a"), permit("b", condition="when {false}", effect="forbid")], "/issues/7", "conditions"),
        (
            [permit("a", EUR), permit("b", f'{USD} @egress("api GET /issues/8")')],
            "/issues/7",
            "by a: b would",
        ),
        (
            [permit("a"), permit("b", '@destinations("iban:XX1") @egress("api GET /issues/8")')],
            "/issues/7",
            "comes by a: b would refuse it",
        ),
        (
            [
                permit("a", '@egress("api GET /issues/7")', "when {true}"),
                permit("b", '@egress("api GET /issues/8")'),
            ],
            "/issues/8",
            "comes by b: a would refuse it",
        ),
    ],
)
def test_says_that_another_grant_may_be_the_one(texts: list[str], url: str, why: str) -> None:
    found = explain(f"https://api.example{url}", permits=find(*texts))

    assert found.is_allowed
    assert why in found.why


def test_says_it_flatly_where_every_grant_agrees() -> None:
    grants = find(permit("a"), permit("b", '@destinations("iban:XX1")'))

    assert explain("https://api.example/issues/7", permits=grants).why == "a rule allows it"
    narrow = [permit(name, '@egress("api GET /issues/7")', "when {true}") for name in "ab"]
    assert explain("https://api.example/issues/8", permits=find(*narrow)).check is Check.GRANT


def test_orders_grants_as_one_is_chosen() -> None:
    names = [
        one.grant.grant_id
        for one in find(
            permit("a", '@ask("why")'), permit("b", '@egress("api GET /")', "when {true}"),
            permit("c", condition="when {true}"), permit("d", condition="when {true}"),
        )
    ]  # fmt: skip
    assert names == ["c", "d", "b", "a"]


def test_stops_at_a_grant_without_conditions() -> None:
    assert [one.grant.grant_id for one in find(permit("a"), permit("b"))] == ["a"]


@pytest.mark.parametrize(
    ("texts", "changes"),
    [
        ([permit("a")], {"agent": "other"}), ([permit("a")], {"environment": "prod"}),
        ([permit("a"), permit("b", effect="forbid")], {}),
        ([permit("a", '@expires("2026-11-20T00:00:00Z")')], {}),
        ([permit("a").replace("api, feed", "api")], {}),
    ],
)  # fmt: skip
def test_finds_no_grant(texts: list[str], changes: dict[str, str]) -> None:
    assert find(*texts, **changes) == []  # type: ignore[arg-type]


def test_finds_a_grant_until_it_expires() -> None:
    text = permit("a", '@expires("2026-11-22T00:00:00Z")')

    assert find(text) != []
    assert find(text, now=NOW + timedelta(days=1)) == []


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("api.example/a", "http://HOST"), ("http://api.example", '"/" after the host'),
        ("http://a@b.example/", "user"), ("http://API.example/", "lower case"), ("http://a.example./", "dot"),
        ("http://a.example//b", "empty segment"), ("http://a.example/%2e", "escape"),
        ("http://a/#b", "fragment"),
    ],
)  # fmt: skip
def test_says_what_is_wrong_with_a_url(url: str, text: str) -> None:
    assert text in find_fault(url)
