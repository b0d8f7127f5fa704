"""The Cedar schema, made from the tools' contracts: what policies may name, and of which type.

    principal   Agent::"<name>"              from the caller's certificate
    action      Action::"<service>/<method>"
    resource    Environment::"<name>"        one of the broker's
    context     {request: <the contract's policy view>, subject?, workflow?, tool_version, untrusted}

Rules:
1. The same schema checks files (so a typo is an error) and every request (so a view that does not fit is no
   decision, and no decision is a refusal).
2. Two versions of one method are one action: what only one of them has is optional.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cedarpy
from google.protobuf.descriptor import Descriptor

from broker.policy.findings import GrantsInvalid, finding, name_nearest
from tools.contract import Contract
from tools.roles import read_roles

AGENT, ACTION, ENVIRONMENT = "Agent", "Action", "Environment"

_TEXT = {"type": "String", "required": True}
_TRUTH = {"type": "Boolean", "required": True}
_OPTIONAL_TEXT = {"type": "String", "required": False}
_POLICY_NUMBER = re.compile(r"policy(\d+)")
_FOR_ACTION = re.compile(r' in context for Action::"(?P<action>[^"]+)"')
_OPTIONAL = re.compile(r"access to optional attribute `(?P<path>[^`]+)`")
_NOT_FOUND = re.compile(r"^attribute `(?P<path>[^`]+)`.* not found$")
_NO_ACTION = "unable to find an applicable action"

Type = Mapping[str, object]


class TypesConflict(Exception):
    """Two versions of a method give one field different types; the text is the field's path."""


@dataclass(frozen=True, slots=True)
class PolicySchema:
    """What policies of one tenant may name.

    Attributes:
        handle: The engine's own form of it.
        contexts: Record type of `context`, by method.
        hidden: Paths of request fields that policies cannot see, by method.
        environments: Names of the broker's environments.
        with_amounts: Methods whose request has an amount.
    """

    handle: cedarpy.Schema
    contexts: Mapping[str, Type]
    hidden: Mapping[str, tuple[str, ...]]
    environments: tuple[str, ...]
    with_amounts: frozenset[str]

    def attributes(self, method: str, path: Sequence[str]) -> frozenset[str]:
        """Names under a path of one method's context, for example ("request", "amount")."""
        node: Type = self.contexts[method]
        for step in path:
            node = _attributes(node).get(step, {})
        return frozenset(_attributes(node))

    def validate(self, texts: Sequence[str]) -> list[tuple[int, str]]:
        """Check policies against the schema: (number of the policy, what is wrong and the remedy)."""
        result = cedarpy.validate_policies("\n".join(texts), self.handle, release_gil=True)
        problems: dict[tuple[int, str], list[str]] = {}
        for error in result.errors:
            number = _POLICY_NUMBER.fullmatch(error.policy_id)
            place = int(number[1]) if number else 0
            message = error.error.removeprefix(f"for policy `{error.policy_id}`").lstrip(":, ")
            found = _FOR_ACTION.search(message)
            key = (place, _FOR_ACTION.sub("", message))
            problems.setdefault(key, []).extend([found["action"]] if found else [])
        if not result.validation_passed and not problems:
            problems[0, "the policies do not fit the schema"] = []
        return [(place, self._explain(text, methods)) for (place, text), methods in problems.items()]

    def _explain(self, text: str, methods: Sequence[str]) -> str:
        where = f" (in {', '.join(methods[:3])}{', …' if len(methods) > 3 else ''})" if methods else ""
        optional, missing = _OPTIONAL.search(text), _NOT_FOUND.match(text)
        if optional:
            path, _, name = f"context.{optional['path']}".rpartition(".")
            return f"`{optional['path']}` may be absent{where}; write `{path} has {name} && …` before it"
        if missing and methods:
            return f"`{missing['path']}` is not there{where}; {self._nearest_path(missing['path'], methods)}"
        if text.startswith(_NO_ACTION):
            return f"no call fits the scope; principal must be an {AGENT}, resource an {ENVIRONMENT}"
        return f"{text}{where}; correct the condition"

    def _nearest_path(self, path: str, methods: Sequence[str]) -> str:
        steps = path.split(".")
        if any(path == f"request.{hidden}" for method in methods for hidden in self.hidden.get(method, ())):
            return "the tool has it, but policies cannot see it (float, bytes, map, recursive or secret)"
        known = {method: self.attributes(method, steps[:-1]) for method in self.contexts}
        if any(steps[-1] in names for names in known.values()):
            return f"other tools have it: guard it with `has {steps[-1]}`, or let the scope name those tools"
        return name_nearest(steps[-1], {name for method in methods for name in known[method]})


def build_schema(contracts: Sequence[Contract], environments: Sequence[str]) -> PolicySchema:
    """Make the schema of one tenant's tools.

    Raises:
        GrantsInvalid: Two versions of a method disagree about a field's type.
    """
    requests: dict[str, Type] = {}
    hidden: dict[str, tuple[str, ...]] = {}
    for contract in contracts:
        view: Type = contract.policy_schema()
        known = requests.get(contract.method)
        try:
            requests[contract.method] = merge_types(known, view, "request") if known else view
        except TypesConflict as error:
            problem = f"two versions of the tool give `{error}` different types; make both versions agree"
            raise GrantsInvalid([finding(contract.method, problem)]) from error
        hidden[contract.method] = (*hidden.get(contract.method, ()), *contract.policy_hidden)
    contexts = {method: _context(view) for method, view in requests.items()}
    handle = cedarpy.Schema.from_json_str(json.dumps({"": _namespace(contexts, environments)}))
    with_amounts = frozenset(c.method for c in contracts if _holds_amount(c.request_descriptor))
    return PolicySchema(handle, contexts, hidden, tuple(environments), with_amounts)


def merge_types(first: Type, second: Type, path: str) -> Type:
    """Make the type that values of both types have; a record's field of only one side becomes optional.

    Raises:
        TypesConflict: There is none.
    """
    if first["type"] != second["type"]:
        raise TypesConflict(path)
    merged: dict[str, object] = dict(first)
    if first["type"] == "Record":
        merged["attributes"] = _merge_attributes(_attributes(first), _attributes(second), path)
    if first["type"] == "Set":
        merged["element"] = merge_types(_element(first), _element(second), f"{path}[]")
    return merged


def _merge_attributes(first: Mapping[str, Type], second: Mapping[str, Type], path: str) -> dict[str, Type]:
    merged: dict[str, Type] = {}
    for name in [*first, *(name for name in second if name not in first)]:
        if name in first and name in second:
            required = _required(first[name]) and _required(second[name])
            merged[name] = {**merge_types(first[name], second[name], f"{path}.{name}"), "required": required}
        else:
            merged[name] = {**(first.get(name) or second[name]), "required": False}
    return merged


def _holds_amount(request: Descriptor) -> bool:
    seen, pending = {request.full_name}, [request]
    while pending:
        for field in pending.pop().fields:
            if read_roles(field).amount:
                return True
            if field.message_type is not None and field.message_type.full_name not in seen:
                seen.add(field.message_type.full_name)
                pending.append(field.message_type)
    return False


def _required(node: Type) -> bool:
    return node.get("required", True) is not False


def _element(node: Type) -> Type:
    element = node.get("element")
    return element if isinstance(element, Mapping) else {"type": ""}


def _attributes(node: Type) -> Mapping[str, Type]:
    attributes = node.get("attributes")
    return attributes if isinstance(attributes, Mapping) else {}


def _context(view: Type) -> Type:
    attributes = {
        "request": {**view, "required": True},
        "subject": _OPTIONAL_TEXT,
        "workflow": _OPTIONAL_TEXT,
        "tool_version": _TEXT,
        "untrusted": _TRUTH,
    }
    return {"type": "Record", "attributes": attributes}


def _namespace(contexts: Mapping[str, Type], environments: Sequence[str]) -> dict[str, object]:
    applies = {"principalTypes": [AGENT], "resourceTypes": [ENVIRONMENT]}
    return {
        "entityTypes": {AGENT: {}, ENVIRONMENT: {"enum": sorted(environments)} if environments else {}},
        "actions": {method: {"appliesTo": {**applies, "context": view}} for method, view in contexts.items()},
    }
