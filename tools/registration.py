"""The rules that a bundle's descriptor set must keep to be registered, each with its remedy.

1. Its form: tools/set_form.py. Then the files must fit together.
2. Methods are unary, name their effect and scope, and a write's probe is a READ of the same service that can
   be asked with the key alone and answers with what the write would have answered.
3. Messages are bounded: no Any, no Struct; not deeper than a call may be.
4. Roles stand where they mean something; rules compile in a linear engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import protovalidate
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from toolcrib.v1 import options_pb2
from tools.comments import read_comments
from tools.contract import Effect, Reach, ToolTerms
from tools.descriptors import (
    OPTION_FILES,
    TRUSTED_FILES,
    build_pool,
    find_messages,
    find_methods,
    load_trusted_files,
    read_options,
)
from tools.errors import BundleInvalid, Violation, breach
from tools.extents import find_endless_types
from tools.outward import find_open_addresses
from tools.probes import check_probe, check_probe_request
from tools.roles import find_misplaced_roles
from tools.rules import compile_rules
from tools.set_form import HARMLESS, SET, check_form, check_sizes, decode_set, is_text, order_files

_SCOPE = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z0-9_-]+){0,7}")
_UNBOUNDED = frozenset(f"google.protobuf.{name}" for name in ("Any", "Struct", "Value", "ListValue"))

_NOT_HELD = ("google/protobuf/descriptor.proto", *OPTION_FILES)

_File = descriptor_pb2.FileDescriptorProto


@dataclass(frozen=True, slots=True)
class Registered:
    """A descriptor set that keeps the rules.

    Attributes:
        files: The bundle's own files, in the order of their imports.
        pool: A pool of its own, with our copies of the trusted files.
    """

    files: tuple[_File, ...]
    pool: DescriptorPool
    validator: protovalidate.Validator
    tools: Mapping[str, tuple[ToolTerms, MethodDescriptor]]
    comments: Mapping[str, str]


def register_set(descriptor_set: bytes) -> Registered:
    """Check a bundle's descriptor set and build its pool.

    Raises:
        BundleInvalid: With every violation that could be found.
    """
    own = [file for file in decode_set(descriptor_set) if file.name not in TRUSTED_FILES]
    if not all(is_text(file) for file in own):
        raise BundleInvalid([breach("NOT_TEXT", SET, "holds a text that is not UTF-8")])
    _raise_any(list(check_sizes(own)))
    faults = list(check_form(own))
    if not all(fault.code in HARMLESS for fault in faults):
        raise BundleInvalid(faults)
    ordered = order_files(own)
    try:
        pool = build_pool([*load_trusted_files().values(), *ordered])
    except (TypeError, ValueError, KeyError) as error:
        problem = f"the files do not fit together: {error}"
        raise BundleInvalid([*faults, breach("FILES_CLASH", SET, problem)]) from error
    return _check_meaning(ordered, pool, faults)


def _check_meaning(files: list[_File], pool: DescriptorPool, faults: list[Violation]) -> Registered:
    """Check what the linked descriptors mean, and compile their rules."""
    validator = protovalidate.Validator()
    methods = {n: m for file in files for n, m in find_methods(pool.FindFileByName(file.name))}
    comments = {name: text for file in files for name, text in read_comments(file)}
    messages = _list_messages(files, pool)
    endless = list(find_endless_types(messages, [method.input_type for method in methods.values()]))
    problems = [
        *faults,
        *(v for name, method in methods.items() for v in _check_method(name, method, methods)),
        *(v for message in messages for v in _check_message(message)),
        *endless,
    ]
    if not methods:
        problems.append(breach("NO_SERVICE", SET, "has no service", "a tool is a method of one"))
    if not endless:
        problems.extend(v for message in messages for v in compile_rules(message, validator))
    _raise_any(problems)
    _raise_any(
        [
            violation
            for name, method in methods.items()
            if (probe := _find_probe(name, method, methods)) is not None
            for violation in check_probe_request(name, probe, validator)
        ]
    )
    tools = {name: (_read_terms(name, method, comments), method) for name, method in methods.items()}
    return Registered(tuple(files), pool, validator, tools, comments)


def _raise_any(violations: list[Violation]) -> None:
    if violations:
        raise BundleInvalid(violations)


def _list_messages(files: list[_File], pool: DescriptorPool) -> list[Descriptor]:
    roots = [m for file in files for m in pool.FindFileByName(file.name).message_types_by_name.values()]
    found: dict[str, Descriptor] = {}
    for root in roots:
        found.update(find_messages(root))
    return [message for message in found.values() if not message.GetOptions().map_entry]


def _check_method(
    name: str, method: MethodDescriptor, known: Mapping[str, MethodDescriptor]
) -> Iterator[Violation]:
    if method.client_streaming or method.server_streaming:
        yield breach("STREAMING", name, "streams", "a tool is a unary method")
    if any(message.GetOptions().map_entry for message in (method.input_type, method.output_type)):
        yield breach("MAP_FORGED", name, "takes or gives the entry of a map", "write a message")
    option = _read_tool(method)
    if option is None:
        yield breach("TOOL_OPTION", name, "has no (toolcrib.v1.tool) option", "set effect and scope")
        return
    if not _is_named(options_pb2.Effect, option.effect):
        yield breach("EFFECT", name, "has no effect", "set READ, DRAFT or WRITE")
    if option.reach and not _is_named(options_pb2.Reach, option.reach):
        yield breach("REACH", name, "has an unknown reach", "set INTERNAL or OUTWARD")
    if not (len(option.scope) <= 64 and _SCOPE.fullmatch(option.scope)):
        yield breach(
            "SCOPE", name, 'has no scope of the form "orders.read"', "set one of at most 64 characters"
        )
    if option.access:
        yield breach("ACCESS", name, "sets access, which is for the broker's own services", "remove it")
    yield from find_open_addresses(name, option.reach, method)
    yield from _check_resolution(name, method, option, known)


def _check_resolution(
    name: str,
    method: MethodDescriptor,
    option: options_pb2.ToolOptions,
    known: Mapping[str, MethodDescriptor],
) -> Iterator[Violation]:
    """Check what the contract says about a write in doubt."""
    if option.effect == options_pb2.READ:
        if option.probe:
            yield breach("PROBE_ON_READ", name, "is a READ and has nothing to probe", "remove probe")
        if option.dedupes:
            yield breach("DEDUPES_ON_READ", name, "is a READ, which is never sent again", "remove dedupes")
        return
    probe = _find_probe(name, method, known)
    target = _read_tool(probe) if probe is not None else None
    if not option.probe:
        return
    if probe is None or target is None:
        yield breach(
            "PROBE_UNKNOWN", name, f"names the probe {option.probe}, which is no tool of the same service"
        )
    elif target.effect != options_pb2.READ:
        yield breach("PROBE_NOT_READ", name, f"names the probe {probe.name}, which is not a READ")
    else:
        yield from check_probe(name, method, probe)


def _find_probe(
    name: str, method: MethodDescriptor, known: Mapping[str, MethodDescriptor]
) -> MethodDescriptor | None:
    option = _read_tool(method)
    if option is None or not option.probe:
        return None
    return known.get(f"{name.partition('/')[0]}/{option.probe}")


def _is_named(enum: type, number: int) -> bool:
    return number != 0 and number in enum.DESCRIPTOR.values_by_number  # type: ignore[attr-defined]


def _check_message(message: Descriptor) -> Iterator[Violation]:
    if message.full_name.startswith("google.protobuf."):
        return
    for field in message.fields:
        if _holds_forged_entry(field):
            yield breach("MAP_FORGED", field.full_name, "holds the entry of another map", "write map<K, V>")
        inner = _find_held_type(field)
        if inner is not None and (inner.full_name in _UNBOUNDED or inner.file.name in _NOT_HELD):
            problem = f"is a {inner.full_name}, which has no contract"
            yield breach("UNBOUNDED_TYPE", field.full_name, problem, "write a message")
        for problem in find_misplaced_roles(field):
            yield breach("ROLE_MISPLACED", field.full_name, problem)


def _holds_forged_entry(field: FieldDescriptor) -> bool:
    """Tell whether a field holds a map's entry as if it were a message: what a map is would be in doubt."""
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return False
    return not field.is_repeated or entry.containing_type != field.containing_type


def _find_held_type(field: FieldDescriptor) -> Descriptor | None:
    """Return the message type that a field holds; for a map that of its values."""
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return inner.fields_by_name["value"].message_type
    return inner


def _read_tool(method: MethodDescriptor) -> options_pb2.ToolOptions | None:
    option = read_options(method.GetOptions(), "toolcrib.v1.tool")
    return None if option is None else options_pb2.ToolOptions.FromString(option.SerializeToString())


def _read_terms(name: str, method: MethodDescriptor, comments: Mapping[str, str]) -> ToolTerms:
    option = _read_tool(method)
    assert option is not None, "checked before"
    reach = option.reach or options_pb2.INTERNAL
    return ToolTerms(
        method=name,
        description=comments.get(method.full_name, ""),
        effect=Effect(options_pb2.Effect.Name(option.effect)),
        reach=Reach(options_pb2.Reach.Name(reach)),
        scope=option.scope,
        probe=f"{name.partition('/')[0]}/{option.probe}" if option.probe else "",
        dedupes=option.dedupes,
    )
