"""Tools for Google's Agent Development Kit.

    agent = LlmAgent(name="desk", model="gemini-flash-latest", tools=[ToolcribToolset(client)])

Rules:
1. The model sees the contract's JSON Schema (`parameters_json_schema`), not one that was guessed from a
   signature.
2. The key of a call is made of session and function call: what ADK runs again (a resumed invocation) gets the
   first answer. A call without an id has a key of its own.
3. The toolset asks the broker for its tools when an agent first needs them. When that fails the agent has
   none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from toolcrib.adapters.extras import missing
from toolcrib.adapters.tool_spec import Terms, ToolSpec, key_of, load_tools_async
from toolcrib.client import AsyncClient

try:
    from google.adk.agents.readonly_context import ReadonlyContext
    from google.adk.tools.base_tool import BaseTool
    from google.adk.tools.base_toolset import BaseToolset
    from google.adk.tools.tool_context import ToolContext
    from google.genai import types
except ImportError as error:
    raise missing("google-adk", error) from error


class ToolcribTool(BaseTool):
    """One tool of the broker."""

    def __init__(self, spec: ToolSpec) -> None:
        super().__init__(name=spec.name, description=spec.description)
        self._spec = spec

    def _get_declaration(self) -> types.FunctionDeclaration:
        """Describe it to the model, under the name that a toolset may have given it."""
        return types.FunctionDeclaration(
            name=self.name, description=self.description, parameters_json_schema=self._spec.json_schema
        )

    async def run_async(self, *, args: dict[str, Any], tool_context: ToolContext) -> dict[str, Any]:
        """Call it; a refusal is a result, too."""
        answer = await self._spec.call(args, key=_make_key(tool_context))
        return answer.content


class ToolcribToolset(BaseToolset):
    """The tools that an agent may see at the broker.

    Args:
        client: Calls as the agent; the toolset closes it with itself.
        names: gRPC methods to load; None: all.
        terms: Workflow, environment and timeout of the calls.
        tool_name_prefix: Stands before each tool's name.
    """

    def __init__(
        self,
        client: AsyncClient,
        names: Collection[str] | None = None,
        *,
        terms: Terms | None = None,
        tool_name_prefix: str | None = None,
    ) -> None:
        super().__init__(tool_name_prefix=tool_name_prefix)
        self._client, self._names, self._terms = client, names, terms
        self._tools: list[BaseTool] = []

    async def get_tools(self, readonly_context: ReadonlyContext | None = None) -> list[BaseTool]:
        """Give the tools; they are loaded once.

        Raises:
            LookupError: A name is none of the tools.
            ToolcribError: The broker refused to list or describe, or cannot be reached.
        """
        if not self._tools:
            self._tools = tools_of(await load_tools_async(self._client, self._names, terms=self._terms))
        return self._tools

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()


def tools_of(specs: Iterable[ToolSpec]) -> list[BaseTool]:
    """Make ADK's tools."""
    return [ToolcribTool(spec) for spec in specs]


def _make_key(context: ToolContext) -> str | None:
    if not context.function_call_id:
        return None
    session = context.session
    return key_of(json.dumps([session.app_name, session.user_id, session.id]), context.function_call_id)
