"""The tools that an MCP server offers."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from tests.mcp.agent import play_agent, tool
from toolcrib.mcp.catalogue import Catalogue, CursorUnknown

THREE = (tool("Look"), tool("Draft", "DRAFT"), tool("Write", "WRITE", "OUTWARD"))


async def list_from(agent: Any, *patterns: str, page_size: int = 100) -> Catalogue:
    catalogue = Catalogue(agent, patterns, page_size)
    await catalogue.refresh()
    return catalogue


def hints(catalogue: Catalogue) -> dict[str, Any]:
    return {one.title or "": one.annotations for one in catalogue.page(None)[0]}


async def test_says_what_a_tool_may_do() -> None:
    found = hints(await list_from(play_agent(*THREE)))
    assert found["Look"].read_only_hint and not found["Look"].open_world_hint
    assert not found["Draft"].read_only_hint and not found["Draft"].destructive_hint
    assert found["Write"].destructive_hint and found["Write"].open_world_hint


async def test_takes_an_effect_that_it_does_not_know_for_the_worst() -> None:
    found = hints(await list_from(play_agent(tool("New", ""))))
    assert found["New"].destructive_hint and not found["New"].read_only_hint


async def test_promises_of_no_write_that_it_may_be_repeated() -> None:
    found = hints(await list_from(play_agent(*THREE)))
    assert [name for name, one in found.items() if one.idempotent_hint] == ["Look"]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ((), 3),
        (("shop.v1.*",), 3),
        (("shop.v1.Orders/L*",), 1),
        (("shop.v1.Orders/Look", "*/Write"), 2),
        (("rival.*",), 0),
    ],
)
async def test_offers_what_the_patterns_name(patterns: tuple[str, ...], names: int) -> None:
    assert (await list_from(play_agent(*THREE), *patterns)).count == names


async def test_finds_no_tool_that_it_does_not_offer() -> None:
    catalogue = await list_from(play_agent(*THREE), "*/Look")
    assert catalogue.find("shop_v1_Orders_Look") == THREE[0]
    assert catalogue.find("shop_v1_Orders_Write") is None
    assert catalogue.find("shop.v1.Orders/Look") is None


async def test_lists_every_tool_once_over_its_pages() -> None:
    catalogue = await list_from(play_agent(*(tool(f"T{n}") for n in range(7))), page_size=3)
    titles, cursor = [], None
    while True:
        tools, cursor = catalogue.page(cursor)
        titles += [one.title for one in tools]
        if cursor is None:
            break
    assert titles == [f"T{n}" for n in range(7)]


@pytest.mark.parametrize(
    "forged", ["", "x", "0", ".3", "{state}.1", "{state}.-3", "{state}.99", "{state}.", "{state}.٣"]
)
async def test_refuses_a_cursor_that_it_did_not_give(forged: str) -> None:
    catalogue = await list_from(play_agent(*(tool(f"T{n}") for n in range(7))), page_size=3)
    state = str(catalogue.page(None)[1]).partition(".")[0]
    with pytest.raises(CursorUnknown):
        catalogue.page(forged.format(state=state))


async def test_refuses_a_cursor_of_an_earlier_list() -> None:
    agent = play_agent(*(tool(f"T{n}") for n in range(7)))
    catalogue = await list_from(agent, page_size=3)
    _, cursor = catalogue.page(None)
    agent.tools.append(tool("T8"))
    assert await catalogue.refresh()
    with pytest.raises(CursorUnknown):
        catalogue.page(cursor)


async def test_describes_only_what_is_new() -> None:
    agent = play_agent(*THREE)
    catalogue = await list_from(agent)
    assert not await catalogue.refresh()
    agent.tools[0] = tool("Look", version="1.1.0")
    assert await catalogue.refresh()
    assert agent.described == 4


async def test_describes_the_result_of_a_read_only() -> None:
    tools, _ = (await list_from(play_agent(*THREE))).page(None)
    assert [one.title for one in tools if one.output_schema] == ["Look"]


async def test_moves_a_schema_with_its_references() -> None:
    tools, _ = (await list_from(play_agent(*THREE), "*/Look")).page(None)
    schema = tools[0].output_schema or {}
    nested = {"orderId": "A-1", "next": {"pattern": "x", "self": {"orderId": "A-2"}}}
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"result": nested, "labels": [], "call_id": "c"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            {"result": {"next": {"self": {"orderId": 1}}}, "labels": [], "call_id": "c"}, schema
        )


async def test_gives_hosts_no_pattern_of_a_result() -> None:
    """A host matches it by backtracking, on what the tool says: both could be made to never end."""
    tools, _ = (await list_from(play_agent(*THREE), "*/Look")).page(None)
    assert "^A-" not in str(tools[0].output_schema)
    assert "^A-" in str(tools[0].input_schema)
