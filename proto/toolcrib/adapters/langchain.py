"""Tools for LangChain (https://python.langchain.com), langchain-core 1: `model.bind_tools(tools_of(specs))`.

The key of a call is made of the thread's id (`config={"configurable": {"thread_id": ...}}`) and the tool
call's: a thread that is resumed from its checkpoint asks about its writes and does not repeat them. Without a
thread it is LangGraph's id of the step, which is the same when a step is run again; without a graph, one of
these tools' own, which lasts as long as they do.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from toolcrib.adapters.extras import missing
from toolcrib.adapters.tool_calls import ToolAnswer
from toolcrib.adapters.tool_spec import ToolSpec, key_of

try:
    from langchain_core.messages import ToolMessage
    from langchain_core.runnables import RunnableConfig
    from langchain_core.tools import BaseTool
except ImportError as error:
    raise missing("langchain", error) from error

Output = tuple[str | ToolMessage, ToolAnswer]


class ToolcribTool(BaseTool):
    """One tool; a `ToolMessage` has the `ToolAnswer` as its artifact, and the status "error" for an error."""

    _spec: ToolSpec
    _run_id: str

    def __init__(self, spec: ToolSpec, run_id: str) -> None:
        super().__init__(
            name=spec.name,
            description=spec.description,
            args_schema=spec.json_schema,
            response_format="content_and_artifact",
        )
        self._spec, self._run_id = spec, run_id

    def _to_args_and_kwargs(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Pass the arguments as one value, whatever their names: a field may be called `config`."""
        return (tool_input, tool_call_id), {}

    def _run(self, arguments: Mapping[str, Any], tool_call_id: str | None, config: RunnableConfig) -> Output:
        if self._spec.call_sync is None:
            raise NotImplementedError(
                "these tools came from load_tools_async: await the agent, or use load_tools with a Client"
            )
        key = self._key(config, tool_call_id)
        return self._show(self._spec.call_sync(arguments, key=key), tool_call_id)

    async def _arun(
        self, arguments: Mapping[str, Any], tool_call_id: str | None, config: RunnableConfig
    ) -> Output:
        answer = await self._spec.call(arguments, key=self._key(config, tool_call_id))
        return self._show(answer, tool_call_id)

    def _key(self, config: RunnableConfig, tool_call_id: str | None) -> str | None:
        known = config.get("configurable", {})
        thread = str(known.get("thread_id") or known.get("checkpoint_ns") or self._run_id)
        return key_of(thread, tool_call_id) if tool_call_id else None

    def _show(self, answer: ToolAnswer, tool_call_id: str | None) -> Output:
        if not (answer.is_error and tool_call_id):
            return answer.text, answer
        message = ToolMessage(
            answer.text, artifact=answer, tool_call_id=tool_call_id, name=self.name, status="error"
        )
        return message, answer


def tools_of(specs: Iterable[ToolSpec]) -> list[BaseTool]:
    """Make LangChain's tools."""
    run_id = secrets.token_hex(16)
    return [ToolcribTool(spec, run_id) for spec in specs]
