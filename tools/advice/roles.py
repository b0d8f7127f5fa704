"""Advice on roles: what a field's name or rule says it is, and its options do not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from tools.advice.subject import Subject, holds_text, is_map, list_fields, split_words
from tools.contract import Effect, Reach, ToolTerms
from tools.errors import Violation, breach
from tools.outward import find_address_rule, is_request_address
from tools.roles import Roles, is_amount, read_probe_role, read_roles
from tools.rules import read_rules

_PLACES = frozenset(
    {
        "url",
        "uri",
        "href",
        "link",
        "webhook",
        "callback",
        "host",
        "hostname",
        "domain",
        "endpoint",
        "iban",
    }
)
"""Words of what is reached over a network or by a bank: suspicious in any method."""
_PARTIES = frozenset(
    {
        "to",
        "cc",
        "bcc",
        "email",
        "mail",
        "recipient",
        "recipients",
        "address",
        "addresses",
        "account",
        "phone",
        "mobile",
        "channel",
        "payee",
    }
)
"""Words of who is reached: a READ looks things up by them."""
_MONEY = frozenset(
    {
        "amount",
        "price",
        "cents",
        "cost",
        "fee",
        "balance",
        "salary",
        "micros",
    }
)
_SECRETS = frozenset(
    {
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "otp",
        "cvv",
        "credential",
        "credentials",
    }
)
_SECRET_PAIRS = (("api", "key"), ("private", "key"), ("access", "key"), ("secret", "key"), ("signing", "key"))
_NO_SECRETS = frozenset({"page", "next", "continuation", "sync", "count", "tokens"})
_STRANGERS = frozenset(
    {
        "body",
        "content",
        "contents",
        "note",
        "notes",
        "comment",
        "comments",
        "message",
        "messages",
        "text",
        "description",
        "subject",
        "html",
        "markdown",
        "summary",
        "snippet",
        "excerpt",
        "reply",
        "review",
        "bio",
        "caption",
        "remark",
        "remarks",
        "feedback",
        "transcript",
    }
)
_NUMBERS = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
    FieldDescriptor.CPPTYPE_FLOAT,
    FieldDescriptor.CPPTYPE_DOUBLE,
)


def find_unmarked_destinations(subject: Subject) -> Iterator[Violation]:
    """Yield arguments that say who or what is reached and are not gated."""
    for terms, method in subject.methods():
        for item in list_fields(method.input_type):
            if not _is_plain_text(item) or is_request_address(terms, item):
                continue  # the latter is refused at registration
            reason = _find_direction(terms, item)
            if reason:
                yield breach("DESTINATION_UNMARKED", item.full_name, f"{reason}, and is no destination")


def find_ungated_methods(subject: Subject) -> Iterator[Violation]:
    """Yield OUTWARD methods without any destination."""
    for terms, method in subject.methods():
        if terms.reach is Reach.OUTWARD and not _has_destination(method):
            yield breach("OUTWARD_WITHOUT_DESTINATION", terms.method, "reaches out, and has no destination")


def find_unmarked_untrusted(subject: Subject) -> Iterator[Violation]:
    """Yield strings of responses that are likely to hold what strangers wrote."""
    for item in subject.response_fields():
        words = split_words(item.name)
        if _is_plain_text(item) and words and words[-1] in _STRANGERS and not _is_closed(item):
            problem = (
                f"is likely to hold what somebody wrote, by its name ({words[-1]}), and is not untrusted"
            )
            yield breach("UNTRUSTED_UNMARKED", item.full_name, problem)


def find_unmarked_secrets(subject: Subject) -> Iterator[Violation]:
    """Yield arguments that are secrets by their name."""
    for item in subject.request_fields():
        if _is_plain_text(item) and not read_probe_role(item) and _sounds_secret(item.name):
            yield breach("SECRET_UNMARKED", item.full_name, "is a secret by its name, and is not marked so")


def find_told_secrets(subject: Subject) -> Iterator[Violation]:
    """Yield secrets of responses: an agent would get them."""
    for item in subject.response_fields():
        if read_roles(item).secret or (holds_text(item) and _sounds_secret(item.name)):
            yield breach("SECRET_IN_RESPONSE", item.full_name, "is a secret in a response")


def find_bare_amounts(subject: Subject) -> Iterator[Violation]:
    """Yield numbers that are amounts by their name and have no currency."""
    fields = {item.full_name: item for item in (*subject.request_fields(), *subject.response_fields())}
    for name, item in fields.items():
        words = split_words(item.name)
        is_money = bool(_MONEY & set(words)) or words[-2:] == ["minor", "units"]
        if item.cpp_type in _NUMBERS and is_money and not is_amount(item.containing_type):
            yield breach("AMOUNT_WITHOUT_CURRENCY", name, "is an amount by its name, and has no currency")


def find_uncounted_amounts(subject: Subject) -> Iterator[Violation]:
    """Yield amounts of requests that no budget counts."""
    for item in subject.request_fields():
        if is_amount(item.message_type) and not read_roles(item).amount:
            yield breach("AMOUNT_UNMARKED", item.full_name, "has the form of an amount, and is not marked so")


def _is_plain_text(item: FieldDescriptor) -> bool:
    return holds_text(item) and read_roles(item) == Roles() and not read_probe_role(item)


def _find_direction(terms: ToolTerms, item: FieldDescriptor) -> str:
    """Say what tells that an argument is a destination; empty for nothing."""
    rule = find_address_rule(item)
    words = set(split_words(item.name))
    acts = terms.effect is not Effect.READ or terms.reach is Reach.OUTWARD
    suspicious = words & (_PLACES | _PARTIES if acts else _PLACES)
    if rule and (acts or suspicious):
        return f"is an address by its rule ({rule})"
    if suspicious and not _is_closed(item):
        return f"says who or what is reached, by its name ({min(suspicious)})"
    return ""


def _has_destination(method: MethodDescriptor) -> bool:
    return any(read_roles(item).destination for item in list_fields(method.input_type))


def _is_closed(item: FieldDescriptor) -> bool:
    """Tell whether a string can only be one of a few that the contract names."""
    rules = None if is_map(item) else read_rules(item)
    if rules is None:
        return False
    string = rules.repeated.items.string if item.is_repeated else rules.string
    return bool(string.HasField("const") or getattr(string, "in") or string.HasField("uuid"))


def _sounds_secret(name: str) -> bool:
    words = split_words(name)
    if _NO_SECRETS & set(words):
        return False
    pairs = list(itertools.pairwise(words))
    return bool(_SECRETS & set(words)) or any(pair in pairs for pair in _SECRET_PAIRS)
