"""A Python and a Node agent, each generated from the exported client view only, make real calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e import grants
from tests.e2e.agents.programs import KINDS, open_program
from tests.e2e.stack import Crib

pytestmark = [pytest.mark.engine, pytest.mark.openbao, pytest.mark.postgres]

ORDER = {"orderId": "A-1042"}
DRAFT: dict[str, Any] = {**ORDER, "amount": {"minorUnits": "4000", "currency": "EUR"}, "comment": "it leaks"}


@pytest.mark.parametrize("kind", KINDS)
async def test_agent_looks_an_order_up(kind: str, crib: Crib, tmp_path: Path) -> None:
    crib.grant(grants.READ)
    async with open_program(kind, crib, tmp_path) as agent:
        outcome = await agent.call("LookupOrder", ORDER)
    assert outcome.code == "OK", outcome
    assert outcome.result["order"]["orderId"] == "A-1042"
    assert outcome.result["order"]["total"] == {"minorUnits": "8990", "currency": "EUR"}


@pytest.mark.parametrize("kind", KINDS)
async def test_agent_sees_that_an_answer_is_replayed(kind: str, crib: Crib, tmp_path: Path) -> None:
    crib.grant(grants.DRAFT)
    key = {"toolcrib-idempotency-key": f"{kind}-{tmp_path.name}"}
    async with open_program(kind, crib, tmp_path) as agent:
        outcomes = [await agent.call("CreateRefundDraft", DRAFT, metadata=key) for _ in range(3)]
    assert [outcome.is_replayed for outcome in outcomes] == [False, True, True]
    assert outcomes[0].result == outcomes[1].result == outcomes[2].result
    assert outcomes[0].result["draftId"].startswith("D-")


@pytest.mark.parametrize("kind", KINDS)
async def test_agent_reads_why_it_was_refused(kind: str, crib: Crib, tmp_path: Path) -> None:
    async with open_program(kind, crib, tmp_path) as agent:
        outcome = await agent.call("LookupOrder", ORDER)
    assert (outcome.code, outcome.reason, outcome.domain) == ("PERMISSION_DENIED", "NOT_GRANTED", "toolcrib")


@pytest.mark.parametrize("kind", KINDS)
async def test_agent_reads_every_violation_by_field(kind: str, crib: Crib, tmp_path: Path) -> None:
    broken = {"orderId": "x", "amount": {"minorUnits": "-5", "currency": "euro"}, "comment": "x"}
    async with open_program(kind, crib, tmp_path) as agent:
        outcome = await agent.call("CreateRefundDraft", broken, metadata={"toolcrib-idempotency-key": "k"})
    assert outcome.reason == "REQUEST_INVALID"
    fields = {violation["field"] for violation in outcome.violations}
    assert fields == {"order_id", "amount.minor_units", "amount.currency", "comment"}


@pytest.mark.parametrize("kind", KINDS)
async def test_agent_imports_nothing_of_ours(kind: str, crib: Crib, tmp_path: Path) -> None:
    crib.grant(grants.READ)
    async with open_program(kind, crib, tmp_path) as agent:
        await agent.call("LookupOrder", ORDER)
        modules = (await agent.ask({"about": True}))["modules"]
    ours = {"toolcrib", "broker", "tools", "credentials", "sandboxes", "deploy", "buf"}
    assert not ours & {module.split("/")[0] for module in modules}


@pytest.mark.parametrize("folder", ["proto", "python"])
async def test_generated_code_names_no_option_of_ours(folder: str, crib: Crib, tmp_path: Path) -> None:
    async with open_program("python", crib, tmp_path):
        texts = [path.read_text() for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert texts
    assert not [text for text in texts if "toolcrib" in text or "buf/validate" in text]
