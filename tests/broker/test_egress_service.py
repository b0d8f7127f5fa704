"""The door for those who ask what a tool may reach."""

from __future__ import annotations

from typing import Any

import pytest

from broker.api.door import Door, access_rules
from broker.api.egress_service import SERVICE, EgressService
from broker.metrics import Metrics
from broker.model import Caller, Role
from tests.broker.bench import now
from tests.broker.office import ASSISTANT, Channel, Ended, Office, open_office
from toolcrib.v1 import egress_pb2

ADA = Caller("shop", "ada", Role.AUTHOR, "", "spiffe://x/tenant/shop/author/ada")
TOOL = "office.v1.Office/ReadNote"


@pytest.fixture
async def office() -> Office:
    office = await open_office()
    office.caller = ADA
    return office


async def explain(office: Office, **asked: Any) -> egress_pb2.ExplainEgressResponse:
    authenticate: Any = office
    door = Door(authenticate, access_rules([SERVICE]), Metrics())
    service = EgressService(door, office.catalogue, office.grants, {}, now)
    wanted = {"tool": TOOL, "url": "https://api.example/a", **asked}
    return await service.ExplainEgress(egress_pb2.ExplainEgressRequest(**wanted), Channel())


async def test_says_that_a_tool_has_no_way_out(office: Office) -> None:
    found = await explain(office)

    assert (found.allowed, found.check) == (False, "TARGET")
    assert found.why == f"the manifest gives {TOOL} no target of kind http"


async def test_answers_no_agent(office: Office) -> None:
    office.caller = ASSISTANT
    with pytest.raises(Ended, match="PERMISSION_DENIED"):
        await explain(office)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"tool": "office.v1.Office/Nothing"}, "no tool"), ({"version": "9.9.9"}, "no version"),
        ({"method": "get"}, "capital letters"), ({"headers": {"x a": "1"}}, "no header"),
        ({"headers": {"x-a": "1\r\nhost: b"}}, "no header"), ({"agent": "bot", "environment": "mars"}, "dev"),
    ],
)  # fmt: skip
async def test_refuses_what_nobody_could_ask(office: Office, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(Ended, match=said):
        await explain(office, **asked)
