"""A tool as an agent framework needs it: name, description, JSON Schema, and something to await.

What the model gets back is one JSON object, the same in every framework:

    {"result": {...}, "labels": ["tool:...", ...], "call_id": "c..."}
    {"result": {...}, "labels": ["untrusted", ...], "note": "...", "call_id": "c..."}
    {"error": {"reason": "REQUEST_INVALID", "message": "...",
               "violations": [{"field": "...", "description": "..."}],
               "retry": "what to do next", "call_id": "c..."}}

Rules:
1. A refusal, a violation, a failure, a timeout is an `error` object: the model can act on it. Nothing of
   it is raised into the framework; a mistake of the program (arguments that are no dict, a closed client)
   is.
2. Where `labels` has "untrusted", strangers wrote some of it, and `note` says so: it is data, never
   instructions. So it is with the message of a tool that failed. The broker does not rely on the model's
   reading this: it gates what such content may reach.
3. One call of the model is one key. An adapter makes it from the framework's ids (`key_of`), so a
   framework that runs the same call again gets the first answer, and not a second write.
4. A write that may have happened keeps its key: the same tool with the same arguments asks about it, and
   does not do it again (`open_writes`), whatever id the framework gives to that call.
5. Names and descriptions come from the reviewed contract, results and errors stand inside JSON strings:
   neither can become a tool or a message of its own.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from toolcrib.adapters.names import model_names
from toolcrib.adapters.tool_calls import CallTool, CallToolSync, Terms, ToolAnswer
from toolcrib.client import AsyncClient, Client, Tool, ToolDescription
from toolcrib.client.answers import Effect

__all__ = [
    "CallTool",
    "CallToolSync",
    "Terms",
    "ToolAnswer",
    "ToolSpec",
    "key_of",
    "load_tools",
    "load_tools_async",
]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """One tool for a framework.

    Attributes:
        name: For the model: at most 64 of [A-Za-z0-9_-], unique among the loaded tools.
        tool: The gRPC method, for example "shop.v1.Orders/LookupOrder".
        description: The reviewed comment of the method.
        json_schema: JSON Schema (2020-12) of the arguments.
        effect: "READ", "DRAFT" or "WRITE".
        call: Calls it: `await call(arguments, key=None)`. From a synchronous client it works in a thread.
        call_sync: The same without an event loop; None where the specs came from an `AsyncClient`.
    """

    name: str
    tool: str
    description: str
    json_schema: dict[str, Any]
    effect: Effect
    call: CallTool
    call_sync: CallToolSync | None = None


def key_of(run_id: str, tool_call_id: str) -> str:
    """Make the key of one call of the model from the framework's ids; the same ids give the same key.

    Args:
        run_id: Of the agent's run, or of the conversation where the framework resumes one.
        tool_call_id: Of the call within the run.
    """
    return hmac.new(run_id.encode(), tool_call_id.encode(), hashlib.sha256).hexdigest()


def load_tools(
    client: Client,
    names: Collection[str] | None = None,
    *,
    scopes: Collection[str] | None = None,
    terms: Terms | None = None,
    strict: bool = False,
) -> list[ToolSpec]:
    """Load the tools that the broker lists; the specs can be used with and without an event loop.

    Args:
        client: Who calls; it stays open as long as the specs are used.
        names: gRPC methods to load; None: all, an empty collection: none.
        scopes: Only tools of these scopes; None: of any.
        terms: Workflow, environment and timeout of the calls.
        strict: Schemas as model APIs take them in their strict mode.

    Raises:
        LookupError: A name is none of the tools.
        ToolcribError: The broker refused to list or describe, or cannot be reached.
    """
    shared = terms or Terms()
    described = [client.describe(tool.name, strict) for tool in _choose(client.list_tools(), names, scopes)]
    return [
        _make_spec(item, name, *shared.bind(client, item.tool))
        for item, name in zip(described, _names_of(described), strict=True)
    ]


async def load_tools_async(
    client: AsyncClient,
    names: Collection[str] | None = None,
    *,
    scopes: Collection[str] | None = None,
    terms: Terms | None = None,
    strict: bool = False,
) -> list[ToolSpec]:
    """Load the tools that the broker lists, for one event loop; see `load_tools`.

    Raises:
        LookupError: A name is none of the tools.
        ToolcribError: The broker refused to list or describe, or cannot be reached.
    """
    shared = terms or Terms()
    listed = _choose(await client.list_tools(), names, scopes)
    described = [await client.describe(tool.name, strict) for tool in listed]
    return [
        _make_spec(item, name, shared.bind_async(client, item.tool))
        for item, name in zip(described, _names_of(described), strict=True)
    ]


def _choose(
    tools: Sequence[Tool], names: Collection[str] | None, scopes: Collection[str] | None
) -> list[Tool]:
    known = [tool.name for tool in tools]
    for name in names or ():
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise LookupError(f"{name} is none of the tools{f'; did you mean {near[0]}?' if near else ''}")
    return [
        tool
        for tool in tools
        if (names is None or tool.name in names) and (scopes is None or tool.scope in scopes)
    ]


def _names_of(described: Sequence[ToolDescription]) -> list[str]:
    names = model_names(item.tool.name for item in described)
    return [names[item.tool.name] for item in described]


def _make_spec(
    item: ToolDescription, name: str, call: CallTool, call_sync: CallToolSync | None = None
) -> ToolSpec:
    tool = item.tool
    return ToolSpec(name, tool.name, tool.description, item.request_schema, tool.effect, call, call_sync)
