"""Addresses in the requests of OUTWARD methods: by its own rule the argument says where data goes.

Such a field that is no destination would pass the gate unseen, so registration refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from toolcrib.v1 import options_pb2
from tools.contract import Reach, ToolTerms
from tools.descriptors import find_messages
from tools.errors import Violation, breach
from tools.roles import read_roles
from tools.rules import read_rules

_RULES = ("email", "hostname", "ip", "ipv4", "ipv6", "uri", "uri_ref", "address", "host_and_port")


def find_address_rule(item: FieldDescriptor) -> str:
    """Name the rule that makes a string, or the items of a list, an address; empty for none."""
    rules = read_rules(item)
    if rules is None or item.type != FieldDescriptor.TYPE_STRING:
        return ""
    string = rules.repeated.items.string if item.is_repeated else rules.string
    return next((name for name in _RULES if string.HasField(name) and getattr(string, name)), "")


def is_request_address(terms: ToolTerms, item: FieldDescriptor) -> bool:
    """Tell whether a field of a request of `terms`' method must be a destination."""
    return terms.reach is Reach.OUTWARD and bool(find_address_rule(item))


def find_open_addresses(name: str, reach: int, method: MethodDescriptor) -> Iterator[Violation]:
    """Yield the addresses in an OUTWARD method's request that are no destinations."""
    if reach != options_pb2.OUTWARD:
        return
    for message in find_messages(method.input_type).values():
        for item in message.fields:
            rule = find_address_rule(item)
            if rule and not read_roles(item).destination:
                problem = f"is an address by its rule ({rule}) in a request of {name}, which reaches out"
                yield breach("DESTINATION_TYPED", item.full_name, problem)
