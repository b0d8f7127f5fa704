"""What a security team asks about grants, answered from the store of a broker that works."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.api.grant_review import GrantReview
from broker.errors import Refused
from broker.model import Caller, Role
from broker.policy.files import digest_files
from broker.store.records import AuditEvent, GrantFiles
from tests.broker.policy.conftest import write_forbid
from tests.broker.workshop import GRANTS, LOOKUP, Workshop
from toolcrib.v1 import grants_pb2

ROB = Caller("shop", "rob", Role.REVIEWER, "", "spiffe://x/tenant/shop/reviewer/rob")
DAY = timedelta(days=1)


class Desk:
    """A reviewer's questions, asked at a time of the test's choice."""

    def __init__(self, shop: Workshop) -> None:
        self.shop, self.later = shop, timedelta()
        self._review = GrantReview(
            shop.catalogue, shop.grants, shop.store, lambda: datetime.now(UTC) + self.later
        )

    async def access(self, agent: str = "", tool: str = "") -> list[grants_pb2.GrantedAccess]:
        request = grants_pb2.ListAccessRequest(agent=agent, tool=tool)
        return list((await self._review.list_access(request, ROB)).access)

    async def unused(self, days: int) -> list[str]:
        found = await self._review.list_unused(grants_pb2.ListUnusedGrantsRequest(days=days), ROB)
        return [grant.grant_id for grant in found.grants]

    async def look_up(self) -> None:
        trail = self.shop.path.begin(self.shop.lookup())
        await self.shop.path.answer(self.shop.lookup(), trail)

    async def grant(self, text: str, *changes: str) -> None:
        store, at = self.shop.store, datetime.now(UTC) + self.later
        event = AuditEvent("grants.applied", "shop", "", at, details={"changes": list(changes)})
        base = (await store.grant_files("shop")).digest
        files = {"a.cedar": text}
        await store.apply_grants("shop", GrantFiles(files, digest_files(files), at), base, event)
        await self.shop.grants.refresh("shop")


@pytest.fixture
async def desk() -> Desk:
    desk = Desk(await Workshop.open())
    await desk.grant(GRANTS, "ADD all")
    return desk


async def test_says_what_an_agent_may_do_and_with_which_vault_role(desk: Desk):
    rows = await desk.access(agent="refund-desk")
    found = {row.tool.rpartition("/")[2]: (row.decision, row.credentials[0].role) for row in rows}
    assert found == {
        "LookupOrder": ("allow", "shop-orders-read"),
        "CreateRefundDraft": ("allow", "shop-orders-draft"),
    }


async def test_says_where_and_at_which_target(desk: Desk):
    row = (await desk.access(tool=LOOKUP))[0]
    assert (row.agent, list(row.environments), list(row.targets)) == ("refund-desk", ["dev"], ["orders-db"])
    assert (row.effect, row.grant_id, row.file) == ("READ", "all", "a.cedar")


async def test_says_when_it_was_last_used(desk: Desk):
    assert not (await desk.access(tool=LOOKUP))[0].HasField("last_used")
    await desk.look_up()
    (row,) = await desk.access(tool=LOOKUP)
    age = datetime.now(UTC) - row.last_used.ToDatetime(UTC)
    assert row.uses == 1 and age < timedelta(minutes=1)


async def test_gives_a_forbid_no_credentials(desk: Desk):
    scope = f'principal, action == Action::"{LOOKUP}", resource'
    await desk.grant(GRANTS + write_forbid("never", "context has subject", scope))
    rows = {row.decision: row for row in await desk.access(tool=LOOKUP)}
    assert (rows["forbid"].agent, len(rows["forbid"].credentials)) == ("*", 0)
    assert rows["forbid"].condition == "when { context has subject }"


async def test_knows_no_agent_that_no_grant_names(desk: Desk):
    assert await desk.access(agent="stranger") == []


@pytest.mark.parametrize("asked", [{}, {"agent": "a", "tool": LOOKUP}])
async def test_refuses_to_guess_what_is_asked(desk: Desk, asked: dict[str, str]):
    with pytest.raises(Refused) as refusal:
        await desk.access(**asked)
    assert refusal.value.reason_name == "REQUEST_INVALID"


async def test_refuses_a_tool_that_is_not_there(desk: Desk):
    with pytest.raises(Refused) as refusal:
        await desk.access(tool="shop.v1.Orders/Nothing")
    assert refusal.value.reason_name == "TOOL_UNKNOWN"


async def test_names_a_grant_as_unused_once_it_is_old_enough(desk: Desk):
    assert await desk.unused(days=30) == []
    desk.later = 31 * DAY
    assert await desk.unused(days=30) == ["all"]


async def test_names_a_used_grant_only_when_its_last_use_is_old(desk: Desk):
    await desk.look_up()
    desk.later = 29 * DAY
    assert await desk.unused(days=30) == []
    desk.later = 31 * DAY
    assert await desk.unused(days=30) == ["all"]


async def test_is_not_misled_by_a_later_application_of_other_grants(desk: Desk):
    await desk.grant(GRANTS.replace('"all"', '"old"'), "ADD old", "REMOVE all")
    desk.later = 31 * DAY
    await desk.grant(GRANTS.replace('"all"', '"old"') + GRANTS, "ADD all")
    assert await desk.unused(days=30) == ["old"]


@pytest.mark.parametrize("days", [0, 3651])
async def test_refuses_days_out_of_range(desk: Desk, days: int):
    with pytest.raises(Refused):
        await desk.unused(days)


async def test_shows_which_requests_alone_a_grant_allows(desk: Desk):
    text = GRANTS.replace('@targets("orders-db")', '@targets("orders-db")\n@egress("orders-db GET /a")')
    desk.shop.grants.targets = {"orders-db": "http"}
    await desk.grant(text)
    rows = [row for row in await desk.access(agent="refund-desk") if row.decision != "forbid"]

    assert {tuple(row.egress) for row in rows} == {("orders-db GET /a",)}
