"""One `tools/call`: from a host's request to the broker, and back as a result that a model can act on.

1. A refusal, a violation, a failure is a result with `isError`: the model reads it. Only what is no call (an
   unknown tool, a key that is no text) is a JSON-RPC error.
2. A call has one key: the host's (`_meta`, "toolcrib/idempotency-key"), or a new one. The same write
   without a key has the key of the one that runs. While nobody knows whether a write happened, the same
   tool with the same arguments has its key, whatever the host says: a model that lost patience does not do
   it twice.
3. A host that cancels ends the waiting, at the broker too. A write that has begun goes on there; its key is
   kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
from mcp import types
from mcp.shared.exceptions import MCPError

from toolcrib.adapters.open_writes import name_write
from toolcrib.adapters.tool_calls import Terms, ToolAnswer
from toolcrib.client import AsyncClient, Tool, make_key

KEY, WORKFLOW = "toolcrib/idempotency-key", "toolcrib/workflow"
PROGRESS_SECONDS = 5.0
MAX_META_CHARACTERS = 4096

Tick = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class CallMeta:
    """What a host says about a call in `_meta`.

    Attributes:
        key: The idempotency key; empty: none.
        workflow: The handle of a workflow; empty: none.
    """

    key: str = ""
    workflow: str = ""

    @classmethod
    def read(cls, meta: Mapping[str, Any] | None) -> CallMeta:
        """Read it.

        Raises:
            MCPError: A value is no text, or too long a one.
        """
        found = {name: (meta or {}).get(name, "") for name in (KEY, WORKFLOW)}
        for name, value in found.items():
            if not isinstance(value, str) or len(value) > MAX_META_CHARACTERS:
                raise invalid(f"_meta {name} must be a text of at most {MAX_META_CHARACTERS} characters")
        return cls(found[KEY], found[WORKFLOW])


@dataclass(slots=True)
class Calls:
    """Makes the calls of all of a server's hosts.

    Attributes:
        client: Calls the broker, as the agent.
        terms: Of each call.
        running: The keys of each write that is on its way, one a call, the latest last.
    """

    client: AsyncClient
    terms: Terms
    running: dict[bytes, list[str]] = field(default_factory=dict)

    async def call(self, tool: Tool, arguments: Mapping[str, Any], meta: CallMeta) -> ToolAnswer:
        """Call a tool.

        Raises:
            MCPError: The server belongs to one workflow, and the host named another.
        """
        terms = self._choose_terms(meta)
        call = terms.bind_async(self.client, tool)
        if tool.effect == "READ":
            return await call(arguments)
        write = name_write(tool.name, terms.environment or "", arguments)
        with self._share_key(write, meta.key) as key:
            return await call(arguments, key=key)

    def _choose_terms(self, meta: CallMeta) -> Terms:
        fixed = self.terms.workflow
        if fixed and meta.workflow not in ("", fixed):
            raise invalid(f"this server belongs to one workflow; leave _meta {WORKFLOW} out")
        return replace(self.terms, workflow=fixed or meta.workflow or None)

    @contextlib.contextmanager
    def _share_key(self, write: bytes, wanted: str) -> Iterator[str]:
        """Hold the key of a write while it runs; another one that has none meanwhile shares it."""
        keys = self.running.setdefault(write, [])
        key = wanted or (keys[-1] if keys else make_key())
        keys.append(key)
        try:
            yield key
        finally:
            keys.remove(key)
            if not keys:
                self.running.pop(write, None)


async def in_own_task(work: Coroutine[Any, Any, ToolAnswer]) -> ToolAnswer:
    """Await a call in a task of its own, which is ended when the host cancels.

    The SDK knows its own cancellations from others, and takes an error that gRPC raises anew for another
    one: it would end the whole connection.

    Raises:
        MCPError: The call ended without an answer, as when the server stops.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(task, return_exceptions=True)
        raise
    if task.cancelled():
        raise MCPError(code=types.INTERNAL_ERROR, message="the server is stopping")
    return task.result()


def invalid(message: str, data: Any = None) -> MCPError:
    """Make the JSON-RPC error of a request that is none."""
    return MCPError(code=types.INVALID_PARAMS, message=message, data=data)


def show_answer(answer: ToolAnswer) -> types.CallToolResult:
    """Write an answer as MCP has it: the same object as text and as structure."""
    meta: dict[str, Any] = {"toolcrib/labels": list(answer.labels), "toolcrib/replayed": answer.replayed}
    if answer.call_id:
        meta["toolcrib/call-id"] = answer.call_id
    if answer.key:
        meta[KEY] = answer.key
    if answer.artefact_count:
        meta["toolcrib/artefacts"] = answer.artefact_count
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=answer.text)],
        structured_content=answer.content,
        is_error=answer.is_error,
        _meta=meta,
    )


@contextlib.asynccontextmanager
async def ticking(tick: Tick, seconds: float) -> AsyncIterator[None]:
    """Tell a host that waits how long it has been, so that it goes on waiting.

    Args:
        tick: Called with the seconds since the beginning.
        seconds: Between two ticks.
    """

    async def beat() -> None:
        since = 0.0
        while True:
            await asyncio.sleep(seconds)
            since += seconds
            await tick(since)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
