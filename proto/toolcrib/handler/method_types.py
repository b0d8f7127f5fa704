"""The message types that a handler's function takes and gives, looked at when it is loaded.

What the author wrote down (the generated classes, an annotation) is compared with the service's own
definition. A wrong type then ends the handler before there is a call: `toolcrib tools test` shows it, and a
sandbox with such a handler is never kept warm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message


def find_response_type(serve: Callable[..., Any]) -> type[Message] | None:
    """Read the response type from a function's annotation; None where it has none that can be read.

    An annotation may be text (`from __future__ import annotations`): a dotted name is looked up in the
    function's module, anything else is not evaluated.
    """
    found = getattr(serve, "__annotations__", {}).get("return")
    if isinstance(found, str):
        first, *rest = found.split(".")
        found = getattr(serve, "__globals__", {}).get(first)
        for name in rest:
            found = getattr(found, name, None)
    return found if isinstance(found, type) and issubclass(found, Message) else None


def check_types(method: str, request_type: type[Message], response_type: type[Message] | None) -> str:
    """Compare the types of a function with those of its method.

    Args:
        method: Full name, "shop.v1.Orders/LookupOrder".
        request_type: What the function takes.
        response_type: What it gives; None where that is not known.

    Returns:
        The full name of the method's response; "" where the method's service is not loaded here.

    Raises:
        TypeError: One of them is another message than the service says.
        ValueError: The service is loaded and has no such method.
    """
    service, _, name = method.partition("/")
    pool = request_type.DESCRIPTOR.file.pool
    try:
        found = pool.FindServiceByName(service).methods_by_name.get(name)
    except KeyError:  # its generated module is not imported here
        return ""
    if found is None:
        known = ", ".join(sorted(pool.FindServiceByName(service).methods_by_name))
        raise ValueError(f"{service} has no method {name!r}; it has: {known}")
    for what, wanted, given in (
        ("takes", found.input_type.full_name, request_type),
        ("returns", found.output_type.full_name, response_type),
    ):
        if given is not None and given.DESCRIPTOR.full_name != wanted:
            raise TypeError(
                f"{method} {what} {wanted}, not {given.DESCRIPTOR.full_name}; correct its handler"
            )
    return str(found.output_type.full_name)
