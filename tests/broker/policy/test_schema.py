"""The schema made from contracts: a typo is an error, and says what was meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from broker.policy.findings import GrantsInvalid
from broker.policy.grants import Question, compile_grants
from broker.policy.schema import TypesConflict, build_schema, merge_types
from tests.broker.policy.conftest import LOOKUP, NOW, Desk, write_forbid, write_permit
from tests.broker.policy.lab import METHOD, load_lab
from toolcrib.v1.reasons_pb2 import Reason
from tools.catalogue import ToolVersion
from tools.contract import Contract

LONG = {"type": "Long", "required": True}
TEXT = {"type": "String", "required": True}


CONDITIONS = [
    'context.request.name == "x"',
    'context.request has nick && context.request.nick == "x"',
    'context.request.colour == "COLOUR_RED"',
    "context.request.count > 0",
    'context.request.parts.contains({id: "x", sizes: [1]})',
    'context has subject && context.subject == "ada"',
    'context has workflow && context.workflow like "refund-*"',
    'context.tool_version == "1.0.0"',
    "context.untrusted",
]
REQUEST = """{"name": "x", "nick": "x", "weight": 1.5, "pin": "1234", "colour": "COLOUR_RED",
    "tags": {"a": "b"}, "parts": [{"id": "x", "sizes": ["1", "1"]}], "count": "9223372036854775807"}"""


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> ToolVersion:
    return load_lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def lab(version: ToolVersion) -> Contract:
    return version.contracts[METHOD]


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return load_lab(tmp_path_factory.mktemp("lab"), "1.1.0", "int64 added = 9;").contracts[METHOD]


def check(contracts: list[Contract], condition: str) -> str:
    """What is wrong with a permit of the lab's tool under a condition; empty when nothing is."""
    text = write_permit("a", condition, method=METHOD)
    try:
        compile_grants({"lab.cedar": text}, contracts, ("dev",), "acme")
    except GrantsInvalid as error:
        return error.violations[0].description
    return ""


@pytest.mark.parametrize("condition", CONDITIONS)
def test_shows_what_the_contract_shows(lab: Contract, condition: str) -> None:
    assert check([lab], condition) == ""


@pytest.mark.parametrize("condition", CONDITIONS)
def test_fits_the_requests_that_the_contract_lets_through(version: ToolVersion, condition: str) -> None:
    contract = version.contracts[METHOD]
    text = write_permit("a", condition, method=METHOD, annotations="")
    grants = compile_grants({"lab.cedar": text}, [contract], ("dev",), "acme")
    message = contract.parse_request_json(REQUEST)
    question = Question.about(version, METHOD, message, agent="desk", environment="dev")
    found = grants.explain(replace(question, subject="ada", workflow="refund-1"), NOW)
    assert (found.decision, found.errors) == ("allow", ())


def test_fits_an_empty_request(version: ToolVersion) -> None:
    contract = version.contracts[METHOD]
    text = write_permit("a", "!(context.request has nick)", method=METHOD, annotations="")
    grants = compile_grants({"lab.cedar": text}, [contract], ("dev",), "acme")
    question = Question.about(version, METHOD, contract.parse_request(b""), agent="desk", environment="dev")
    assert grants.explain(question, NOW).decision == "allow"


def test_refuses_a_request_of_a_version_that_the_grants_do_not_know(lab: Contract, tmp_path: Path) -> None:
    version = load_lab(tmp_path, "1.1.0", "int64 added = 9;")
    text = write_permit("a", method=METHOD, annotations="")
    grants = compile_grants({"lab.cedar": text}, [lab], ("dev",), "acme")
    message = version.contracts[METHOD].parse_request_json('{"added": "1"}')
    found = grants.explain(Question.about(version, METHOD, message, agent="desk", environment="dev"), NOW)
    assert (found.decision, found.reason) == ("deny", Reason.REASON_POLICY_FAILED)


@pytest.mark.parametrize("field", ["weight", "pin", "tags"])
def test_says_that_a_field_is_hidden_from_policies(lab: Contract, field: str) -> None:
    assert "policies cannot see it" in check([lab], f'context.request.{field} == "x"')


def test_names_the_nearest_field_for_a_typo(lab: Contract) -> None:
    assert 'did you mean "count"?' in check([lab], "context.request.cuont > 0")


def test_wants_has_before_an_optional_field(lab: Contract) -> None:
    assert "write `context.request has nick && …`" in check([lab], 'context.request.nick == "x"')


def test_wants_has_before_a_subject(lab: Contract) -> None:
    assert "write `context has subject && …`" in check([lab], 'context.subject == "x"')


def test_refuses_a_comparison_of_different_types(lab: Contract) -> None:
    assert "not compatible" in check([lab], 'context.request.count == "1"')


def test_makes_a_field_of_only_one_version_optional(lab: Contract, newer: Contract) -> None:
    assert "may be absent" in check([lab, newer], "context.request.added > 0")
    assert check([newer, lab], "context.request has added && context.request.added > 0") == ""


def test_keeps_a_field_of_both_versions_required(lab: Contract, newer: Contract) -> None:
    assert check([lab, newer], "context.request.count > 0") == ""


def test_refuses_versions_that_disagree_about_a_type(lab: Contract, tmp_path: Path) -> None:
    first = load_lab(tmp_path / "a", "1.1.0", "int64 added = 9;").contracts[METHOD]
    second = load_lab(tmp_path / "b", "1.2.0", "bool added = 9;").contracts[METHOD]
    with pytest.raises(GrantsInvalid, match=r"request\.added"):
        build_schema([first, second], ("dev",))


def test_merges_records_at_any_depth() -> None:
    first = {"type": "Set", "element": {"type": "Record", "attributes": {"a": LONG, "b": TEXT}}}
    second = {"type": "Set", "element": {"type": "Record", "attributes": {"a": LONG}}}
    element = merge_types(first, second, "x")["element"]
    assert element == {
        "type": "Record",
        "attributes": {"a": LONG, "b": {"type": "String", "required": False}},
    }


def test_does_not_merge_different_types() -> None:
    with pytest.raises(TypesConflict, match=r"x\.a"):
        merge_types(
            {"type": "Record", "attributes": {"a": LONG}}, {"type": "Record", "attributes": {"a": TEXT}}, "x"
        )


def test_says_that_other_tools_have_a_field(desk: Desk) -> None:
    (description,) = desk.find_wrong(write_forbid("a", "context.request.amount.minor_units > 5")).values()
    assert LOOKUP in description
    assert "other tools have it" in description


def test_points_at_each_policy_with_a_problem(desk: Desk) -> None:
    text = write_permit("a") + write_permit("b", "context.request.oder_id == 1") + write_permit("c", "1")
    assert list(desk.find_wrong(text)) == ['shop.cedar:4 (policy "b")', 'shop.cedar:8 (policy "c")']


def test_takes_no_policies_without_tools() -> None:
    with pytest.raises(GrantsInvalid, match="no tool"):
        compile_grants({"a.cedar": write_permit("a")}, [], ("dev",), "acme")


def test_takes_no_permits_without_environments(desk: Desk) -> None:
    with pytest.raises(GrantsInvalid, match="no environment"):
        compile_grants({"a.cedar": write_permit("a")}, tuple(desk.version.contracts.values()), (), "acme")
