"""Grant files: names, sizes, ids; the digest that names them and the plan that compares them."""

from __future__ import annotations

import pytest

from broker.policy import files
from broker.policy.files import Change, diff_grants, digest_files, read_policies
from broker.policy.findings import GrantsInvalid

FORBID = '@id("a")\nforbid (principal, action, resource);\n'


def wrong(given: dict[str, str]) -> dict[str, str]:
    return {v.field: v.description for v in read_policies(given)[1]}


@pytest.mark.parametrize("name", ["shop.txt", "../shop.cedar", "a/b.cedar", ".cedar", "destinations.tml", ""])
def test_refuses_a_file_with_another_name(name: str) -> None:
    assert "is no grant file" in wrong({name: FORBID})[name]


def test_refuses_huge_files() -> None:
    assert "characters" in wrong({"a.cedar": " " * files.MAX_CHARACTERS, "b.cedar": " "})["grant files"]


def test_refuses_too_many_files() -> None:
    assert wrong({f"{n}.cedar": "" for n in range(files.MAX_FILES + 1)})


def test_refuses_an_id_that_another_file_has() -> None:
    found = wrong({"a.cedar": FORBID, "b.cedar": "\n" + FORBID})
    assert found == {'b.cedar:2 (policy "a")': "its @id is taken by a.cedar:1; give each policy its own"}


def test_refuses_a_policy_without_an_id() -> None:
    assert "has no @id" in wrong({"a.cedar": "forbid (principal, action, resource);"})["a.cedar:1"]


def test_points_at_the_line_of_a_syntax_error() -> None:
    found = wrong({"a.cedar": '@id("a")\nforbid (principal, action, resource)\nwhn { true };'})
    assert "not Cedar" in found["a.cedar:3"]


def test_refuses_slots() -> None:
    assert (
        "slot"
        in wrong({"a.cedar": '@id("a") permit (principal == ?principal, action, resource);'})["a.cedar:1"]
    )


def test_refuses_conditions_that_are_nested_too_deep() -> None:
    condition = "true || " * 150 + "true"
    found = wrong({"a.cedar": f'@id("a") forbid (principal, action, resource) when {{ {condition} }};'})
    assert "nested more than 100" in found["a.cedar:1"]


def test_digest_does_not_depend_on_the_order_of_files() -> None:
    assert digest_files({"a": "1", "b": "2"}) == digest_files({"b": "2", "a": "1"})


def test_digest_tells_name_and_text_apart() -> None:
    assert digest_files({"a": "bc"}) != digest_files({"ab": "c"})


def test_digest_of_no_files_is_empty() -> None:
    assert digest_files({}) == ""


def test_plan_names_what_is_added_removed_and_replaced() -> None:
    old = {"x.cedar": FORBID + '@id("gone") forbid (principal, action, resource);'}
    new = {
        "x.cedar": FORBID.replace(";", " when { true };") + '@id("new") forbid (principal, action, resource);'
    }
    assert [(change.kind, change.id) for change in diff_grants(old, new)] == [
        ("REPLACE", "a"),
        ("REMOVE", "gone"),
        ("ADD", "new"),
    ]


def test_plan_shows_the_text_before_and_after() -> None:
    after = '@id("a")\nforbid (principal, action, resource)\nunless { false };'
    assert diff_grants({"x.cedar": FORBID}, {"x.cedar": after}) == [
        Change("REPLACE", "a", FORBID.strip(), after)
    ]


def test_plan_overlooks_layout_comments_and_moves() -> None:
    assert diff_grants({"x.cedar": FORBID}, {"y.cedar": "// moved\n" + FORBID.replace(" ", "\n  ")}) == []


def test_plan_sees_a_changed_annotation() -> None:
    scope = 'permit (principal == Agent::"a", action == Action::"b", resource == Environment::"c");'
    old, new = ({"x.cedar": f'@id("a") @ask("{why}") {scope}'} for why in ("one", "two"))
    assert [change.kind for change in diff_grants(old, new)] == ["REPLACE"]


@pytest.mark.parametrize(
    ("old", "new", "kind"), [("", "a", "ADD"), ("a", "", "REMOVE"), ("a", "b", "REPLACE")]
)
def test_plan_shows_destinations_as_a_whole(old: str, new: str, kind: str) -> None:
    texts = {text: f'[[destination]]\nvalue = "{text}"' if text else "" for text in (old, new)}
    (change,) = diff_grants({"destinations.toml": texts[old]}, {"destinations.toml": texts[new]})
    assert (change.kind, change.id, change.after) == (kind, "destinations", texts[new])


def test_plan_replaces_old_files_that_cannot_be_read() -> None:
    changes = diff_grants({"x.cedar": "forbid (principl, action, resource);"}, {"x.cedar": FORBID})
    assert [(change.kind, change.id) for change in changes] == [("ADD", "a"), ("REMOVE", "x.cedar:1")]


def test_plan_refuses_new_files_that_cannot_be_read() -> None:
    with pytest.raises(GrantsInvalid) as caught:
        diff_grants({}, {"x.cedar": "forbid (principl, action, resource);"})
    assert caught.value.reason_name == "GRANTS_INVALID"
