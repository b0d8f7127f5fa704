"""A client of a broker that is not there: what it lists and how it answers is the test's to say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from toolcrib.client import Answer, Refused, Tool, ToolDescription

ORDERS = "shop.v1.Orders"
ORDER_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"orderId": {"type": "string", "pattern": "^A-"}, "next": {"$ref": "#/$defs/Order"}},
    "patternProperties": {"^order_id$": {"$ref": "#/properties/orderId"}},
    "additionalProperties": False,
    "$defs": {
        "Order": {"type": "object", "properties": {"pattern": {"type": "string"}, "self": {"$ref": "#"}}}
    },
}


def tool(method: str, effect: Any = "READ", reach: str = "INTERNAL", version: str = "1.0.0") -> Tool:
    """One tool."""
    return Tool(f"{ORDERS}/{method}", f"Does {method}.", effect, reach, "orders", version, "shop")


class FakeAgent:
    """Has what of `AsyncClient` the MCP server uses.

    Attributes:
        tools: What the broker lists.
        sent: The calls that came, as (tool, arguments, key).
        answer: What a call does; default: a result.
        described: How often a tool was described.
    """

    def __init__(self, *tools: Tool) -> None:
        self.tools = list(tools)
        self.sent: list[tuple[str, dict[str, Any], str]] = []
        self.answer: Callable[[str], Awaitable[Answer[dict[str, Any]]]] = self.give
        self.described = 0
        self.cancelled = asyncio.Event()

    async def list_tools(self, **_: Any) -> list[Tool]:
        return list(self.tools)

    async def describe(self, name: str, **_: Any) -> ToolDescription:
        self.described += 1
        (found,) = [one for one in self.tools if one.name == name]
        return ToolDescription(found, ORDER_SCHEMA, ORDER_SCHEMA, b"")

    async def invoke(self, name: str, arguments: Any, *, key: str = "", **_: Any) -> Answer[dict[str, Any]]:
        self.sent.append((name, dict(arguments), key))
        return await self.answer(key)

    async def give(self, key: str) -> Answer[dict[str, Any]]:
        """Answer at once."""
        return Answer("c1", {"orderId": "A-1"}, (), False, key, 0)

    async def hang(self, _key: str) -> Answer[dict[str, Any]]:
        """Answer never; notes that nobody waits any more, as gRPC does: with an error of its own."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise asyncio.CancelledError from None
        raise AssertionError

    async def refuse(self, _key: str) -> Answer[dict[str, Any]]:
        """Refuse."""
        raise Refused("NOT_GRANTED", "no grant allows it", code="PERMISSION_DENIED")

    @property
    def keys(self) -> list[str]:
        """The keys of the calls that came."""
        return [key for _, _, key in self.sent]


def play_agent(*tools: Tool) -> Any:
    """Make one that passes for an `AsyncClient`."""
    return FakeAgent(*tools)
