"""A token at its own door: the same path, grants and records as a certificate, and the token is nowhere."""

from __future__ import annotations

import contextlib
import logging
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e import grants
from tests.e2e.caller import Reply, ToolCaller, read_error
from tests.e2e.stack import Crib
from tests.e2e.tokens import TokenProfile
from tests.parts.issuer import LocalIssuer, Mint
from toolcrib.v1 import broker_pb2, broker_pb2_grpc, registry_pb2, registry_pb2_grpc

pytestmark = [pytest.mark.engine, pytest.mark.openbao, pytest.mark.postgres]

LOOKUP = "shop.v1.Orders/LookupOrder"
DRAFT = "shop.v1.Orders/CreateRefundDraft"
ORDER = {"orderId": "A-1042"}
REFUND: dict[str, Any] = {
    "orderId": "A-1042",
    "comment": "late",
    "amount": {"minorUnits": "4000", "currency": "EUR"},
}
ISSUED_FOR_MARIA = {"sub": "maria@x.org", "act": {"sub": "desk-1"}}


def call(crib: Crib, token: str, method: str = LOOKUP, arguments: Any = ORDER, **options: Any) -> Reply:
    with ToolCaller(TokenProfile(crib, token), crib.contracts) as caller:  # type: ignore[arg-type]
        return caller.call(method, arguments, **options)


def test_calls_a_tool_by_the_grant_of_the_agent_that_the_token_names(crib, token_issuer):
    assert call(crib, token_issuer.token()).reason == "NOT_GRANTED"
    crib.grant(grants.READ)
    assert call(crib, token_issuer.token()).code == "OK"
    assert call(crib, token_issuer.token(sub="desk-2")).reason == "NOT_GRANTED"


def test_records_agent_and_user_of_a_token(crib, token_issuer):
    crib.grant(grants.READ)
    reply = call(crib, token_issuer.token(**ISSUED_FOR_MARIA))
    record = crib.run(crib.stack.broker.store.get_call("shop", reply.call_id))
    assert record is not None
    assert (record.agent, record.subject) == ("refund-desk", "maria@x.org")


def test_replays_a_write_to_another_token_of_the_same_agent(crib, token_issuer):
    crib.grant(grants.READ + grants.DRAFT)
    key = uuid.uuid4().hex
    first, second = (call(crib, token_issuer.token(), DRAFT, REFUND, key=key) for _ in range(2))
    assert (first.code, second.code, first.replayed, second.replayed) == ("OK", "OK", False, True)


def test_takes_a_new_key_at_once(crib, token_issuer):
    crib.grant(grants.READ)
    token_issuer.mint.keys["k2"] = Mint(token_issuer.mint.issuer).keys["k1"]
    claims = token_issuer.mint.claims(crib.stack.broker._hooks.clock().timestamp())
    assert call(crib, token_issuer.mint.sign(claims, key="k2")).code == "OK"
    del token_issuer.mint.keys["k2"]


@pytest.mark.parametrize(
    "changes", [{"aud": "other"}, {"iss": "https://x.org"}, {"exp": 1}, {"sub": "De sk"}]
)
def test_refuses_a_bad_token_at_every_service(crib, token_issuer, changes):
    good, bad = token_issuer.token(), token_issuer.token(**changes)
    assert list_tools(crib, good).code == "OK"
    assert (list_tools(crib, bad).code, list_tools(crib, bad).reason) == ("UNAUTHENTICATED", "TOKEN_INVALID")
    assert call(crib, bad).reason == "TOKEN_INVALID"


def list_tools(crib: Crib, token: str) -> Reply:
    with TokenProfile(crib, token).connect() as channel:
        try:
            broker_pb2_grpc.BrokerStub(channel).ListTools(broker_pb2.ListToolsRequest())
        except grpc.RpcError as error:
            return read_error(error)
    return Reply("OK")


def test_lets_no_token_register_a_tool(crib, token_issuer):
    with TokenProfile(crib, token_issuer.token()).connect() as channel, pytest.raises(grpc.RpcError) as error:
        registry_pb2_grpc.RegistryStub(channel).RegisterTool(registry_pb2.RegisterToolRequest())
    assert read_error(error.value).reason == "ROLE_REQUIRED"


def test_refuses_a_caller_with_neither_token_nor_certificate(crib):
    root = grpc.ssl_channel_credentials((crib.stack.state_dir / "ca.pem").read_bytes())
    with grpc.secure_channel(crib.stack.broker.token_address, root) as channel:
        with pytest.raises(grpc.RpcError) as error:
            broker_pb2_grpc.BrokerStub(channel).ListTools(broker_pb2.ListToolsRequest())
    assert read_error(error.value).reason == "IDENTITY_UNKNOWN"


def test_does_not_open_the_door_for_certificates_to_those_who_have_none(crib, token_issuer):
    root = grpc.ssl_channel_credentials((crib.stack.state_dir / "ca.pem").read_bytes())
    with grpc.secure_channel(crib.stack.address, root) as channel, pytest.raises(grpc.RpcError) as error:
        metadata = (("authorization", f"Bearer {token_issuer.token()}"),)
        broker_pb2_grpc.BrokerStub(channel).ListTools(
            broker_pb2.ListToolsRequest(), metadata=metadata, timeout=5
        )
    assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_speaks_no_plain_text_at_the_door_for_tokens(crib):
    with grpc.insecure_channel(crib.stack.broker.token_address) as channel, pytest.raises(grpc.RpcError):
        broker_pb2_grpc.BrokerStub(channel).ListTools(broker_pb2.ListToolsRequest(), timeout=5)


def test_leaves_no_token_in_state_log_or_metrics(crib, token_issuer: LocalIssuer, caplog):
    caplog.set_level(logging.DEBUG)
    crib.grant(grants.READ + grants.DRAFT)
    good, bad = token_issuer.token(**ISSUED_FOR_MARIA), token_issuer.token(aud="other")
    key = uuid.uuid4().hex
    assert [call(crib, t, DRAFT, REFUND, key=key).code for t in (good, bad)] == ["OK", "UNAUTHENTICATED"]
    call_id = call(crib, good).call_id
    kept = read_all(crib.stack.state_dir) + caplog.text.encode() + read_metrics(crib)
    assert call_id.encode() in kept  # the search sees what is there
    assert f"oidc:{token_issuer.mint.issuer}#desk-1".encode() in kept
    for part in (*good.split(".")[1:], *bad.split(".")[1:]):
        assert part[:24].encode() not in kept


def read_all(folder: Path) -> bytes:
    """Read every file of the stack's: state, its log, run directory, engine's and servers' logs."""
    found = bytearray()
    for path in folder.rglob("*"):
        if path.is_file() and "cache" not in path.parts:
            with contextlib.suppress(OSError):
                found += path.read_bytes()
    return bytes(found)


def read_metrics(crib: Crib) -> bytes:
    from prometheus_client import generate_latest

    return bytes(generate_latest(crib.stack.broker.metrics.registry))
