"""Advice on methods: what a model, a grant and a person after a crash need to know of one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from tools.advice.subject import Subject, split_words
from tools.contract import Effect
from tools.descriptors import read_options
from tools.errors import Violation, breach
from tools.roles import read_probe_role

_OWN_KEYS = frozenset({("idempotency", "key"), ("idempotency", "token"), ("dedup", "key"), ("dedupe", "key")})
_ZERO = re.compile(r"(?:[A-Z0-9_]+_)?(?:UNSPECIFIED|UNKNOWN|UNSET|NONE)")


def find_uncommented(subject: Subject) -> Iterator[Violation]:
    """Yield methods of which a model knows only the name."""
    for terms, _ in subject.methods():
        if not terms.description:
            yield breach("METHOD_UNCOMMENTED", terms.method, "has no comment")


def find_unresolvable_writes(subject: Subject) -> Iterator[Violation]:
    """Yield what nobody but a person can find out about after a crash."""
    for terms, _ in subject.methods():
        if terms.effect is not Effect.READ and not (terms.probe or terms.dedupes):
            yield breach(
                "WRITE_UNRESOLVABLE",
                terms.method,
                "has neither `probe` nor `dedupes`: after a crash a person has to find out what became of it",
            )


def find_unsaid_reach(subject: Subject) -> Iterator[Violation]:
    """Yield methods of which nobody decided where they reach."""
    for terms, method in subject.methods():
        option = read_options(method.GetOptions(), "toolcrib.v1.tool")
        if option is not None and not option.reach:
            yield breach("REACH_UNSAID", terms.method, "does not say its reach, which is then INTERNAL")


def find_scopes_of_one_word(subject: Subject) -> Iterator[Violation]:
    """Yield scopes that say no verb."""
    for terms, _ in subject.methods():
        if "." not in terms.scope:
            yield breach("SCOPE_FORM", terms.method, f'has the scope "{terms.scope}", which is one word')


def find_shared_scopes(subject: Subject) -> Iterator[Violation]:
    """Yield methods whose scope a READ has too: who may read may write."""
    effects: dict[str, set[Effect]] = {}
    for terms, _ in subject.methods():
        effects.setdefault(terms.scope, set()).add(terms.effect)
    for terms, _ in subject.methods():
        others = effects[terms.scope] - {terms.effect}
        if others and terms.effect is not Effect.READ:
            named = ", ".join(sorted(others))
            yield breach("SCOPE_SHARED", terms.method, f'shares the scope "{terms.scope}" with a {named}')


def find_own_keys(subject: Subject) -> Iterator[Violation]:
    """Yield idempotency keys that the agent would choose, beside the broker's."""
    for terms, method in subject.methods():
        for item in method.input_type.fields:
            words = tuple(split_words(item.name))
            is_key = words[-2:] in _OWN_KEYS and not read_probe_role(item)
            if terms.effect is not Effect.READ and is_key:
                yield breach("KEY_FIELD", item.full_name, "is an idempotency key that the agent can change")


def find_meaning_zeros(subject: Subject) -> Iterator[Violation]:
    """Yield enums whose zero is a choice: leaving the field out makes it."""
    fields = (*subject.request_fields(), *subject.response_fields())
    for enum in _list_enums(fields).values():
        zero = enum.values_by_number.get(0)
        if zero is not None and not _ZERO.fullmatch(zero.name):
            problem = f"has the zero {zero.name}, which leaving the field out means too"
            yield breach("ENUM_ZERO", enum.full_name, problem)


def find_unhandled(subject: Subject) -> Iterator[Violation]:
    """Yield methods that no file of the handler names, neither as they are nor in snake case."""
    texts = [data.decode("utf-8", "replace") for data in subject.files.values()]
    if not texts:
        return
    for terms, _ in subject.methods():
        name = terms.method.rpartition("/")[2]
        spellings = "|".join({name, "_".join(split_words(name)), name[:1].lower() + name[1:]})
        if not any(re.search(rf"(?<![A-Za-z0-9])(?:{spellings})(?![A-Za-z0-9])", text) for text in texts):
            yield breach("METHOD_UNHANDLED", terms.method, "is named by no file of the handler")


def _list_enums(fields: tuple[FieldDescriptor, ...]) -> Mapping[str, EnumDescriptor]:
    return {item.enum_type.full_name: item.enum_type for item in fields if item.enum_type is not None}
