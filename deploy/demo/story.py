"""The story of the refund desk: what the agent asks, and what each answer has to be.

Each scene makes calls and says what must hold; `Report.expect` counts what does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from deploy.demo.agent_process import AgentProcess, Identity, Outcome, open_agent, python_command
from deploy.demo.people import Operator, Reviewer, is_over, read_grant_files
from deploy.demo.report import Report
from toolcrib.v1 import broker_pb2

ORDER = "A-1042"
ENVIRONMENT = "dev"
# Where the note of order A-1042 asks to send the money; no grant and no registry knows it.
STRANGE_ACCOUNT = "iban:GB33BUKB20201555555555"
BASE_GRANTS = ("shop.cedar", "destinations.toml")
REFUND_GRANTS = (*BASE_GRANTS, "shop-refunds.cedar")


class Rows(Protocol):
    """Counts the rows that really are in the shop's database."""

    async def count(self, table: str) -> int:
        """Count a table's rows for order A-1042."""


@dataclass(frozen=True)
class Desk:
    """Everything that the scenes need.

    Attributes:
        rival: Another tenant's operator.
        run: Makes this run's idempotency keys its own.
        identity: Gives an agent's files for (name, tenant).
        generated: The agents' generated code.
    """

    run: str
    report: Report
    agent: AgentProcess
    reviewer: Reviewer
    operator: Operator
    rival: Operator
    rows: Rows
    address: str
    identity: Callable[[str, str], Identity]
    generated: Path

    async def call(
        self, title: str, name: str, request: Mapping[str, Any], key: str = ""
    ) -> tuple[Outcome, broker_pb2.Call | None]:
        """Let the agent call, read the record, and print both."""
        outcome = await self.agent.call(name, request, metadata=self.metadata(key))
        return outcome, await self.show(title, outcome)

    async def show(self, title: str, outcome: Outcome) -> broker_pb2.Call | None:
        """Print one call with its record; a replay has none of its own."""
        record = None
        if outcome.call_id and not outcome.is_replayed:
            record = await self.operator.read_call(outcome.call_id)
        self.report.call(title, outcome, record)
        return record

    def metadata(self, key: str) -> dict[str, str]:
        """Make a call's metadata."""
        named = {"toolcrib-idempotency-key": f"{key}-{self.run}"} if key else {}
        return {"toolcrib-environment": ENVIRONMENT, **named}


async def look_the_order_up(desk: Desk) -> None:
    """Scene 1: a read with a login of its own."""
    desk.report.heading("1. Look the order up (READ)")
    outcome, record = await desk.call(f"LookupOrder {ORDER}", "LookupOrder", {"orderId": ORDER})
    order = outcome.result.get("order", {})
    note = order.get("customer", {}).get("note", "")
    state = order.get("state", "?").removeprefix("ORDER_STATE_")
    desk.report.item("order", f"{state}, {_money(order.get('total', {}))}")
    desk.report.item("note", repr(note))
    expect = desk.report.expect
    expect("the order came back", outcome.code == "OK" and order.get("orderId") == ORDER)
    expect("the customer's note came as data, without hidden characters", bool(note) and _is_clean(note))
    _expect_ran(desk, record)


async def draft_a_refund(desk: Desk) -> None:
    """Scene 2: asked three times, done once."""
    desk.report.heading("2. Draft a refund, asked three times with one key (DRAFT)")
    before = await desk.rows.count("refund_drafts")
    request = {"orderId": ORDER, "amount": _euros(4000), "comment": "the kettle leaks"}
    asked = [
        await desk.call(f"CreateRefundDraft, time {n}", "CreateRefundDraft", request, "draft") for n in "123"
    ]
    outcomes = [outcome for outcome, _ in asked]
    _expect_ran(desk, asked[0][1])
    expect = desk.report.expect
    expect("three times the same answer", _is_same(outcomes))
    expect("two are marked as replayed", [o.is_replayed for o in outcomes] == [False, True, True])
    expect("one row in the database", await desk.rows.count("refund_drafts") == before + 1)

    other = {**request, "amount": _euros(4100)}
    refused, record = await desk.call("The same key, another amount", "CreateRefundDraft", other, "draft")
    _expect_refused(desk, refused, record, "FAILED_PRECONDITION", {"KEY_REUSED"})
    expect("still one row", await desk.rows.count("refund_drafts") == before + 1)


async def issue_a_refund(desk: Desk) -> None:
    """Scene 3: money moves only as far as a grant goes."""
    desk.report.heading("3. Issue the refund (WRITE)")
    before = await desk.rows.count("refunds")
    small = {"orderId": ORDER, "amount": _euros(4000)}
    refused, record = await desk.call("40.00 EUR, without a grant", "IssueRefund", small, "refund")
    _expect_refused(desk, refused, record, "PERMISSION_DENIED", {"NOT_GRANTED"})

    changes = await desk.reviewer.apply(read_grant_files(REFUND_GRANTS))
    desk.report.space()
    desk.report.say(f"A reviewer applies a grant up to 50.00 EUR: {_list_changes(changes)}")
    first, record = await desk.call("40.00 EUR, with the grant", "IssueRefund", small, "refund")
    _expect_ran(desk, record)
    again, _ = await desk.call("The same key again", "IssueRefund", small, "refund")
    desk.report.expect("the answer is replayed", _is_same([first, again]) and again.is_replayed)
    desk.report.expect("one refund in the database", await desk.rows.count("refunds") == before + 1)

    large = {"orderId": ORDER, "amount": _euros(8990)}
    await _expect_approval(desk, "89.90 EUR, above the grant", large, "large")
    strange = {**small, "payoutAccount": STRANGE_ACCOUNT}
    refused, record = await desk.call(
        "The account that the customer's note names", "IssueRefund", strange, "strange"
    )
    _expect_refused(desk, refused, record, "PERMISSION_DENIED", {"DESTINATION_UNTRUSTED"})
    desk.report.expect("still one refund", await desk.rows.count("refunds") == before + 1)


async def ask_badly(desk: Desk) -> None:
    """Scene 4: a broken request, and those who may not ask at all."""
    desk.report.heading("4. A broken request, an unknown agent, another tenant")
    broken = {"orderId": "nonsense", "amount": {"minorUnits": "-5", "currency": "euro"}, "comment": "x"}
    outcome, record = await desk.call("Everything wrong at once", "CreateRefundDraft", broken, "broken")
    _expect_refused(desk, outcome, record, "INVALID_ARGUMENT", {"REQUEST_INVALID"})
    fields = {violation["field"] for violation in outcome.violations}
    wanted = {"order_id", "amount.minor_units", "amount.currency", "comment"}
    desk.report.expect(f"all violations at once, by field: {', '.join(sorted(fields))}", wanted <= fields)

    stranger = desk.identity("stranger", "shop")
    await _ask_as(desk, "An agent that no grant names", stranger, {("PERMISSION_DENIED", "NOT_GRANTED")})
    rival = desk.identity("refund-desk", "rival")
    await _ask_as(
        desk, "An agent of that name in another tenant", rival, {("PERMISSION_DENIED", "NOT_GRANTED")}
    )
    desk.report.expect(
        "the other tenant's operator does not see our calls", not await desk.rival.sees_call(outcome.call_id)
    )
    nobody = replace(desk.identity("refund-desk", "shop"), cert_path=None, key_path=None)
    refusals = {("UNAVAILABLE", ""), ("UNAUTHENTICATED", "IDENTITY_UNKNOWN")}
    await _ask_as(desk, "Nobody: no certificate", nobody, refusals)


SCENES: Sequence[Callable[[Desk], Awaitable[None]]] = (
    look_the_order_up,
    draft_a_refund,
    issue_a_refund,
    ask_badly,
)


async def _expect_approval(desk: Desk, title: str, request: Mapping[str, Any], key: str) -> None:
    outcome, record = await desk.call(title, "IssueRefund", request, key)
    _expect_refused(desk, outcome, record, "FAILED_PRECONDITION", {"APPROVAL_REQUIRED"})


async def _ask_as(desk: Desk, title: str, identity: Identity, refusals: set[tuple[str, str]]) -> None:
    """Let another agent look the order up, in a process of its own, and expect a refusal."""
    async with open_agent(python_command(), desk.address, identity, desk.generated) as process:
        outcome = await process.call(
            "LookupOrder", {"orderId": ORDER}, metadata=desk.metadata(""), deadline_seconds=5
        )
    # Its record, where there is one, is not shown: it belongs to the tenant that it came from.
    desk.report.call(title, outcome, None)
    refused = (outcome.code, outcome.reason) in refusals
    desk.report.expect(f"refused: {outcome.code} {outcome.reason}".rstrip(), refused)
    desk.report.expect("it learned nothing of the order", not outcome.result)


def _expect_ran(desk: Desk, record: broker_pb2.Call | None) -> None:
    expect = desk.report.expect
    logins = record.leases if record else ()
    containers = record.sandboxes if record else ()
    expect("one login was minted for this call, and is confirmed dead", len(logins) == 1 and _over(record))
    expect("one container was made for this call, and is gone", len(containers) == 1 and _over(record))


def _expect_refused(
    desk: Desk, outcome: Outcome, record: broker_pb2.Call | None, code: str, reasons: set[str]
) -> None:
    expect = desk.report.expect
    expect(f"refused: {outcome.code} {outcome.reason}", outcome.code == code and outcome.reason in reasons)
    nothing_ran = record is not None and not record.leases and not record.sandboxes
    expect("nothing ran", nothing_ran)


def _over(record: broker_pb2.Call | None) -> bool:
    return record is not None and is_over(record)


def _is_same(outcomes: Sequence[Outcome]) -> bool:
    return all(o.code == "OK" and o.result == outcomes[0].result for o in outcomes)


def _is_clean(text: str) -> bool:
    """No control, bidirectional, zero-width or tag characters; line breaks and tabs are text."""
    return all(char.isprintable() or char in "\n\t" for char in text)


def _euros(minor_units: int) -> dict[str, str]:
    return {"minorUnits": str(minor_units), "currency": "EUR"}


def _money(amount: Mapping[str, str]) -> str:
    return f"{int(amount.get('minorUnits', 0)) / 100:.2f} {amount.get('currency', '?')}"


def _list_changes(changes: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{kind.lower()} {name}" for kind, name in changes) or "no change"
