"""The access rule is an option on each rpc; without one nothing starts."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from broker.api.door import AccessRuleMissing, access_rules
from broker.model import Role
from broker.server import SERVICES


def test_every_rpc_of_the_broker_has_a_rule():
    rules = access_rules(SERVICES)
    assert len(rules) == sum(len(service.methods) for service in SERVICES)


def test_agents_may_not_change_grants_or_versions():
    rules = access_rules(SERVICES)
    closed = {path for path, roles in rules.items() if Role.AGENT not in roles}
    assert {f"/toolcrib.v1.Grants/{name}" for name in ("PlanGrants", "ApplyGrants")} <= closed
    assert {
        f"/toolcrib.v1.Registry/{name}" for name in ("RegisterTool", "ReviewVersion", "MoveAlias")
    } <= closed


def test_refuses_to_start_with_an_rpc_that_has_no_rule():
    file = descriptor_pb2.FileDescriptorProto(name="open.proto", package="open", syntax="proto3")
    file.message_type.add(name="Empty")
    file.service.add(name="Open").method.add(name="Do", input_type=".open.Empty", output_type=".open.Empty")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    with pytest.raises(AccessRuleMissing, match="open.Open/Do"):
        access_rules([pool.FindServiceByName("open.Open")])
