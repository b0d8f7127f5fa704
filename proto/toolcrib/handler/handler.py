"""A handler: the methods of one bundle, and the conversation that runs one of them."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from toolcrib.handler.context import Context
from toolcrib.handler.failure import Failure
from toolcrib.handler.frames import Frames
from toolcrib.handler.method_types import check_types, find_response_type
from toolcrib.handler.v1 import handler_pb2

PROTOCOL_VERSION = 1

_CO_COROUTINE = 0x80  # inspect.CO_COROUTINE; importing that module costs 6 ms

Serve = Callable[[Any, Context], Message | Awaitable[Message]]
ServeType = TypeVar("ServeType", bound=Serve)


class Tool(NamedTuple):
    """One method as its author wrote it.

    Attributes:
        response_name: Full name of the message that it answers; empty where that is not known.
    """

    request_type: type[Message]
    response_name: str
    serve: Serve


class Handler:
    """Serves the one call that its sandbox was made for.

    Whatever goes wrong becomes a `Failure`: a handler never just ends.
    """

    def __init__(self) -> None:
        self._tools: dict[str, Tool] = {}

    @property
    def tools(self) -> Mapping[str, Tool]:
        """What is registered, by the full name of its method."""
        return self._tools

    def tool(
        self, method: str, request_type: type[Message], response_type: type[Message] | None = None
    ) -> Callable[[ServeType], ServeType]:
        """Register a function, plain or async, that takes (request, context) and returns the response.

        Args:
            method: Full name, "shop.v1.Orders/LookupOrder".
            request_type: The generated class of its request.
            response_type: That of its response; else what the function's annotation says.

        Raises:
            ValueError: The method is registered already, or its service has none of that name.
            TypeError: The service says that it takes or returns another message.
        """
        if method in self._tools:
            raise ValueError(f"{method} is registered twice; remove one of them")

        def register(serve: ServeType) -> ServeType:
            response = response_type or find_response_type(serve)
            response_name = check_types(method, request_type, response)
            if not response_name and response is not None:
                response_name = response.DESCRIPTOR.full_name
            self._tools[method] = Tool(request_type, response_name, serve)
            return serve

        return register

    def run(self, frames: Frames | None = None) -> None:
        """Say that all is loaded, read the Start frame, serve it, send the Result or the Failure.

        Args:
            frames: For tests; the descriptors that init gives by default.
        """
        frames = frames or Frames()
        self._load()
        frames.write(handler_pb2.HandlerFrame(loaded=handler_pb2.Loaded()))
        try:
            response = self._serve(frames.read().start, frames)
            frame = handler_pb2.HandlerFrame(result=handler_pb2.Result(response=response))
        except Failure as failure:
            frame = handler_pb2.HandlerFrame(failure=failure.to_message())
        frames.write(frame)

    def _load(self) -> None:
        """Have at hand what a call will need, before there is one."""
        codes = [getattr(tool.serve, "__code__", None) for tool in self._tools.values()]
        if any(code is not None and code.co_flags & _CO_COROUTINE for code in codes):
            import asyncio  # noqa: F401, PLC0415 - 20 ms that a plain function does not need

    def _serve(self, start: handler_pb2.Start, frames: Frames) -> bytes:
        if start.protocol_version != PROTOCOL_VERSION:
            raise Failure("PROTOCOL_UNKNOWN", f"this handler speaks version {PROTOCOL_VERSION} only")
        if start.method not in self._tools:
            raise Failure("METHOD_UNKNOWN", f"no handler is registered for {start.method}")
        tool = self._tools[start.method]
        request = _parse(tool.request_type, start.request)
        try:
            context = Context(start, frames)
        except ValueError as error:
            raise Failure("CREDENTIAL_UNKNOWN", str(error)) from error
        return _serialize(_call(tool.serve, request, context), tool.response_name)


def _parse(request_type: type[Message], data: bytes) -> Message:
    try:
        return request_type.FromString(data)
    except DecodeError as error:
        raise Failure("REQUEST_MALFORMED", "the request's bytes are no message of its type") from error


def _call(serve: Serve, request: Message, context: Context) -> object:
    """Run the author's function; what it raises beside `Failure` goes to the log only.

    The text of a foreign exception may hold a connection string, so the caller does not get it.
    """
    try:
        answer = serve(request, context)
        if isinstance(answer, Awaitable):
            import asyncio  # noqa: PLC0415 - 20 ms that a plain function does not need

            return asyncio.run(_wait_for(answer))
        return answer
    except Failure:
        raise
    except Exception as error:
        import traceback  # noqa: PLC0415 - not needed by a call that goes well

        traceback.print_exc(file=sys.stderr)
        text = f"the tool's handler raised {type(error).__name__}; see its log"
        raise Failure("HANDLER_ERROR", text, effect="unknown") from error


async def _wait_for(answer: Awaitable[Message]) -> Message:
    return await answer


def _serialize(answer: object, response_name: str) -> bytes:
    """Write the response; another message's bytes could pass for it by chance."""
    given = answer.DESCRIPTOR.full_name if isinstance(answer, Message) else type(answer).__name__
    if not isinstance(answer, Message) or (response_name and given != response_name):
        wanted = response_name or "its response message"
        text = f"the tool's handler returned {given} instead of {wanted}"
        raise Failure("RESPONSE_INVALID", text, effect="unknown")
    return answer.SerializeToString(deterministic=True)
