"""Callers who send what no honest client would: each gets a clear refusal, and nobody else's data."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from broker.client import Profile
from tests.e2e import grants
from tests.e2e.caller import Reply, ToolCaller
from tests.e2e.stack import SHOP, Crib
from tests.e2e.test_reasons import LOOKUP, ORDER, READ, WRITE, ask, register
from tests.parts.crib import Switchboard
from toolcrib.v1 import (
    broker_pb2,
    broker_pb2_grpc,
    grants_pb2,
    grants_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from tools.source import compile_bundle

# An enum of proto3 is open: any number may come.
BEYOND: Any = 99
NASTY = ["", "\0", '"', "x" * 100_000, "é\n\u202e", "a/b/c", "../..", "%s{}", "-1", "1" * 5000]
ROLES = {"Broker": "agent", "Registry": "reviewer", "Grants": "reviewer"}
STUBS: dict[str, Any] = {
    "Broker": broker_pb2_grpc.BrokerStub,
    "Registry": registry_pb2_grpc.RegistryStub,
    "Grants": grants_pb2_grpc.GrantsStub,
}
REQUESTS: dict[str, Callable[[str], Any]] = {
    "Broker/ListTools": lambda text: broker_pb2.ListToolsRequest(page_token=text),
    "Broker/DescribeTool": lambda text: broker_pb2.DescribeToolRequest(name=text, version=text),
    "Broker/GetCall": lambda text: broker_pb2.GetCallRequest(call_id=text),
    "Broker/GetArtefact": lambda text: broker_pb2.GetArtefactRequest(call_id=text, name=text, offset=-1),
    "Broker/ListCalls": lambda text: broker_pb2.ListCallsRequest(tool=text, page_token=text, state=BEYOND),
    "Broker/Invoke": lambda text: broker_pb2.InvokeRequest(tool=text, arguments_json=text, environment=text),
    "Registry/RegisterTool": lambda text: registry_pb2.RegisterToolRequest(
        descriptor_set=text.encode(), manifest_yaml=text, image_id=text
    ),
    "Registry/ReviewVersion": lambda text: registry_pb2.ReviewVersionRequest(bundle=text, digest=text),
    "Registry/ListVersions": lambda text: registry_pb2.ListVersionsRequest(bundle=text, page_token=text),
    "Registry/MoveAlias": lambda text: registry_pb2.MoveAliasRequest(
        bundle="shop", version="1.0.0", alias=text
    ),
    "Grants/PlanGrants": lambda text: grants_pb2.PlanGrantsRequest(
        files=[grants_pb2.GrantFile(name=text, text=text)]
    ),
    "Grants/ApplyGrants": lambda text: grants_pb2.ApplyGrantsRequest(
        files=[grants_pb2.GrantFile(name="a.cedar", text=text or "?")], base_digest=text
    ),
    "Grants/ListGrants": lambda text: grants_pb2.ListGrantsRequest(page_token=text),
    "Grants/ExplainGrants": lambda text: grants_pb2.ExplainGrantsRequest(
        agent=text, tool=LOOKUP, environment=text, subject=text, arguments_json='{"orderId": "A-1042"}'
    ),
}


@pytest.mark.parametrize("rpc", REQUESTS)
def test_is_no_fault_of_the_broker_whatever_is_sent(crib: Crib, rpc: str):
    crib.grant(grants.READ)
    service, _, method = rpc.partition("/")
    with crib.profile("eve", ROLES[service]).connect() as channel:
        call = getattr(STUBS[service](channel), method)
        for text in NASTY:
            assert code_of(call, REQUESTS[rpc](text)) not in ("INTERNAL", "UNKNOWN"), text[:20]


def code_of(call: Callable[[Any], Any], request: Any) -> str:
    try:
        call(request)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


@pytest.mark.parametrize("path", ["/", "//", "/toolcrib.v1.Broker/Nothing", "/a", "/é/ü", "/x/" + "y" * 5000])
def test_answers_a_path_that_names_no_tool(crib: Crib, path: str):
    with crib.profile("refund-desk").connect() as channel:
        assert code_of(channel.unary_unary(path), b"") == "NOT_FOUND"


def test_refuses_a_huge_name_before_it_is_written_down(crib: Crib):
    request = broker_pb2.InvokeRequest(tool="x" * 1_000_000, arguments_json="{}")
    reply = invoke(crib.profile("refund-desk"), request)
    assert reply.reason == "REQUEST_TOO_LARGE"


def invoke(profile: Profile, request: broker_pb2.InvokeRequest) -> Reply:
    return ask(profile, lambda channel: broker_pb2_grpc.BrokerStub(channel).Invoke(request))


def test_shows_agents_no_minted_user_name(crib: Crib):
    crib.grant(grants.READ)
    with crib.caller() as agent:
        call_id = agent.call(LOOKUP, ORDER).call_id
    shown = get_call(crib.profile("refund-desk"), call_id).call
    listed = list_calls(crib.profile("refund-desk"))
    assert [lease.username for lease in shown.leases] == [""]
    assert not [lease for call in listed for lease in call.leases if lease.username]


def get_call(profile: Profile, call_id: str) -> broker_pb2.GetCallResponse:
    with profile.connect() as channel:
        return broker_pb2_grpc.BrokerStub(channel).GetCall(broker_pb2.GetCallRequest(call_id=call_id))


def list_calls(profile: Profile) -> list[broker_pb2.Call]:
    with profile.connect() as channel:
        return list(broker_pb2_grpc.BrokerStub(channel).ListCalls(broker_pb2.ListCallsRequest()).calls)


def test_shows_one_subjects_calls_to_no_other(crib: Crib):
    crib.grant(grants.MISCHIEF)
    maria, mallory = (crib.stack.profile("refund-desk", subject=name) for name in ("maria", "mallory"))
    key = uuid.uuid4().hex
    with ToolCaller(maria, crib.contracts) as caller:
        mine = caller.call(WRITE, {"how": "fine"}, key=key)
    with ToolCaller(mallory, crib.contracts) as caller:
        theirs = caller.call(WRITE, {"how": "fine"}, key=key)
    assert (mine.code, theirs.reason) == ("OK", "KEY_REUSED")
    asked = ask(mallory, lambda c: broker_pb2_grpc.BrokerStub(c).GetCall(get_request(mine)))
    assert asked.reason == "CALL_UNKNOWN"
    assert mine.call_id not in [call.call_id for call in list_calls(mallory)]
    assert mine.call_id in [call.call_id for call in list_calls(maria)]


def get_request(reply: Reply) -> broker_pb2.GetCallRequest:
    return broker_pb2.GetCallRequest(call_id=reply.call_id)


def test_lets_nobody_review_their_own_version_on_behalf_of_somebody(crib: Crib):
    source = compile_bundle(SHOP)
    text = source.manifest_yaml.replace("version: 1.0.0", "version: 1.8.0")
    version = register(crib, source.descriptor_set, text, role="reviewer").result["response"].version
    request = registry_pb2.ReviewVersionRequest(
        bundle=version.bundle, version=version.version, digest=version.digest, accept=True
    )
    disguised = crib.stack.profile("ada", "reviewer", subject="somebody-else")
    reply = ask(disguised, lambda c: registry_pb2_grpc.RegistryStub(c).ReviewVersion(request))
    assert reply.reason == "SELF_REVIEW"


def test_counts_a_client_that_hung_up_as_no_success(crib: Crib, switchboard: Switchboard):
    crib.grant(grants.MISCHIEF)
    before = outcomes(crib)
    with crib.caller() as agent:
        agent.start(READ, {"how": "sleep", "seconds": 2}, timeout=0.7).exception()
    now = outcomes(crib)
    assert now.get("SUCCEEDED", 0) == before.get("SUCCEEDED", 0)


def outcomes(crib: Crib) -> dict[str, float]:
    samples = [s for metric in crib.stack.broker.metrics.calls.collect() for s in metric.samples]
    found = [s for s in samples if s.labels.get("tool") == READ and s.name.endswith("_total")]
    return {sample.labels["outcome"]: sample.value for sample in found}
