"""The rules of buf.validate: compiled when a version is loaded, evaluated on every message.

Rules:
1. A rule that does not compile refuses the bundle: the engine is linear (RE2), so a runaway pattern, a
   backreference or a lookaround is found here and not by a caller.
2. A rule that cannot be evaluated is broken.
3. CEL is bounded: the length of an expression, and two comprehensions at most, because each one more
   multiplies the work by the length of a list that the caller chooses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import protovalidate
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tools.descriptors import read_options
from tools.errors import Violation, breach
from tools.shapes import MessageShape
from tools.values import WHOLE

MAX_CEL_CHARACTERS = 1_000
MAX_COMPREHENSIONS = 2

_COMPREHENSION = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne|map|filter|transform\w*)\s*\(")
_RULE_EXTENSION = "buf.validate.field"


def find_broken_rules(
    message: Message, shape: MessageShape, validator: protovalidate.Validator
) -> list[Violation]:
    """Evaluate every rule of a message's contract."""
    try:
        found = validator.collect_violations(message)
    except (protovalidate.CompilationError, protovalidate.EvaluationError) as error:
        return [Violation(WHOLE, f"a rule of the contract could not be evaluated: {error}")]
    return [_translate(violation, shape) for violation in found]


def compile_rules(descriptor: Descriptor, validator: protovalidate.Validator) -> Iterator[Violation]:
    """Compile the rules of one message type, and yield what does not compile or is unbounded."""
    yield from _find_unbounded_cel(descriptor)
    try:
        validator.collect_violations(GetMessageClass(descriptor)())
    except protovalidate.CompilationError as error:
        remedy = "patterns are RE2 without backreferences and lookarounds"
        problem = f"a rule does not compile: {error} ({remedy})"
        yield breach("RULE_BROKEN", descriptor.full_name, problem)
    except protovalidate.EvaluationError as error:
        yield breach("RULE_BROKEN", descriptor.full_name, f"a rule fails on an empty message: {error}")
    except ValueError as error:
        yield breach("FILES_CLASH", descriptor.full_name, f"its rules cannot be read: {error}")


def read_rules(field: FieldDescriptor) -> Any:
    """Read a field's `buf.validate.FieldRules`, or None where it has none."""
    return read_options(field.GetOptions(), _RULE_EXTENSION)


def find_required(descriptor: Descriptor, validator: protovalidate.Validator) -> frozenset[str]:
    """Find the fields, and the oneofs, that a message cannot leave out: those that an empty one breaks."""
    violations = validator.collect_violations(GetMessageClass(descriptor)())
    paths = (list(violation.proto.field.elements) for violation in violations if violation.proto.field)
    return frozenset(path[0].field_name for path in paths if len(path) == 1)


def list_message_rules(descriptor: Descriptor) -> Iterator[str]:
    """Say in words each rule on a message as a whole."""
    rules = read_options(descriptor.GetOptions(), "buf.validate.message")
    if rules is None:
        return
    for rule in rules.cel:
        yield rule.message or rule.id or rule.expression
    yield from rules.cel_expression
    for choice in rules.oneof:
        yield f"{'exactly' if choice.required else 'at most'} one of {', '.join(choice.fields)} can be set"


def _find_unbounded_cel(descriptor: Descriptor) -> Iterator[Violation]:
    for where, expression in _find_cel(descriptor):
        if len(expression) > MAX_CEL_CHARACTERS:
            yield breach(
                "CEL_UNBOUNDED",
                where,
                f"a CEL rule is longer than {MAX_CEL_CHARACTERS} characters",
                "split it",
            )
        if len(_COMPREHENSION.findall(expression)) > MAX_COMPREHENSIONS:
            problem = f"a CEL rule has more than {MAX_COMPREHENSIONS} comprehensions"
            yield breach("CEL_UNBOUNDED", where, problem, "split it")


def _find_cel(descriptor: Descriptor) -> Iterator[tuple[str, str]]:
    whole = read_options(descriptor.GetOptions(), "buf.validate.message")
    if whole is not None:
        yield from ((descriptor.full_name, expression) for expression in _list_cel(whole))
    for field in descriptor.fields:
        rules = read_rules(field)
        for holder in _find_rule_holders(rules):
            yield from ((field.full_name, expression) for expression in _list_cel(holder))


def _find_rule_holders(rules: Any) -> Iterator[Any]:
    if rules is None:
        return
    yield rules
    if rules.HasField("repeated") and rules.repeated.HasField("items"):
        yield from _find_rule_holders(rules.repeated.items)
    if rules.HasField("map"):
        for part in ("keys", "values"):
            if rules.map.HasField(part):
                yield from _find_rule_holders(getattr(rules.map, part))


def _list_cel(holder: Any) -> list[str]:
    return [*(rule.expression for rule in holder.cel), *holder.cel_expression]


def _translate(violation: protovalidate.Violation, shape: MessageShape) -> Violation:
    proto = violation.proto
    elements: Sequence[Any] = proto.field.elements if proto.field else ()
    path = "".join(_format_element(element, first=index == 0) for index, element in enumerate(elements))
    if _is_secret(elements, shape):
        return Violation(path, f"breaks the rule {proto.rule_id}")
    text = proto.message or f"breaks the rule {proto.rule_id}"
    return Violation(path or WHOLE, f"its key {text}" if proto.for_key else text)


def _format_element(element: Any, *, first: bool) -> str:
    name = element.field_name if first else f".{element.field_name}"
    if element.subscript is None:
        return str(name)
    return f"{name}[{json.dumps(element.subscript.value)}]"


def _is_secret(elements: Sequence[Any], shape: MessageShape) -> bool:
    inner: MessageShape | None = shape
    for element in elements:
        item = inner.fields.get(element.field_name) if inner is not None else None
        if item is None:
            return False
        if item.roles.secret:
            return True
        inner = item.message
    return False
