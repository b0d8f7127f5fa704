"""The contract of one tool: one gRPC method of one version, prepared once and then asked on every call.

On the path it stands at validate (`parse_request`), authorize (`policy_view`), gate (`destinations`),
reserve (`amounts`) and sanitize (`parse_result`, `open_content`, `check_result`).

Rules:
1. What is parsed is known, in range and satisfies every rule; all violations come at once, by field.
2. What a violation says never holds a value of a `secret` field.
3. A rule that cannot be evaluated is broken.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import protovalidate
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from tools.content.fields import Piece, find_pieces, put_back
from tools.content.formats import clean_content
from tools.errors import MessageMalformed, Violation
from tools.json_form import format_json, read_json
from tools.json_schema import build_json_schema
from tools.policy_view import build_policy_schema, find_hidden, view_message
from tools.probes import read_form
from tools.rules import find_broken_rules
from tools.shapes import Concern, MessageShape, build_shape
from tools.values import (
    WHOLE,
    Amount,
    Destination,
    check_values,
    collect_amounts,
    collect_destinations,
    collect_named,
    encode_canonical,
    raise_violations,
)

__all__ = ["Amount", "Contract", "Destination", "Effect", "Prepared", "Reach", "ToolTerms"]


class Effect(enum.StrEnum):
    """What a call does to the world."""

    READ = "READ"
    DRAFT = "DRAFT"
    WRITE = "WRITE"


class Reach(enum.StrEnum):
    """Where a call reaches."""

    INTERNAL = "INTERNAL"
    OUTWARD = "OUTWARD"


@dataclass(frozen=True, slots=True)
class ToolTerms:
    """What `(toolcrib.v1.tool)` and the comment above the method say.

    Attributes:
        method: Without the leading slash, for example "shop.v1.Orders/IssueRefund".
        probe: Method of the same form that tells whether a write happened; empty when there is none.
        dedupes: The target promises to do a write once for one idempotency key.
    """

    method: str
    description: str
    effect: Effect
    reach: Reach
    scope: str
    probe: str = ""
    dedupes: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the contracts of one version share.

    Attributes:
        validator: Has compiled the rules of every type.
        comments: The comment above each message and field, by full name.
        shapes: The message types prepared so far, by full name.
    """

    validator: protovalidate.Validator
    comments: Mapping[str, str]
    shapes: dict[str, MessageShape] = field(default_factory=dict)


class Contract:
    """One method's terms and message types.

    Attributes:
        method: Without the leading slash, for example "shop.v1.Orders/IssueRefund".
        description: The comment above the method.
        effect, reach, scope: What the method's option says.
        probe: Full method name of the probe; empty when there is none.
        dedupes: A write in doubt may be sent again with the same key.
        request_json_schema, response_json_schema: Draft 2020-12.
        policy_hidden: Paths of request fields that policies cannot see.
        untrusted: True where the response has a field that strangers fill.
        names_destinations: True where the response has a field that is a destination.
    """

    def __init__(
        self,
        terms: ToolTerms,
        descriptor: MethodDescriptor,
        prepared: Prepared,
    ) -> None:
        self.terms = terms
        self.method, self.description = terms.method, terms.description
        self.effect, self.reach = terms.effect, terms.reach
        self.scope, self.probe, self.dedupes = terms.scope, terms.probe, terms.dedupes
        self.request_descriptor: Descriptor = descriptor.input_type
        self.response_descriptor: Descriptor = descriptor.output_type
        self._validator, self._comments = prepared.validator, prepared.comments
        self._form = read_form(descriptor)
        self._request = build_shape(self.request_descriptor, prepared.shapes)
        self._response = build_shape(self.response_descriptor, prepared.shapes)
        self.request_json_schema = build_json_schema(self._request, prepared.validator, prepared.comments)
        self.response_json_schema = build_json_schema(self._response, prepared.validator, prepared.comments)
        self.policy_hidden = tuple(find_hidden(self._request))
        self.untrusted = bool(self._response.visits[Concern.UNTRUSTED])
        self.names_destinations = bool(self._response.visits[Concern.DESTINATIONS])

    @cached_property
    def strict_request_json_schema(self) -> str:
        """The schema of requests in the strict form: see tools/json_schema.py. Few ask for it."""
        return build_json_schema(self._request, self._validator, self._comments, strict=True)

    def parse_request(self, raw_input: bytes) -> Message:
        """Decode and check a request.

        Raises:
            MessageMalformed: The bytes are no message of the type.
            UnknownFields: It has fields or enum numbers of another version.
            MessageInvalid: It breaks rules; every violation at once.
        """
        return self._parse(raw_input, self._request)

    def parse_request_json(self, text: str) -> Message:
        """Decode and check a request in JSON: the same checks, and one spelling for each field.

        Raises:
            MessageMalformed: The text is no JSON object.
            UnknownFields: It has names that the type does not know.
            MessageInvalid: A value has the wrong type or breaks a rule.
        """
        return self._parse_json(text, self._request)

    def canonical(self, message: Message) -> bytes:
        """Encode a checked message: the bytes that the tool gets and that the digest covers."""
        return encode_canonical(message)

    def destinations(self, message: Message) -> tuple[Destination, ...]:
        """Collect the non-empty destinations of a checked request."""
        return collect_destinations(message, self._request)

    def amounts(self, message: Message) -> tuple[Amount, ...]:
        """Collect the amounts of a checked request."""
        return collect_amounts(message, self._request)

    def policy_view(self, message: Message) -> dict[str, object]:
        """Make the record that policies see of a checked request."""
        return view_message(message, self._request)

    def policy_schema(self) -> dict[str, object]:
        """Build the Cedar record type of `policy_view`, in Cedar's JSON schema form."""
        return build_policy_schema(self._request)

    def parse_result(self, raw_output: bytes) -> Message:
        """Decode and check what a handler gave back.

        Raises:
            MessageMalformed: The bytes are no message of the type.
            UnknownFields: It has fields or enum numbers of another version.
            MessageInvalid: It breaks rules; every violation at once.
        """
        return self._parse(raw_output, self._response)

    def parse_result_json(self, text: str) -> Message:
        """Decode and check a result that a person gives in JSON.

        Raises:
            MessageMalformed: The text is no JSON object.
            UnknownFields: It has names that the type does not know.
            MessageInvalid: A value has the wrong type or breaks a rule.
        """
        return self._parse_json(text, self._response)

    def probe_request(self, key: str) -> Message:
        """Make the request that asks this probe about the write that got `key`.

        Raises:
            MessageInvalid: It breaks a rule of the contract.
        """
        assert self._form is not None, "registration accepts no other probe"
        message = GetMessageClass(self.request_descriptor)()
        setattr(message, self._form.key, key)
        self._check(message, self._request)
        return message

    def read_probe(self, message: Message) -> tuple[bool, bytes | None]:
        """Read this probe's checked answer.

        Returns:
            Whether the write happened, and the canonical bytes of the write's response; None where the
            answer holds none.
        """
        assert self._form is not None, "registration accepts no other probe"
        if not getattr(message, self._form.happened):
            return False, None
        if not message.HasField(self._form.result):
            return True, None
        return True, encode_canonical(getattr(message, self._form.result))

    def open_content(self, message: Message) -> tuple[Message, list[Piece]]:
        """Copy a checked result, and find the untrusted strings of the copy, to be cleaned and put back."""
        copy = type(message)()
        copy.CopyFrom(message)
        return copy, list(find_pieces(copy, self._response))

    def check_result(self, message: Message) -> None:
        """Check a result that was changed.

        Raises:
            MessageInvalid: It breaks rules; every violation at once.
        """
        self._check(message, self._response)

    def sanitize_result(self, message: Message) -> tuple[Message, tuple[str, ...]]:
        """Clean the untrusted fields of a checked result, in this process: for one that no broker serves.

        Returns:
            A cleaned copy, and a line for each field that lost something, for example
            "order.customer.note: 2 bidirectional, 1 tag".

        Raises:
            ContentInvalid: A field is not of its format, or over one of its bounds.
            MessageInvalid: Cleaning broke a rule.
        """
        copy, pieces = self.open_content(message)
        report = put_back(pieces, [clean_content(piece.form, piece.text) for piece in pieces])
        if report:
            self.check_result(copy)
        return copy, report

    def result_destinations(self, raw: bytes) -> tuple[str, ...]:
        """Collect the destinations that a stored result names and vouches for."""
        if not self.names_destinations:
            return ()
        return collect_named(_decode(raw, self._response), self._response)

    def result_json(self, raw: bytes) -> str:
        """Format a stored result as JSON of the response type.

        Raises:
            MessageMalformed: The bytes are no message of the type.
        """
        return format_json(_decode(raw, self._response))

    def _parse_json(self, text: str, shape: MessageShape) -> Message:
        reading = read_json(text, shape)
        if not reading.found:
            self._check(reading.message, shape)
            return reading.message
        broken = find_broken_rules(reading.message, shape, self._validator)
        others = [violation for violation in broken if not reading.tells(violation.field)]
        raise_violations(reading.unknown, [*reading.invalid, *others])
        raise AssertionError("a reading with violations raised none")

    def _parse(self, raw: bytes, shape: MessageShape) -> Message:
        message = _decode(raw, shape)
        self._check(message, shape)
        return message

    def _check(self, message: Message, shape: MessageShape) -> None:
        check_values(message, shape, find_broken_rules(message, shape, self._validator))


def _decode(raw: bytes, shape: MessageShape) -> Message:
    message = GetMessageClass(shape.descriptor)()
    try:
        message.ParseFromString(raw)
    except DecodeError as error:
        raise MessageMalformed([Violation(WHOLE, f"the bytes are no {shape.full_name}")]) from error
    return message
