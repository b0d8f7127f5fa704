"""The demo's grants and those of docs/grants.md check against the shop and say what the texts promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.model import Call
from broker.policy.grants import compile_grants
from tests.broker.policy.conftest import ENVIRONMENTS, Desk

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "deploy" / "demo" / "grants"
BASE = ("shop.cedar", "destinations.toml")
ALL = (*BASE, "shop-refunds.cedar")


def ask_demo(desk: Desk, names: tuple[str, ...], call: Call) -> str:
    files = {name: (DEMO / name).read_text() for name in names}
    grants = compile_grants(files, tuple(desk.version.contracts.values()), ENVIRONMENTS, "acme")
    return desk.explain(grants, call).decision


def as_refund_desk(desk: Desk) -> Desk:
    return desk.named("refund-desk")


def test_demo_reads_and_drafts_but_moves_no_money_at_first(desk: Desk) -> None:
    agent = as_refund_desk(desk)
    draft = (
        '{"order_id": "A-1042", "amount": {"minor_units": "4000", "currency": "EUR"}, "comment": "broken"}'
    )
    calls = (agent.lookup(), agent.call("shop.v1.Orders/CreateRefundDraft", draft), agent.refund())
    assert [ask_demo(desk, BASE, call) for call in calls] == ["allow", "allow", "deny"]


@pytest.mark.parametrize(
    ("units", "currency", "account", "decision"),
    [
        (4000, "EUR", "", "allow"),
        (5000, "EUR", "", "allow"),
        (5001, "EUR", "", "ask"),
        (1000, "USD", "", "deny"),
        (1000, "EUR", "iban:DE89370400440532013000", "allow"),
        (1000, "EUR", "iban:XX00", "ask"),
        (1000, "EUR", "crypto:abcdef", "deny"),
    ],
)
def test_demo_refunds_as_far_as_its_second_file_says(
    desk: Desk, units: int, currency: str, account: str, decision: str
) -> None:
    call = as_refund_desk(desk).refund(units, currency, account)
    assert ask_demo(desk, ALL, call) == decision


def test_demo_gives_another_agent_nothing(desk: Desk) -> None:
    assert ask_demo(desk, ALL, desk.lookup()) == "deny"


@pytest.mark.parametrize(
    ("units", "currency", "account", "environment", "decision", "grant"),
    [
        (1250, "EUR", "", "dev", "allow", "refund-small"),
        (8000, "EUR", "", "dev", "ask", "refund-large"),
        (1250, "USD", "", "dev", "deny", ""),
        (1250, "EUR", "crypto:abcdef", "dev", "deny", "no-crypto-payouts"),
        (1250, "EUR", "iban:XX00", "dev", "ask", "refund-small"),
        (1250, "EUR", "", "prod", "deny", ""),
    ],
)
def test_page_about_grants_tells_the_truth(
    desk: Desk, units: int, currency: str, account: str, environment: str, decision: str, grant: str
) -> None:
    page = (ROOT / "docs" / "grants.md").read_text()
    cedar, toml = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("cedar", "toml"))
    call = as_refund_desk(desk).refund(units, currency, account, environment=environment)
    found = desk.explain(desk.compile(cedar[0], toml[0]), call)
    assert (found.decision, (*found.grant_ids, "")[0]) == (decision, grant)
