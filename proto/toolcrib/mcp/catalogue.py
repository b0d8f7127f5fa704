"""The tools that an MCP server offers, read from the broker again and again.

1. A tool's name is the one that model APIs take (`model_names`), over all that the agent may see: a pattern
   that is added or left out renames nothing.
2. A cursor belongs to one state of the list. After a change it is refused, and the host lists anew: pages
   of two states would miss a tool or show one twice.
3. A READ has an output schema, another tool has none. A host throws a result away that it finds at odds
   with the schema; of a write that would be the only word that it happened, and it would be asked for
   again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from mcp import types

from toolcrib.adapters.names import model_names
from toolcrib.client import AsyncClient, Tool, ToolDescription

PAGE_SIZE = 100
# At most, for reading the list, with its retries: who starts a server without a broker hears of it soon.
READ_SECONDS = 5.0
LABELS = {"type": "array", "items": {"type": "string"}}
# Of a response's schema. A pattern was written by the tool's author, and hosts match by backtracking.
_LEFT_OUT = frozenset({"$schema", "pattern", "patternProperties"})
_RESULT = "#/properties/result"


class CursorUnknown(Exception):
    """No cursor of this list, or one of an earlier state of it."""


class Catalogue:
    """What `tools/list` shows and `tools/call` finds.

    Args:
        client: Asks the broker, as the agent.
        patterns: Of methods, as in `shop.v1.*`; empty: all.
        page_size: How many tools a page holds.
        read_seconds: For reading the list, and for each description.
    """

    def __init__(
        self,
        client: AsyncClient,
        patterns: Sequence[str],
        page_size: int = PAGE_SIZE,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self._client, self._patterns, self._page_size = client, tuple(patterns), page_size
        self._read_seconds = read_seconds
        self._described: dict[Tool, ToolDescription] = {}
        self._tools: dict[str, Tool] = {}
        self._shown: list[types.Tool] = []
        self._state = ""

    async def refresh(self) -> bool:
        """Read the list anew; True when it is another one.

        Raises:
            ToolcribError: The broker refused, or cannot be reached; the list stays as it was.
        """
        listed = await self._client.list_tools(timeout=self._read_seconds)
        offered = [tool for tool in listed if self._offers(tool)]
        described = {tool: self._described.get(tool) or await self._describe(tool) for tool in offered}
        names = model_names(tool.name for tool in listed)
        self._described = described
        self._tools = {names[tool.name]: tool for tool in offered}
        self._shown = [show_tool(name, described[tool]) for name, tool in sorted(self._tools.items())]
        before, self._state = self._state, _digest(self._shown)
        return before != self._state

    def find(self, name: str) -> Tool | None:
        """Find a tool by its name for the model."""
        return self._tools.get(name)

    def page(self, cursor: str | None) -> tuple[list[types.Tool], str | None]:
        """Give one page and the cursor of the next one.

        Raises:
            CursorUnknown: It is none of this state's.
        """
        first = 0
        if cursor is not None:
            state, _, offset = cursor.partition(".")
            if state != self._state or offset not in map(str, range(0, len(self._shown), self._page_size)):
                raise CursorUnknown
            first = int(offset)
        last = first + self._page_size
        return self._shown[first:last], f"{self._state}.{last}" if last < len(self._shown) else None

    @property
    def count(self) -> int:
        """How many tools are offered."""
        return len(self._shown)

    def _offers(self, tool: Tool) -> bool:
        return not self._patterns or any(fnmatchcase(tool.name, pattern) for pattern in self._patterns)

    async def _describe(self, tool: Tool) -> ToolDescription:
        return await self._client.describe(tool.name, timeout=self._read_seconds)


def show_tool(name: str, description: ToolDescription) -> types.Tool:
    """Write a tool as MCP has it."""
    tool = description.tool
    is_read = tool.effect == "READ"
    return types.Tool(
        name=name,
        title=tool.name.rpartition("/")[2],
        description=tool.description,
        input_schema=description.request_schema,
        output_schema=_wrap(description.response_schema) if is_read else None,
        annotations=types.ToolAnnotations(
            read_only_hint=is_read,
            # What is neither a READ nor a DRAFT (a newer broker's effect, say) may destroy.
            destructive_hint=tool.effect not in {"READ", "DRAFT"},
            # Asked for twice, a write is done twice: each of a host's calls has a key of its own.
            idempotent_hint=is_read,
            open_world_hint=tool.reach == "OUTWARD",
        ),
        _meta={"toolcrib/tool": tool.name, "toolcrib/effect": tool.effect, "toolcrib/version": tool.version},
    )


def _wrap(response: dict[str, Any]) -> dict[str, Any]:
    """Describe the object that a call gives: the result, and what is said about it."""
    return {
        "type": "object",
        "properties": {
            "result": _move(response),
            "labels": LABELS,
            "note": {"type": "string"},
            "call_id": {"type": "string"},
        },
        "required": ["result", "labels", "call_id"],
    }


def _move(schema: Any, *, is_map: bool = False) -> Any:
    """Move a schema below `properties.result`; `is_map`: its keys are names and not keywords."""
    if isinstance(schema, list):
        return [_move(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    moved: dict[str, Any] = {}
    for key, value in schema.items():
        if is_map:
            moved[key] = _move(value)
        elif key == "$ref" and isinstance(value, str):
            moved[key] = _RESULT + value.removeprefix("#")
        elif key not in _LEFT_OUT:
            moved[key] = _move(value, is_map=key in {"properties", "$defs"})
    return moved


def _digest(shown: Sequence[types.Tool]) -> str:
    text = "\n".join(tool.model_dump_json(by_alias=True) for tool in shown)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
