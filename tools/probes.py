"""Probes: READ methods that tell whether a write happened, by the key that its target got.

    message LookupRefundRequest  { string key = 1 [(toolcrib.v1.field).probe = PROBE_KEY]; }
    message LookupRefundResponse {
      bool issued = 1 [(toolcrib.v1.field).probe = PROBE_HAPPENED];
      IssueRefundResponse refund = 2 [(toolcrib.v1.field).probe = PROBE_RESULT];
    }

The broker asks a probe by itself, after a crash, with nothing but the key. So the request must be valid with
the key alone, and the response must carry what the write would have answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import protovalidate
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from toolcrib.v1 import options_pb2
from tools.errors import Violation, breach
from tools.roles import read_probe_role
from tools.rules import find_broken_rules
from tools.shapes import build_shape

SAMPLE_KEY = "0" * 64
"""Of the form of the keys that targets get: 64 hex digits."""

_IN_REQUEST = (options_pb2.PROBE_KEY,)
_IN_RESPONSE = (options_pb2.PROBE_HAPPENED, options_pb2.PROBE_RESULT)


@dataclass(frozen=True, slots=True)
class ProbeForm:
    """The three fields that make a method a probe, by name."""

    key: str
    happened: str
    result: str


def read_form(method: MethodDescriptor) -> ProbeForm | None:
    """Read the form of a probe; None where the method is none."""
    found = [
        *(_find_fields(method.input_type, role) for role in _IN_REQUEST),
        *(_find_fields(method.output_type, role) for role in _IN_RESPONSE),
    ]
    if any(len(fields) != 1 for fields in found):
        return None
    return ProbeForm(*(fields[0].name for fields in found))


def check_probe(name: str, write: MethodDescriptor, probe: MethodDescriptor) -> Iterator[Violation]:
    """Yield what keeps a method from being the probe of a write."""
    title = f"names the probe {probe.name}, whose"
    for role, message, part in (
        (options_pb2.PROBE_KEY, probe.input_type, "request"),
        (options_pb2.PROBE_HAPPENED, probe.output_type, "response"),
        (options_pb2.PROBE_RESULT, probe.output_type, "response"),
    ):
        count = len(_find_fields(message, role))
        if count != 1:
            role_name = options_pb2.ProbeRole.Name(role)
            problem = f"{title} {part} {message.full_name} has {count} fields {role_name}"
            yield breach("PROBE_FORM", name, problem, "mark exactly one")
    for field in _find_fields(probe.output_type, options_pb2.PROBE_RESULT):
        if field.message_type is not None and field.message_type.full_name != write.output_type.full_name:
            yield breach(
                "PROBE_FORM",
                name,
                f"{title} PROBE_RESULT is a {field.message_type.full_name}",
                f"make it the write's response, {write.output_type.full_name}",
            )


def check_probe_request(
    name: str, probe: MethodDescriptor, validator: protovalidate.Validator
) -> Iterator[Violation]:
    """Yield what a request that holds the key alone lacks. Comes after the rules were compiled."""
    form = read_form(probe)
    if form is None:
        return
    request = GetMessageClass(probe.input_type)()
    setattr(request, form.key, SAMPLE_KEY)
    for broken in find_broken_rules(request, build_shape(probe.input_type, {}), validator):
        yield breach(
            "PROBE_REQUEST",
            name,
            f"names the probe {probe.name}, whose request must be valid with a key of 64 hex digits alone: "
            f"{broken.field} {broken.description}",
        )


def _find_fields(message: Descriptor, role: int) -> list[FieldDescriptor]:
    return [field for field in message.fields if read_probe_role(field) == role]
