"""Annotations: what each says, and that nothing is guessed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.model import BudgetLimit
from broker.policy.annotations import Terms, read_terms


def read(**annotations: str) -> Terms:
    terms, problems = read_terms({"id": "a", **annotations}, "permit")
    assert problems == []
    return terms


def problem(effect: str = "permit", **annotations: str) -> str:
    (found,) = read_terms({"id": "a", **annotations}, effect)[1]
    return found


def test_reads_targets_and_destinations_as_lists() -> None:
    terms = read(targets="orders-db, mail", destinations="iban:DE1, a@b.example")
    assert terms.targets == {"orders-db", "mail"}
    assert terms.destinations == {"iban:DE1", "a@b.example"}


def test_reads_limits_with_their_windows_in_seconds() -> None:
    terms = read(limit_calls="10/1h, 50/7d", limit_amount="50000 EUR/30m")
    assert set(terms.limits) == {
        BudgetLimit("calls", 10, 3600),
        BudgetLimit("calls", 50, 7 * 86400),
        BudgetLimit("minor:EUR", 50000, 1800),
    }
    assert terms.currency == "EUR"


@pytest.mark.parametrize("text", ["2027-01-01T00:00:00Z", "2027-01-01T02:00:00+02:00"])
def test_reads_an_expiry_in_any_zone(text: str) -> None:
    assert read(expires=text).expires == datetime(2027, 1, 1, tzinfo=UTC)


def test_gives_the_grant_what_the_annotations_say() -> None:
    grant = read(ask="why", targets="orders-db", limit_calls="1/1s").grant()
    assert (grant.grant_id, grant.ask, grant.targets) == ("a", "why", {"orders-db"})
    assert grant.limits == (BudgetLimit("calls", 1, 1),)


def test_names_the_nearest_annotation_for_an_unknown_one() -> None:
    assert 'did you mean "targets"?' in problem(target="orders-db")


def test_wants_an_id() -> None:
    _, problems = read_terms({}, "forbid")
    assert "has no @id" in problems[0]


def test_reads_which_requests_alone_may_be_sent() -> None:
    grant = read(targets="crm, orders-db", egress="crm GET /a/{id:int}?q={text}, crm POST /b").grant()

    assert grant.egress is not None
    assert [(target, rule.text) for target, rule in grant.egress] == [
        ("crm", "GET /a/{id:int}?q={text}"), ("crm", "POST /b"),
    ]  # fmt: skip


def test_narrows_nothing_without_rules() -> None:
    assert read(targets="crm").egress is None


def test_names_a_target_that_is_not_reached_at_all() -> None:
    assert "name it in @targets too" in problem(targets="orders-db", egress="crm GET /a")


@pytest.mark.parametrize(
    "name", ["ask", "targets", "destinations", "limit_calls", "limit_amount", "expires", "egress"]
)
def test_refuses_terms_on_a_forbid(name: str) -> None:
    assert "no meaning on a forbid" in problem("forbid", **{name: "x"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("id", ""),
        ("id", "two words"),
        ("id", "a\nb"),
        ("id", "a" * 129),
        ("ask", " "),
        ("ask", "two\nlines"),
        ("egress", ""),
        ("egress", "crm"),
        ("egress", "GET /a"),
        ("egress", "crm GET /a,"),
        ("egress", "crm GET a"),
        ("egress", "crm GET /a?b={what}"),
        ("egress", "crm GET /{a}" + "b" * 65),
        ("egress", "Crm GET /a"),
        ("egress", ", ".join(f"crm GET /{number}" for number in range(201))),
        ("targets", ""),
        ("targets", "orders-db,"),
        ("targets", "Orders DB"),
        ("destinations", "a,,b"),
        ("limit_calls", "10"),
        ("limit_calls", "0/1h"),
        ("limit_calls", "-1/1h"),
        ("limit_calls", "1.5/1h"),
        ("limit_calls", "10/0h"),
        ("limit_calls", "10/1w"),
        ("limit_calls", "10/367d"),
        ("limit_calls", "10/1h, 20/60m"),
        ("limit_calls", "٣/1h"),
        ("limit_amount", "500 /1d"),
        ("limit_amount", "500 eur/1d"),
        ("limit_amount", "500.00 EUR/1d"),
        ("limit_amount", "500 EUR/1d, 500 USD/1d"),
        ("expires", "tomorrow"),
        ("expires", "2027-01-01"),
        ("expires", "2027-01-01T00:00:00"),
        ("targets", "a" * 10_001),
    ],
)
def test_refuses_what_it_cannot_hold_a_call_to(name: str, text: str) -> None:
    assert problem(**{name: text}).startswith(f"@{name}")


def test_tells_every_problem_at_once() -> None:
    _, problems = read_terms({"id": "", "expires": "x", "asks": "y"}, "permit")
    assert len(problems) == 3
