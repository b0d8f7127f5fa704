"""Tools for the OpenAI Agents SDK.

    agent = Agent("desk", tools=tools_of(load_tools(client, strict=True)))

Rules:
1. A schema that has a strict form is sent as strict; another one as it is. The broker checks either way.
2. The key of a call is made of the run and the model's call id: what the SDK runs again gets the first
   answer. A run is known by its `Usage`, which the SDK makes once for each; whoever resumes a run in
   another process gives `run_id`.
3. The SDK's tracing sends arguments and results to its maker unless the program turns that off
   (`RunConfig(tracing_disabled=True)`). An adapter cannot; docs/adapters/openai-agents.md says how.
"""

from __future__ import annotations

import json
import secrets
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn

from toolcrib.adapters.extras import missing
from toolcrib.adapters.strict_schema import to_strict
from toolcrib.adapters.tool_spec import ToolSpec, key_of

try:
    from agents import FunctionTool
    from agents.tool_context import ToolContext
except ImportError as error:
    raise missing("openai-agents", error) from error

RunId = str | Callable[[ToolContext[Any]], str]


def tools_of(specs: Iterable[ToolSpec], *, run_id: RunId | None = None) -> list[FunctionTool]:
    """Make the SDK's tools.

    Args:
        specs: The loaded tools.
        run_id: Names the run, or the conversation, where one is resumed in another process: a text, or a
            function of the tool's context. None: each run is another one.
    """
    name_run = Runs().name if run_id is None else run_id
    return [_make_tool(spec, name_run) for spec in specs]


class Runs:
    """Names runs by an object that each has one of, as long as it lives."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[weakref.ref[Any], str]] = {}

    def name(self, context: ToolContext[Any]) -> str:
        """Name the run of a context: the same in all its calls."""
        usage = context.usage
        known = self._names.get(id(usage))
        if known is None or known[0]() is not usage:
            place = id(usage)
            gone = weakref.ref(usage, lambda _: self._names.pop(place, None))
            known = self._names[place] = (gone, secrets.token_hex(16))
        return known[1]


def _make_tool(spec: ToolSpec, run_id: RunId) -> FunctionTool:
    strict = to_strict(spec.json_schema)
    return FunctionTool(
        name=spec.name,
        description=spec.description,
        params_json_schema=spec.json_schema if strict is None else strict,
        on_invoke_tool=_bind(spec, run_id),
        strict_json_schema=strict is not None,
    )


def _bind(spec: ToolSpec, run_id: RunId) -> Callable[[ToolContext[Any], str], Awaitable[str]]:
    async def invoke(context: ToolContext[Any], text: str) -> str:
        try:
            arguments = _read(text)
        except (ValueError, RecursionError) as error:
            return _refuse(error)
        run = run_id if isinstance(run_id, str) else run_id(context)
        return (await spec.call(arguments, key=key_of(run, context.tool_call_id))).text

    return invoke


def _read(text: str) -> dict[str, Any]:
    """Read the model's arguments; what JSON readers disagree about (one name twice, NaN) is none."""
    found = json.loads(text or "{}", object_pairs_hook=_read_object, parse_constant=_refuse_constant)
    if not isinstance(found, dict):
        raise ValueError("they must be a JSON object")
    return found


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in them twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _refuse(error: Exception) -> str:
    said = {
        "reason": "REQUEST_MALFORMED",
        "message": f"the arguments are no JSON object: {error}",
        "violations": [],
        "retry": "Nothing happened. Call again with a JSON object.",
        "call_id": "",
    }
    return json.dumps({"error": said}, ensure_ascii=False)
