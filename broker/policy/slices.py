"""Asks the engine, about no more policies than a call can be decided by.

Rules:
1. A slice holds the permits whose scope covers the method and may cover the agent, and every forbid whose
   action scope covers the method. An unbound scope covers everything, so such a forbid is in every slice.
2. Leaving out a policy whose scope cannot match changes nothing: scopes are compared before conditions.
3. Requests are checked against the schema. Whatever goes wrong is reported, never skipped.
4. Where no policy of a slice has conditions, only the scope decides: the engine is asked once for a contract,
   an agent and an environment, and what it decided without an error holds for every request of theirs.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cedarpy
from google.protobuf.message import Message

from broker.model import Call
from broker.policy.files import Policy
from broker.policy.schema import ACTION, AGENT, ENVIRONMENT, PolicySchema
from tools.catalogue import ToolVersion
from tools.contract import Amount, Contract, Destination

MAX_DECIDED = 4096
"""Decisions by scope that are kept; beyond it they are all made again."""

_NO_ENTITIES = cedarpy.Entities.from_json_str("[]")
_POLICY = re.compile(r"`policy(\d+)`")


@dataclass(frozen=True)
class Question:
    """What grants are asked: may this agent make this call, there, now?

    Attributes:
        targets: Names of the targets that the tool's manifest wants for the method.
        tool_version: Version of the bundle.
        untrusted: Whether the workflow holds what strangers may have written; True where nobody said.
    """

    agent: str
    environment: str
    contract: Contract
    message: Message
    targets: frozenset[str]
    tool_version: str
    subject: str = ""
    workflow: str = ""
    untrusted: bool = True

    @classmethod
    def of(cls, call: Call, *, untrusted: bool = True) -> Question:
        """Make the question that a call poses."""
        return cls(
            agent=call.caller.name,
            environment=call.environment,
            contract=call.contract,
            message=call.message,
            targets=frozenset(call.version.manifest.method(call.contract.method).targets),
            tool_version=call.version.version,
            subject=call.caller.subject,
            workflow=call.workflow,
            untrusted=untrusted,
        )

    @classmethod
    def about(
        cls, version: ToolVersion, method: str, message: Message, *, agent: str, environment: str
    ) -> Question:
        """Make the question whether an agent may send a checked request to a method of a version."""
        return cls(
            agent=agent,
            environment=environment,
            contract=version.contracts[method],
            message=message,
            targets=frozenset(version.manifest.method(method).targets),
            tool_version=version.version,
        )

    @cached_property
    def amounts(self) -> tuple[Amount, ...]:
        """The request's amounts."""
        return self.contract.amounts(self.message)

    @cached_property
    def destinations(self) -> tuple[Destination, ...]:
        """The request's destinations."""
        return self.contract.destinations(self.message)

    def context(self) -> dict[str, object]:
        """Make Cedar's context; what is empty is absent."""
        context: dict[str, object] = {
            "request": self.contract.policy_view(self.message),
            "tool_version": self.tool_version,
            "untrusted": self.untrusted,
        }
        return context | {k: v for k, v in (("subject", self.subject), ("workflow", self.workflow)) if v}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the engine said.

    Attributes:
        allowed: True for Allow; meaningful only when nothing failed.
        determining: The permits that allow, or the forbids that deny; none for a default deny.
        failed: The policies that could not be evaluated.
        errors: Everything that went wrong, as the engine says it. May hold values of the request.
    """

    allowed: bool
    determining: tuple[Policy, ...] = ()
    failed: tuple[Policy, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slice:
    """Some policies, prepared; the engine numbers them in this order."""

    policies: tuple[Policy, ...]
    handle: cedarpy.PolicySet

    @cached_property
    def has_conditions(self) -> bool:
        """True where a policy looks at more than agent, method and environment in its scope."""
        return any(policy.template.clauses for policy in self.policies)


class PolicySlices:
    """A tenant's policies by method and agent; each slice is prepared once, when it is first asked."""

    def __init__(self, policies: Sequence[Policy], schema: PolicySchema) -> None:
        self._schema = schema
        self._shared: dict[str, list[Policy]] = {method: [] for method in schema.contexts}
        self._own: dict[tuple[str, str], list[Policy]] = defaultdict(list)
        self._prepared: dict[tuple[str, str], Slice] = {}
        self._decided: dict[tuple[Contract, str, str], Evaluation] = {}
        for policy in policies:
            for method in schema.contexts if policy.methods is None else policy.methods:
                if policy.effect == "permit" and policy.agent is not None:
                    self._own[method, policy.agent].append(policy)
                else:
                    self._shared[method].append(policy)

    def find(self, method: str, agent: str) -> Slice:
        """The slice for one method and agent. An agent without permits of its own gets the shared one."""
        key = (method, agent) if (method, agent) in self._own else (method, "")
        if key not in self._prepared:
            policies = (*self._shared.get(method, ()), *self._own.get(key, ()))
            handle = cedarpy.PolicySet.from_str("\n".join(policy.text for policy in policies))
            self._prepared[key] = Slice(policies, handle)
        return self._prepared[key]

    def evaluate(self, question: Question) -> Evaluation:
        """Ask the engine, where it has not said by the scope alone."""
        part = self.find(question.contract.method, question.agent)
        if part.has_conditions:
            return self._ask(question, part)
        asked = question.contract, question.agent, question.environment
        known = self._decided.get(asked)
        if known is not None:
            return known
        evaluation = self._ask(question, part)
        if not evaluation.errors:
            if len(self._decided) >= MAX_DECIDED:
                self._decided.clear()
            self._decided[asked] = evaluation
        return evaluation

    def _ask(self, question: Question, part: Slice) -> Evaluation:
        try:
            request = {
                "principal": {"type": AGENT, "id": question.agent},
                "action": {"type": ACTION, "id": question.contract.method},
                "resource": {"type": ENVIRONMENT, "id": question.environment},
                "context": json.dumps(question.context(), allow_nan=False),
            }
            result = cedarpy.is_authorized(request, part.handle, _NO_ENTITIES, self._schema.handle)
        except (TypeError, ValueError) as error:
            return Evaluation(False, errors=(f"the request cannot be put to the engine: {error}",))
        return _read_result(result, part.policies)


def _read_result(result: cedarpy.AuthzResult, policies: tuple[Policy, ...]) -> Evaluation:
    by_number = {f"policy{number}": policy for number, policy in enumerate(policies)}
    errors = list(result.diagnostics.errors)
    numbers = [f"policy{number}" for error in errors for number in _POLICY.findall(error)]
    if result.decision is cedarpy.Decision.NoDecision and not errors:
        errors = ["the engine made no decision"]
    determining = [by_number[reason] for reason in result.diagnostics.reasons]
    return Evaluation(
        allowed=result.decision is cedarpy.Decision.Allow,
        determining=tuple(sorted(determining, key=lambda policy: policy.id)),
        failed=tuple(by_number[number] for number in dict.fromkeys(numbers) if number in by_number),
        errors=tuple(_POLICY.sub(lambda m: f'"{_id_of(m[0], by_number)}"', error) for error in errors),
    )


def _id_of(quoted: str, by_number: dict[str, Policy]) -> str:
    policy = by_number.get(quoted.strip("`"))
    return policy.id if policy else quoted
