"""destinations.toml: known destinations, by environment, and clear errors."""

from __future__ import annotations

import pytest

from broker.policy.destinations import Registry, read_destinations

ENVIRONMENTS = ("dev", "prod")


def read(text: str) -> Registry:
    registry, violations = read_destinations(text, ENVIRONMENTS)
    assert violations == []
    return registry


def wrong(text: str) -> dict[str, str]:
    return {v.field: v.description for v in read_destinations(text, ENVIRONMENTS)[1]}


def test_knows_an_entry_in_every_environment_unless_told() -> None:
    registry = read('[[destination]]\nvalue = "a"\nnote = "ours"\n')
    assert ["a" in registry.trusted(name) for name in ENVIRONMENTS] == [True, True]


def test_knows_an_entry_only_in_its_environments() -> None:
    registry = read('[[destination]]\nvalue = "a"\nenvironments = ["prod"]\n')
    assert ["a" in registry.trusted(name) for name in ENVIRONMENTS] == [False, True]


def test_knows_nothing_when_empty() -> None:
    assert not [value for value in ("", "a", "https://a.example/") if value in read("").trusted("dev")]


def test_says_where_the_toml_breaks() -> None:
    assert "line 2" in wrong("[[destination]]\nvalue = \n")["destinations.toml"]


def test_names_the_nearest_key() -> None:
    found = wrong('[[destination]]\nvalue = "a"\n\n[[destination]]\nvalue = "b"\nenvironment = ["dev"]\n')
    assert found == {"destinations.toml:4": '"environment" is unknown; did you mean "environments"?'}


@pytest.mark.parametrize(
    "text",
    [
        "value = 1",
        "value = ''",
        'value = "a\\nb"',
        'note = "without a value"',
        'value = "a"\nnote = 1',
        'value = "a"\nenvironments = []',
        'value = "a"\nenvironments = "dev"',
        'value = "a"\nenvironments = ["staging"]',
        'value = "https://a.example/"\nmatch = "domain"',
        'value = "a.example"\nmatch = "host"',
        'value = "https://a.example/docs"\nmatch = "host"',
        'value = "https://A.example"\nmatch = "host"',
        'value = "https://u@a.example"\nmatch = "host"',
        'value = "https://a.example/docs"\nmatch = "prefix"',
        'value = "https://a.example/?q=/"\nmatch = "prefix"',
        'value = "iban:DE89"\nmatch = "prefix"',
        'value = "https://"\nmatch = "prefix"',
    ],
)
def test_refuses_an_entry_that_trusts_nothing_clear(text: str) -> None:
    assert list(wrong(f"[[destination]]\n{text}\n")) == ["destinations.toml:1"]


@pytest.mark.parametrize(
    "text", ['[[destinations]]\nvalue = "a"', 'destination = "a"', '[destination]\nvalue = "a"']
)
def test_refuses_another_layout(text: str) -> None:
    assert wrong(text)


def test_refuses_the_same_value_twice() -> None:
    entry = '[[destination]]\nvalue = "a"\n'
    assert "2 times" in wrong(entry + entry)["destinations.toml"]


def test_leaves_a_wrong_entry_out_of_the_registry() -> None:
    registry, violations = read_destinations(
        '[[destination]]\nvalue = "a"\nenvironments = []\n', ENVIRONMENTS
    )
    assert ("a" in registry.trusted("dev"), len(violations)) == (False, 1)


HOST = '[[destination]]\nvalue = "https://docs.example"\nmatch = "host"\n'
PREFIX = '[[destination]]\nvalue = "https://docs.example/public/"\nmatch = "prefix"\n'


@pytest.mark.parametrize(
    "url", ["https://docs.example/", "https://docs.example/a/b?c=d&e=%20#f", "https://docs.example/~a@b"]
)
def test_trusts_every_page_of_a_listed_host(url: str) -> None:
    assert url in read(HOST).trusted("dev")


@pytest.mark.parametrize(
    "url",
    [
        "https://docs.example",
        "http://docs.example/",
        "https://docs.example:444/",
        "https://docs.example:443/",
        "https://docs.example:0443/",
        "https://docs.example./",
        "https://Docs.example/",
        "HTTPS://docs.example/",
        "https://docs.example@evil.example/",
        "https://docs.example:pw@evil.example/",
        "https://evil.example/@docs.example/",
        "https://evil.example/https://docs.example/",
        "https://docs.example.evil.example/",
        "https://evildocs.example/",
        "https://docs.example?@evil.example/",
        "https://docs.example#@evil.example/",
        "https://docs.example\\@evil.example/",
        "https:\\\\docs.example/",
        "https:/docs.example/",
        "https:///docs.example/",
        "//docs.example/",
        " https://docs.example/",
        "https://docs.example/ ",
        "https://docs.example/\n",
        "https://docs.example/a\tb",
        "ht\ntps://docs.example/",
        "https://docs\u3002example/",
        "https://doc\u017f.example/",
        "https://d\u043ecs.example/",
        "https://docs%2eexample/",
        "https://%64ocs.example/",
        "https://docs.example%2f@evil.example/",
        "https://docs.example%00.evil.example/",
        "https://docs.example/%zz",
        "https://docs.example/%",
        "https://docs.example/a\u00e9",
        "https://[docs.example]/",
        "javascript://docs.example/%0aalert(1)",
        "data:text/html,https://docs.example/",
        "https://docs..example/",
        "https://-docs.example/",
    ],
)
def test_is_not_tricked_into_another_host(url: str) -> None:
    known = read(HOST).trusted("dev")
    assert url not in known
    assert not read(HOST).entries[0].covers(url)


@pytest.mark.parametrize("url", ["https://docs.example/public/", "https://docs.example/public/a?b=c"])
def test_trusts_what_is_below_a_prefix(url: str) -> None:
    assert url in read(PREFIX).trusted("dev")


@pytest.mark.parametrize(
    "url",
    [
        "https://docs.example/public",
        "https://docs.example/publicity",
        "https://docs.example/Public/",
        "https://docs.example/public/../admin",
        "https://docs.example/public/..",
        "https://docs.example/public/%2e%2e/admin",
        "https://docs.example/public/.%2E/admin",
        "https://docs.example/public/%2f..%2fadmin",
        "https://docs.example/public/%5c../admin",
        "https://docs.example/?/public/",
        "https://docs.example:8443/public/",
        "https://docs.example/public/\\..\\admin",
        "https://docs.example/public/..;/admin",
        "https://docs.example/public/..;a=b/admin",
        "https://docs.example/public/%2e.%3b/admin",
        "https://docs.example/public/%252e%252e/admin",
        "https://docs.example/public/..%252fadmin",
        "https://docs.example/public/%25252e%25252e/admin",
    ],
)
def test_stays_below_a_prefix(url: str) -> None:
    assert url not in read(PREFIX).trusted("dev")
