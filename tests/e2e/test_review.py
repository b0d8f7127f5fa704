"""What a security team reviews on the command line: who may do what, when last, and what nobody uses."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from tests.e2e import grants
from tests.e2e.lean_stack import LeanThread
from tests.e2e.stack import Crib
from tests.parts import REAL_PARTS, without

LOOKUP, REFUND = "shop.v1.Orders/LookupOrder", "shop.v1.Orders/IssueRefund"
FORBID = """
@id("no-crypto")
forbid (principal, action, resource)
when { context.request has payout_account && context.request.payout_account like "crypto:*" };
"""
SMALL = '{"order_id": "A-1042", "amount": {"minor_units": "100", "currency": "EUR"}}'


@pytest.fixture(scope="module")
def crib(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crib]:
    """A Toolcrib with grants, of which an agent used one."""
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    with LeanThread(tmp_path_factory.mktemp("lean") / "state") as crib:
        REAL_PARTS.append(f"OpenBao {crib.stack.vault.version}, PostgreSQL {crib.stack.postgres.version}")
        crib.grant(grants.READ + grants.REFUND + FORBID)
        with crib.caller() as agent:
            assert agent.call(LOOKUP, {"order_id": "A-1042"}).code == "OK"
        yield crib


def run(crib: Crib, *words: str, name: str = "rob", role: str = "reviewer") -> Result:
    """Run a command of `grants` as a reviewer."""
    folder = crib.profile(name, role).cert_path.parent
    return CliRunner().invoke(main, ["grants", *words], env={"TOOLCRIB_PROFILE": str(folder)})


def read(crib: Crib, *words: str) -> list[dict[str, Any]]:
    """Run it for a program."""
    said = run(crib, *words, "-o", "json")
    assert said.exit_code == 0, said.output
    found: list[dict[str, Any]] = json.loads(said.stdout)
    return found


def test_says_what_an_agent_may_do(crib: Crib):
    rows = read(crib, "explain", "--agent", "refund-desk")
    found = {(row["tool"].rpartition("/")[2], row["decision"], row["grant"]) for row in rows}
    assert found == {
        ("*", "forbid", "no-crypto"),
        ("LookupOrder", "allow", "read"),
        ("LookupRefund", "allow", "read"),
        ("IssueRefund", "allow", "refund-small"),
        ("IssueRefund", "ask", "refund-large"),
    }


def test_says_with_which_vault_role_and_when_last(crib: Crib):
    used, unused = (
        next(row for row in read(crib, "explain", "--tool", tool) if row["decision"] == "allow")
        for tool in (LOOKUP, REFUND)
    )
    assert used["credentials"] == [
        {"credential": "orders_read", "engine": "database", "role": "shop-orders-read"}
    ]
    assert (used["uses"], used["targets"]) == (1, ["orders-db"])
    assert (unused["uses"], unused["last_used"]) == (0, "")


def test_shows_it_in_80_columns_with_every_condition(crib: Crib):
    said = run(crib, "explain", "--tool", REFUND).stdout
    table = said.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "DECISION  AGENT" in table and "never" in table
    assert 'context.request.payout_account like "crypto:*"' in said
    assert "credentials: database/shop-orders-refund" in said


def test_writes_it_for_a_spreadsheet(crib: Crib):
    said = run(crib, "explain", "--agent", "refund-desk", "-o", "csv").stdout_bytes.decode()
    rows = list(csv.DictReader(io.StringIO(said, newline="")))
    assert said.count("\r\n") >= len(rows) == 5
    assert {row["credentials"] for row in rows} >= {"database/shop-orders-read", ""}


def test_says_so_where_no_grant_names_an_agent(crib: Crib):
    crib.grant(grants.READ)
    said = run(crib, "explain", "--agent", "stranger")
    crib.grant(grants.READ + grants.REFUND + FORBID)
    assert (said.exit_code, said.stdout) == (0, "")
    assert "every call is refused" in said.stderr


def test_still_explains_one_call(crib: Crib):
    words = ("explain", "--agent", "refund-desk", "--tool", REFUND, "--arguments", SMALL)
    assert run(crib, *words).stdout == "allow, by refund-small, refund-large\n"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--agent", "a", "--tool", LOOKUP),
        ("--agent", "a", "--arguments", "{}"),
        ("--agent", "a", "--environment", "dev"),
    ],
)
def test_asks_what_is_meant(crib: Crib, words: tuple[str, ...]):
    assert run(crib, "explain", *words).exit_code == 2


def test_refuses_a_tool_that_is_not_there(crib: Crib):
    said = run(crib, "explain", "--tool", "shop.v1.Orders/Nothing")
    assert said.exit_code == 1 and "TOOL_UNKNOWN" in said.output


def test_lists_nothing_to_an_agent(crib: Crib):
    said = run(crib, "explain", "--agent", "refund-desk", name="refund-desk", role="agent")
    assert said.exit_code == 1 and "ROLE_REQUIRED" in said.output


def test_lists_no_young_grant_as_unused_and_says_so(crib: Crib):
    said = run(crib, "unused", "--days", "1")
    assert (said.exit_code, said.stdout) == (0, "")
    assert "added or changed in the last 1 d are not listed" in said.stderr
