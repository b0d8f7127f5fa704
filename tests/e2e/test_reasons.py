"""Every reason of the enum is produced here, by what a user would do to get it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import pytest

from broker.keys import read_key_file
from broker.store.backup import backup_store, restore_store
from broker.store.options import StoreOptions
from broker.store.records import StoreError
from tests.e2e import grants
from tests.e2e.caller import Reply, read_error
from tests.e2e.stack import MISCHIEF, SHOP, Crib
from tests.e2e.tokens import TokenProfile
from tests.e2e.waiting import wait_for_container
from tests.parts.crib import DOWN, Switchboard
from tests.parts.issuer import Mint
from toolcrib.v1 import (
    broker_pb2,
    broker_pb2_grpc,
    grants_pb2,
    grants_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    reasons_pb2,
    registry_pb2,
    registry_pb2_grpc,
    workflows_pb2,
    workflows_pb2_grpc,
)
from tools.source import compile_bundle

LOOKUP = "shop.v1.Orders/LookupOrder"
DRAFT = "shop.v1.Orders/CreateRefundDraft"
REFUND = "shop.v1.Orders/IssueRefund"
READ = "mischief.v1.Mischief/Read"
WRITE = "mischief.v1.Mischief/Write"
ORDER = {"order_id": "A-1042"}
EURO = {"minor_units": 1000, "currency": "EUR"}

Producer = Callable[[Crib, Switchboard], Reply]
PRODUCERS: dict[str, Producer] = {}


def produces(reason: str) -> Callable[[Producer], Producer]:
    def note(producer: Producer) -> Producer:
        PRODUCERS[reason] = producer
        return producer

    return note


def new_key() -> str:
    return uuid.uuid4().hex


def call(crib: Crib, method: str, arguments: Any, *, agent: str = "refund-desk", **options: Any) -> Reply:
    with crib.caller(agent, tenant=options.pop("tenant", "shop")) as caller:
        return caller.call(method, arguments, **options)


def ask(profile: Any, use: Callable[[grpc.Channel], Any]) -> Reply:
    """Use one of the broker's own services and read what it refuses with."""
    with profile.connect() as channel:
        try:
            return Reply("OK", result={"response": use(channel)})
        except grpc.RpcError as error:
            return read_error(error)


@produces("RECORD_UNAVAILABLE")
def disk_full(crib: Crib, switchboard: Switchboard) -> Reply:
    crib.grant(grants.READ)
    switchboard.failures["reserve"] = StoreError("disk full")
    return call(crib, LOOKUP, ORDER)


@produces("DRAINING")
def draining(crib: Crib, _: Switchboard) -> Reply:
    crib.stack.broker.path.draining = True
    try:
        return call(crib, LOOKUP, ORDER)
    finally:
        crib.stack.broker.path.draining = False


@produces("STALE_EPOCH")
def taken_over(crib: Crib, _: Switchboard) -> Reply:
    """Only its answer: test_resolution.py takes a broker over for real."""
    crib.stack.broker.path.retired = True
    try:
        return call(crib, LOOKUP, ORDER)
    finally:
        crib.stack.broker.path.retired = False


@produces("STATE_RESTORED")
def restored(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    restore_backup(crib, grace_seconds=2)
    reply = call(crib, WRITE, {"how": "fine"}, key=new_key())
    while call(crib, WRITE, {"how": "fine"}, key=new_key()).reason == "STATE_RESTORED":
        time.sleep(0.2)
    return reply


@produces("TOO_MANY_CALLS")
def too_many(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF, tenant="tight")
    with crib.caller(tenant="tight") as caller:
        slow = caller.start(READ, {"how": "sleep", "seconds": 2})
        wait_for_container(crib, "tight")
        reply = caller.call(READ, {"how": "fine"})
        caller.finish(READ, slow)
    assert reply.retry_after_seconds
    return reply


@produces("REQUEST_TOO_LARGE")
def too_large(crib: Crib, _: Switchboard) -> Reply:
    return call(crib, LOOKUP, {"order_id": "A" * 300}, tenant="tight")


@produces("IDENTITY_UNKNOWN")
def foreign_tenant(crib: Crib, _: Switchboard) -> Reply:
    return call(crib, LOOKUP, ORDER, tenant="stranger")


@produces("CERTIFICATE_EXPIRED")
def ran_out(crib: Crib, switchboard: Switchboard) -> Reply:
    with crib.caller() as caller:
        caller.call(LOOKUP, ORDER)
        switchboard.offset = timedelta(days=30)
        return caller.call(LOOKUP, ORDER)


@produces("ROLE_REQUIRED")
def agent_plans_grants(crib: Crib, _: Switchboard) -> Reply:
    request = grants_pb2.PlanGrantsRequest()
    return ask(crib.profile("refund-desk"), lambda c: grants_pb2_grpc.GrantsStub(c).PlanGrants(request))


@produces("REQUEST_MALFORMED")
def no_message(crib: Crib, _: Switchboard) -> Reply:
    return call(crib, LOOKUP, b"\xff\xff\xff\xff")


@produces("REQUEST_INVALID")
def broken_rules(crib: Crib, _: Switchboard) -> Reply:
    return call(crib, LOOKUP, {"order_id": "no order"})


@produces("NEEDS_NEWER_VERSION")
def newer_field(crib: Crib, _: Switchboard) -> Reply:
    register_newer(crib)
    return call(crib, LOOKUP, crib.caller().encode(LOOKUP, ORDER) + b"\xa2\x06\x01x")


@produces("METADATA_INVALID")
def long_key(crib: Crib, _: Switchboard) -> Reply:
    return call(crib, LOOKUP, ORDER, key="k" * 10_000)


@produces("KEY_REQUIRED")
def no_key(crib: Crib, _: Switchboard) -> Reply:
    return call(crib, DRAFT, {**ORDER, "amount": EURO, "comment": "late"})


@produces("TOOL_UNKNOWN")
def no_tool(crib: Crib, _: Switchboard) -> Reply:
    with crib.caller() as caller:
        send = caller.channel.unary_unary("/shop.v1.Orders/Nothing")
        try:
            send(b"")
        except grpc.RpcError as error:
            return read_error(error)
    raise AssertionError("the call was answered")


@produces("TOOL_NOT_USABLE")
def not_reviewed(crib: Crib, _: Switchboard) -> Reply:
    source = compile_bundle(MISCHIEF)
    text = source.manifest_yaml.replace("version: 1.0.0", "version: 1.5.0")
    register(crib, source.descriptor_set, text)
    return call(crib, READ, {"how": "fine"}, version="1.5.0")


@produces("ENVIRONMENT_UNKNOWN")
def no_environment(crib: Crib, _: Switchboard) -> Reply:
    return call(crib, LOOKUP, ORDER, environment="mars")


@produces("KEY_REUSED")
def other_amount(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    key = new_key()
    assert call(crib, WRITE, {"how": "fine"}, key=key).code == "OK"
    return call(crib, WRITE, {"how": "fine", "mark": 0}, key=key)


@produces("KEY_EXPIRED")
def old_key(crib: Crib, switchboard: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    key = new_key()
    profile = crib.stack.profile("refund-desk", ttl_seconds=5 * 86_400)
    assert call(crib, WRITE, {"how": "fine"}, key=key).code == "OK"
    switchboard.offset = timedelta(days=1, hours=1)
    from tests.e2e.caller import ToolCaller

    with ToolCaller(profile, crib.contracts) as caller:
        return caller.call(WRITE, {"how": "fine"}, key=key)


@produces("IN_PROGRESS")
def still_running(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    key = new_key()
    with crib.caller() as caller:
        first = caller.start(WRITE, {"how": "sleep_first", "seconds": 3}, key=key)
        wait_for_container(crib)
        reply = caller.call(WRITE, {"how": "sleep_first", "seconds": 3}, key=key, timeout=1)
        assert caller.finish(WRITE, first).code == "OK"
    return reply


@produces("IN_DOUBT")
def crashed_write(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    return call(crib, WRITE, {"how": "crash_after"}, key=new_key())


@produces("NOT_GRANTED")
def no_grant(crib: Crib, _: Switchboard) -> Reply:
    return call(crib, LOOKUP, ORDER)


@produces("POLICY_FAILED")
def failing_forbid(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.FAILING)
    return call(crib, READ, {"how": "fine", "seconds": 3})


@produces("APPROVAL_REQUIRED")
def large_refund(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.REFUND)
    return call(crib, REFUND, {**ORDER, "amount": {"minor_units": 5001, "currency": "EUR"}}, key=new_key())


@produces("DESTINATION_UNTRUSTED")
def account_of_a_stranger(crib: Crib, _: Switchboard) -> Reply:
    """The order's note is a customer's; whatever account comes after it has to be known."""
    crib.grant(grants.READ + grants.REFUND)
    call(crib, LOOKUP, ORDER)
    return call(crib, REFUND, {**ORDER, "amount": EURO, "payout_account": "iban:DE00EVIL"}, key=new_key())


@produces("WORKFLOW_INVALID")
def handle_of_another_agent(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.READ)
    with crib.profile("front-office", "orchestrator").connect() as channel:
        stub = workflows_pb2_grpc.WorkflowsStub(channel)
        handle = stub.OpenWorkflow(workflows_pb2.OpenWorkflowRequest(agent="somebody-else")).handle
    return call(crib, LOOKUP, ORDER, workflow=handle)


@produces("BUDGET_EXHAUSTED")
def second_call(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.one_call_an_hour())
    call(crib, READ, {"how": "fine"})
    return call(crib, READ, {"how": "fine"})


@produces("CREDENTIALS_UNAVAILABLE")
def sealed(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.READ)
    crib.stack.vault.seal()
    try:
        return call(crib, LOOKUP, ORDER)
    finally:
        crib.stack.vault.unseal()


@produces("SANDBOX_UNAVAILABLE")
def no_image(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    source = compile_bundle(MISCHIEF)
    text = source.manifest_yaml.replace("version: 1.0.0", "version: 1.6.0")
    version = register(crib, source.descriptor_set, text).result["response"].version
    review(crib, version, "rob")
    return call(crib, READ, {"how": "fine"}, version="1.6.0")


@produces("DEADLINE_EXCEEDED")
def slow_read(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    return call(crib, READ, {"how": "sleep", "seconds": 30})


@produces("TOOL_FAILED")
def definite_failure(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    return call(crib, READ, {"how": "fail"})


@produces("TOOL_CRASHED")
def crashed_read(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    return call(crib, READ, {"how": "crash"})


@produces("OUTPUT_TOO_LARGE")
def flood(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    return call(crib, READ, {"how": "flood"})


@produces("RESULT_INVALID")
def too_long(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    return call(crib, READ, {"how": "too_long"})


@produces("SECRET_IN_RESULT")
def leaking(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    for how in ("secret", "secret_base64", "secret_hex"):
        assert call(crib, READ, {"how": how}).result["text"] == "[redacted]"
    return call(crib, READ, {"how": "secret_needed"})


@produces("BUNDLE_INVALID")
def forbidden_field(crib: Crib, _: Switchboard) -> Reply:
    source = compile_bundle(MISCHIEF)
    return register(crib, source.descriptor_set, source.manifest_yaml + "mounts: [/etc]\n")


@produces("VERSION_EXISTS")
def changed_version(crib: Crib, _: Switchboard) -> Reply:
    source = compile_bundle(SHOP)
    return register(crib, source.descriptor_set, source.manifest_yaml + "# changed\n")


@produces("BREAKING_CHANGE")
def removed_field(crib: Crib, _: Switchboard) -> Reply:
    from google.protobuf import descriptor_pb2

    source = compile_bundle(SHOP)
    files = descriptor_pb2.FileDescriptorSet.FromString(source.descriptor_set)
    for file in files.file:
        for message in file.message_type:
            if message.name == "CreateRefundDraftRequest":
                del message.field[2]
    text = source.manifest_yaml.replace("version: 1.0.0", "version: 3.0.0")
    return register(crib, files.SerializeToString(), text)


@produces("SELF_REVIEW")
def own_review(crib: Crib, _: Switchboard) -> Reply:
    source = compile_bundle(MISCHIEF)
    text = source.manifest_yaml.replace("version: 1.0.0", "version: 1.7.0")
    version = register(crib, source.descriptor_set, text, role="reviewer").result["response"].version
    return review(crib, version, "ada")


@produces("GRANTS_INVALID")
def typo_in_grant(crib: Crib, _: Switchboard) -> Reply:
    files = [grants_pb2.GrantFile(name="a.cedar", text=grants.READ.replace("LookupOrder", "LookupOrdre"))]
    request = grants_pb2.PlanGrantsRequest(files=files)
    profile = crib.profile("rob", "reviewer")
    return ask(profile, lambda c: grants_pb2_grpc.GrantsStub(c).PlanGrants(request))


@produces("PLAN_STALE")
def stale_plan(crib: Crib, _: Switchboard) -> Reply:
    files = [grants_pb2.GrantFile(name="a.cedar", text=grants.READ)]
    request = grants_pb2.ApplyGrantsRequest(files=files, base_digest="0" * 64)
    profile = crib.profile("rob", "reviewer")
    return ask(profile, lambda c: grants_pb2_grpc.GrantsStub(c).ApplyGrants(request))


@contextmanager
def brake(crib: Crib, kind: operations_pb2.BrakeKind, value: str) -> Iterator[None]:
    """Hold something back for a while."""
    with crib.profile("olga", "operator").connect() as channel:
        stub = operations_pb2_grpc.OperationsStub(channel)
        request = operations_pb2.SetBrakeRequest(kind=kind, value=value, reason="drill")
        brake_id = stub.SetBrake(request).brake.id
        try:
            yield
        finally:
            stub.LiftBrake(operations_pb2.LiftBrakeRequest(id=brake_id, reason="over"))


@produces("CALLER_BLOCKED")
def blocked(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    with brake(crib, operations_pb2.BRAKE_KIND_AGENT, "refund-desk"):
        return call(crib, READ, {"how": "fine"})


@produces("BRAKE_SET")
def held_back(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    with brake(crib, operations_pb2.BRAKE_KIND_TOOL, READ):
        return call(crib, READ, {"how": "fine"})


@produces("CALL_STOPPED")
def stopped(crib: Crib, _: Switchboard) -> Reply:
    crib.grant(grants.MISCHIEF)
    with crib.caller() as caller:
        slow = caller.start(READ, {"how": "sleep", "seconds": 2})
        wait_for_container(crib)
        with brake(crib, operations_pb2.BRAKE_KIND_TOOL, READ):
            return caller.finish(READ, slow)


@produces("BRAKE_UNKNOWN")
def no_brake(crib: Crib, _: Switchboard) -> Reply:
    request = operations_pb2.LiftBrakeRequest(id="b0000", reason="over")
    profile = crib.profile("olga", "operator")
    return ask(profile, lambda c: operations_pb2_grpc.OperationsStub(c).LiftBrake(request))


@produces("CALL_UNKNOWN")
def no_call(crib: Crib, _: Switchboard) -> Reply:
    request = broker_pb2.GetCallRequest(call_id="c0000")
    return ask(crib.profile("refund-desk"), lambda c: broker_pb2_grpc.BrokerStub(c).GetCall(request))


@produces("TOKEN_INVALID")
def token_beside_a_certificate(crib: Crib, _: Switchboard) -> Reply:
    request, token = broker_pb2.ListToolsRequest(), (("authorization", "Bearer x"),)
    return ask(
        crib.profile("refund-desk"),
        lambda c: broker_pb2_grpc.BrokerStub(c).ListTools(request, metadata=token),
    )


@produces("TOKEN_KEYS_UNAVAILABLE")
def issuer_is_down(crib: Crib, _: Switchboard) -> Reply:
    mint = Mint(DOWN)
    profile = TokenProfile(crib, mint.sign(mint.claims(time.time())))
    reply = ask(profile, lambda c: broker_pb2_grpc.BrokerStub(c).ListTools(broker_pb2.ListToolsRequest()))
    assert reply.retry_after_seconds == 5
    return reply


@produces("PAGE_TOKEN_INVALID")
def foreign_token(crib: Crib, _: Switchboard) -> Reply:
    request = broker_pb2.ListCallsRequest(page_token="somewhere")
    return ask(crib.profile("refund-desk"), lambda c: broker_pb2_grpc.BrokerStub(c).ListCalls(request))


def restore_backup(crib: Crib, grace_seconds: float) -> None:
    """Back the state up, put the backup in its place, and start again on it."""
    state, settings = crib.stack.state_dir, crib.stack.settings.state
    backup = state / f"{new_key()}.backup"
    keys = read_key_file(settings.key_file)
    options = StoreOptions(keys.audit_key, keys.audit_key_id)
    crib.run(backup_store(settings.path, backup))
    crib.run(crib.stack.broker.__aexit__(None, None, None))
    crib.run(restore_store(backup, settings.path, options, grace_seconds=grace_seconds))
    crib.run(crib.stack._start_broker(crib.stack._hooks))
    crib.rest()


def register(crib: Crib, descriptor_set: bytes, manifest: str, role: str = "author") -> Reply:
    request = registry_pb2.RegisterToolRequest(
        descriptor_set=descriptor_set, manifest_yaml=manifest, image_id="sha256:" + "0" * 64
    )
    profile = crib.profile("ada", role)
    return ask(profile, lambda c: registry_pb2_grpc.RegistryStub(c).RegisterTool(request))


def review(crib: Crib, version: registry_pb2.Version, reviewer: str) -> Reply:
    request = registry_pb2.ReviewVersionRequest(
        bundle=version.bundle, version=version.version, digest=version.digest, accept=True
    )
    profile = crib.profile(reviewer, "reviewer")
    return ask(profile, lambda c: registry_pb2_grpc.RegistryStub(c).ReviewVersion(request))


def register_newer(crib: Crib) -> None:
    """Register and review shop 1.1.0, whose LookupOrderRequest knows field 100."""
    from google.protobuf import descriptor_pb2

    source = compile_bundle(SHOP)
    files = descriptor_pb2.FileDescriptorSet.FromString(source.descriptor_set)
    for file in files.file:
        for message in file.message_type:
            if message.name == "LookupOrderRequest":
                field = message.field.add(name="hint", number=100, type=9, label=1, json_name="hint")
                field.options.CopyFrom(descriptor_pb2.FieldOptions())
    text = source.manifest_yaml.replace("version: 1.0.0", "version: 1.1.0")
    version = register(crib, files.SerializeToString(), text).result["response"].version
    review(crib, version, "rob")


NAMES = [name.removeprefix("REASON_") for name, _ in reasons_pb2.Reason.items()]


@pytest.mark.parametrize("reason", [name for name in NAMES if name != "UNSPECIFIED"])
def test_produces(crib: Crib, switchboard: Switchboard, reason: str):
    reply = PRODUCERS[reason](crib, switchboard)
    assert reply.reason == reason, reply
    assert reply.message
    assert replace(reply, code="OK") != reply
