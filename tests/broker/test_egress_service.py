"""The door for those who ask what a tool may reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.api.door import Door, access_rules
from broker.api.egress_service import SERVICE, EgressService
from broker.catalogue import Catalogue
from broker.metrics import Metrics
from broker.model import Caller, Role
from broker.settings import Tenant
from sandboxes.proxy.access import HttpTarget
from tests.broker.bench import now
from tests.broker.office import ASSISTANT, Channel, Ended, Office, open_office, register
from tests.broker.workshop import MoodyStore
from toolcrib.v1 import egress_pb2
from tools.source import compile_bundle

ADA = Caller("shop", "ada", Role.AUTHOR, "", "spiffe://x/tenant/shop/author/ada")
TOOL = "office.v1.Office/ReadNote"
WEB = Path(__file__).parents[2] / "tools" / "bundles" / "web"
PAGE: dict[str, Any] = {"tool": "web.v1.Web/FetchPage", "url": "http://pages.example/a"}
TARGETS = {"web-pages": HttpTarget("web-pages", "10.0.0.1", 80, ("http://pages.example",))}
ALL = Tenant(targets=("*",), vault_roles=("*",))


@pytest.fixture
async def office() -> Office:
    office = await open_office()
    office.caller = ADA
    return office


async def explain(
    office: Office, catalogue: Catalogue | None = None, tenant: Tenant = ALL, **asked: Any
) -> egress_pb2.ExplainEgressResponse:
    authenticate: Any = office
    door = Door(authenticate, access_rules([SERVICE]), Metrics())
    tenants = {"shop": tenant}
    service = EgressService(door, catalogue or office.catalogue, office.grants, TARGETS, tenants, now)
    wanted = {"tool": TOOL, "url": "https://api.example/a", **asked}
    return await service.ExplainEgress(egress_pb2.ExplainEgressRequest(**wanted), Channel())


async def test_says_that_a_tool_has_no_way_out(office: Office) -> None:
    found = await explain(office)

    assert (found.allowed, found.check) == (False, "TARGET")
    assert found.why == f"the manifest gives {TOOL} no target of kind http"


async def test_says_what_the_operator_does_not_let_a_tenant_use(office: Office) -> None:
    catalogue = await register(MoodyStore(), compile_bundle(WEB))

    found = await explain(office, catalogue, **PAGE)
    assert (found.allowed, found.check, found.target) == (True, "ALLOWED", "web-pages")

    found = await explain(office, catalogue, Tenant(targets=("orders-*",), vault_roles=("*",)), **PAGE)
    assert (found.allowed, found.check, found.target) == (False, "TARGET", "web-pages")
    assert 'does not let tenant "shop" use target "web-pages"; see tenants.shop.targets' in found.why


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
