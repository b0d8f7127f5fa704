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
    assert [registry.trusted(name) for name in ENVIRONMENTS] == [{"a"}, {"a"}]


def test_knows_an_entry_only_in_its_environments() -> None:
    registry = read('[[destination]]\nvalue = "a"\nenvironments = ["prod"]\n')
    assert [registry.trusted(name) for name in ENVIRONMENTS] == [frozenset(), {"a"}]


def test_knows_nothing_when_empty() -> None:
    assert read("").trusted("dev") == frozenset()


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
    assert (registry.trusted("dev"), len(violations)) == (frozenset(), 1)
