"""The door for orchestrators: who opens workflows for whom, and who sees what they hold."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from broker.model import Caller, Role
from tests.broker.office import ASSISTANT, COLLEAGUE, FRONT, Channel, Ended, Office, open_office
from tests.contracts.stores import read_events
from toolcrib.v1 import broker_pb2, workflows_pb2

OLGA = Caller("shop", "olga", Role.OPERATOR, "", "spiffe://x/tenant/shop/operator/olga")


@pytest.fixture
async def office() -> Office:
    return await open_office()


async def open_flow(office: Office, by: Caller = FRONT, **wanted: Any) -> workflows_pb2.OpenWorkflowResponse:
    office.caller = by
    request = workflows_pb2.OpenWorkflowRequest(**{"agent": "assistant", **wanted})
    opened = await office.flows.OpenWorkflow(request, Channel())
    office.caller = ASSISTANT
    return opened


async def get_flow(office: Office, by: Caller, **wanted: str) -> workflows_pb2.Workflow:
    office.caller = by
    request = workflows_pb2.GetWorkflowRequest(**wanted)
    return (await office.flows.GetWorkflow(request, Channel())).workflow


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ORCHESTRATOR])
async def test_lets_nobody_else_open_a_workflow(office: Office, role: Role):
    with pytest.raises(Ended, match="is for orchestrator"):
        await open_flow(office, replace(FRONT, role=role))


async def test_lets_an_orchestrator_call_no_tool(office: Office):
    office.caller = FRONT
    assert await office.reason("ReadNote", note_id="n1") == "ROLE_REQUIRED"


async def test_lets_an_orchestrator_read_no_call(office: Office):
    answer = await office.ask("ReadNote", note_id="n1")
    office.caller = FRONT
    with pytest.raises(Ended, match="PERMISSION_DENIED"):
        await office.get_call(answer.call_id)
    with pytest.raises(Ended, match="PERMISSION_DENIED"):
        await office.broker.ListCalls(broker_pb2.ListCallsRequest(), Channel())


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"agent": ""}, "agent"),
        ({"agent": "a/../b"}, "agent"),
        ({"environment": "mars"}, "environment"),
        ({"ttl_seconds": 86_401}, "ttl_seconds"),
        ({"description": "x" * 201}, "description"),
        ({"description": "a\u202eb"}, "description"),
    ],
)
async def test_names_what_is_wrong(office: Office, wanted: dict[str, Any], field: str):
    with pytest.raises(Ended, match=f"INVALID_ARGUMENT: .*{field}"):
        await open_flow(office, **wanted)
    assert not office.store.state.workflows


async def test_opens_no_more_than_the_tenants_limit(office: Office, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        office.workflows, "settings", office.workflows.settings.model_copy(update={"max_open": 2})
    )
    await open_flow(office)
    await open_flow(office)
    with pytest.raises(Ended, match="RESOURCE_EXHAUSTED"):
        await open_flow(office)


async def test_opens_no_more_at_once_either(office: Office, monkeypatch: pytest.MonkeyPatch):
    most = office.workflows.settings.model_copy(update={"max_open": 2})
    monkeypatch.setattr(office.workflows, "settings", most)
    office.caller = FRONT
    request = workflows_pb2.OpenWorkflowRequest(agent="assistant")
    tried = [office.flows.OpenWorkflow(request, Channel()) for _ in range(5)]
    came = await asyncio.gather(*tried, return_exceptions=True)
    assert sum(isinstance(one, Ended) for one in came) == 3


async def test_records_who_opened_what(office: Office):
    opened = await open_flow(office)
    (event,) = await read_events(office.store, "workflow.opened")
    assert event["actor"] == FRONT.identity
    assert event["details"]["workflow"] == opened.workflow_id
    assert opened.handle not in str(event)


@pytest.mark.parametrize("who", [ASSISTANT, OLGA, FRONT])
async def test_shows_what_a_workflow_holds(office: Office, who: Caller):
    opened = await open_flow(office, description="refund A-1042", ttl_seconds=600)
    answer = await office.ask("ReadNote", note_id="n1", handle=opened.handle)
    flow = await get_flow(office, who, workflow_id=opened.workflow_id)
    labels = [(label.label, label.call_id) for label in flow.labels]
    assert labels == [("tool:office.v1.Office/ReadNote@1.0.0", answer.call_id), ("untrusted", answer.call_id)]
    assert (flow.holds_untrusted, flow.description, flow.expires) == (True, "refund A-1042", opened.expires)


async def test_shows_what_an_agent_holds_itself(office: Office):
    await office.ask("ReadNote", note_id="n1")
    assert (await get_flow(office, ASSISTANT)).holds_untrusted
    assert (await get_flow(office, OLGA, agent="assistant")).holds_untrusted
    assert not (await get_flow(office, OLGA, agent="colleague")).holds_untrusted


async def test_shows_an_agent_no_workflow_of_another(office: Office):
    opened = await open_flow(office)
    for wanted in ({"workflow_id": opened.workflow_id}, {"agent": "assistant"}):
        with pytest.raises(Ended, match="no such workflow"):
            await get_flow(office, COLLEAGUE, **wanted)


async def test_shows_another_tenant_no_workflow(office: Office):
    opened = await open_flow(office)
    with pytest.raises(Ended, match="no such workflow"):
        await get_flow(office, replace(OLGA, tenant="rival"), workflow_id=opened.workflow_id)
