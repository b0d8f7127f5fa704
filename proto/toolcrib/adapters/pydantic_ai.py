"""Tools for pydantic-ai (https://ai.pydantic.dev), version 2: `Agent(model, tools=tools_of(specs))`.

The key of a call is made of the conversation's id and the tool call's: a run that is resumed with its message
history, or by a durable engine, asks about its writes and does not repeat them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from toolcrib.adapters.extras import missing
from toolcrib.adapters.tool_spec import ToolSpec, key_of

try:
    from pydantic_ai import RunContext, Tool, ToolReturn
except ImportError as error:
    raise missing("pydantic-ai", error) from error


def tools_of(specs: Iterable[ToolSpec]) -> list[Tool[Any]]:
    """Make pydantic-ai's tools; the program finds the `ToolAnswer` in the return part's metadata."""
    return [_tool_of(spec) for spec in specs]


def _tool_of(spec: ToolSpec) -> Tool[Any]:
    async def call(ctx: RunContext[Any], /, **arguments: Any) -> ToolReturn[Any]:
        answer = await spec.call(arguments, key=_key(ctx))
        return ToolReturn(return_value=answer.content, metadata=answer)

    return Tool.from_schema(call, spec.name, spec.description, spec.json_schema, takes_ctx=True)


def _key(ctx: RunContext[Any]) -> str | None:
    """Make the key; without the framework's ids the call gets a new one."""
    run = ctx.conversation_id or ctx.run_id
    return key_of(run, ctx.tool_call_id) if run and ctx.tool_call_id else None
