"""The grants of one tenant, ready to decide: stage 4 of a call's way.

Rules:
1. Default deny; a forbid wins; what could not be evaluated refuses, whatever else would allow.
2. An expired permit counts as absent.
3. A permit allows a call only if its terms cover it: every target that the tool wants, and the currency of
   every amount where amounts are limited.
4. Of several permits one gives the grant: one that needs no asking before one that does, one that trusts the
   call's destinations before one that does not, one that does not narrow the way out before one that does,
   then the first by id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from broker.errors import Refused
from broker.model import Call, Grant, Role
from broker.policy.destinations import (
    FILE_NAME,
    KNOWS_NOTHING,
    Known,
    KnownDestination,
    Registry,
    read_destinations,
)
from broker.policy.files import Policy, digest_files, read_policies
from broker.policy.findings import GrantsInvalid, name_nearest
from broker.policy.rules import find_breadth, find_never_true, find_unknown_names
from broker.policy.schema import PolicySchema, build_schema
from broker.policy.slices import Evaluation, PolicySlices, Question
from toolcrib.v1.reasons_pb2 import Reason
from tools.contract import Contract, Effect
from tools.errors import Violation

__all__ = ["Explanation", "GrantSet", "GrantsInvalid", "Question", "compile_grants"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the grants say to a question, and why.

    Attributes:
        decision: "allow", "ask" (a person has to approve), or "deny".
        grant_ids: Ids of the policies that decided: the grant first, or the forbids.
        errors: What the engine could not evaluate. For reviewers only: may hold values of the request.
        message: Why, for the caller; without values of the request.
        reason: Unspecified unless the decision is "deny".
        grant: What allows the call; None when it is denied.
        unknown_destinations: Fields whose value neither the grant nor the registry knows.
    """

    decision: Literal["allow", "ask", "deny"]
    grant_ids: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    message: str = ""
    reason: Reason = Reason.REASON_UNSPECIFIED
    grant: Grant | None = None
    unknown_destinations: tuple[str, ...] = ()


class GrantSet:
    """A tenant's policies and known destinations, checked and prepared. Never changes.

    It decides by the contracts that it was compiled with: compile again when a tool's contract changes.

    Attributes:
        digest: Names the files.
        policies: By id.
    """

    def __init__(
        self, tenant: str, digest: str, policies: Sequence[Policy], schema: PolicySchema, registry: Registry
    ) -> None:
        self.tenant, self.digest = tenant, digest
        self.policies = tuple(sorted(policies, key=lambda policy: policy.id))
        self.registry = registry
        self._schema = schema
        self._slices = PolicySlices(self.policies, schema)
        self._trusted = {name: registry.trusted(name) for name in schema.environments}

    def authorize(self, call: Call, now: datetime, *, untrusted: bool = True) -> Grant:
        """Find the grant that allows a call.

        Args:
            call: The call.
            now: When it is made.
            untrusted: Whether its workflow holds what strangers may have written.

        Raises:
            Refused: NOT_GRANTED, or POLICY_FAILED where a policy could not be evaluated.
        """
        if call.caller.tenant != self.tenant or call.caller.role is not Role.AGENT:
            raise Refused(Reason.REASON_NOT_GRANTED, "grants are for agents of their own tenant only")
        explanation = self.explain(Question.of(call, untrusted=untrusted), now)
        if explanation.grant is None:
            details = {"policies": ", ".join(explanation.grant_ids)} if explanation.grant_ids else {}
            raise Refused(explanation.reason, explanation.message, details=details)
        return explanation.grant

    def explain(self, question: Question, now: datetime) -> Explanation:
        """Decide a question and say why. Runs nothing and changes nothing."""
        if question.contract.method not in self._schema.contexts:
            return _deny(f"no grant covers {question.contract.method}: the grants do not know this tool")
        if any(amount.minor_units < 0 for amount in question.amounts):
            return _fail(Evaluation(False, errors=("an amount is below 0",)))
        evaluation = self._slices.evaluate(question)
        if evaluation.errors:
            return _fail(evaluation)
        if not evaluation.allowed:
            return self._explain_denial(question, evaluation, now)
        return self._choose(question, evaluation, now)

    def find_permit(self, policy_id: str) -> Policy | None:
        """Find a permit by its id, whether or not it has expired; a forbid of this id is none."""
        found = (policy for policy in self.policies if policy.id == policy_id)
        return next((policy for policy in found if policy.effect == "permit"), None)

    def destinations(self, environment: str) -> Known:
        """Destinations that the tenant's registry knows in one environment; an unknown one has none."""
        return self._trusted.get(environment, KNOWS_NOTHING)

    def _choose(self, question: Question, evaluation: Evaluation, now: datetime) -> Explanation:
        permits = [policy for policy in evaluation.determining if not _is_expired(policy, now)]
        if not permits:
            return self._explain_denial(question, evaluation, now)
        lacking = {policy.id: _find_lacking(policy, question) for policy in permits}
        fitting = [policy for policy in permits if not lacking[policy.id]]
        if not fitting:
            return _deny("; ".join(text for text in lacking.values() if text), *lacking)
        ranked = sorted((self._rank(policy, question), policy.id, policy) for policy in fitting)
        grant = ranked[0][2].terms.grant()
        unknown = self._unknown_destinations(grant, question)
        asks = grant.ask or (unknown and question.contract.effect is not Effect.READ)
        decision: Literal["allow", "ask"] = "ask" if asks else "allow"
        others = (policy_id for _, policy_id, _ in ranked[1:])
        return Explanation(
            decision,
            (grant.grant_id, *others),
            message=grant.ask,
            grant=grant,
            unknown_destinations=unknown,
        )

    def _rank(self, policy: Policy, question: Question) -> tuple[bool, bool, bool]:
        grant = policy.terms.grant()
        asks, unknown = bool(grant.ask), bool(self._unknown_destinations(grant, question))
        return asks, unknown, grant.egress is not None

    def _unknown_destinations(self, grant: Grant, question: Question) -> tuple[str, ...]:
        known = self.destinations(question.environment)
        return tuple(
            found.field
            for found in question.destinations
            if found.value not in grant.destinations and found.value not in known
        )

    def _explain_denial(self, question: Question, evaluation: Evaluation, now: datetime) -> Explanation:
        forbids = [policy.id for policy in evaluation.determining if policy.effect == "forbid"]
        if forbids:
            return _deny(f"forbidden by {_quote(forbids)}", *forbids)
        method, agent = question.contract.method, question.agent
        own = [policy for policy in self._slices.find(method, agent).policies if policy.agent == agent]
        who = f'no grant lets agent "{agent}" call {method} in environment "{question.environment}"'
        causes = [_explain_permit(policy, question, now) for policy in own if policy.effect == "permit"]
        return _deny(f"{who}: {'; '.join(causes)}" if causes else who)


def list_trusted(
    grants: GrantSet, environment: str = "", value: str = ""
) -> Sequence[tuple[str, KnownDestination]]:
    """List what is trusted in destination fields, with what trusts it: the registry, or a grant by its id.

    Args:
        grants: A tenant's.
        environment: Only what holds there; every one where it is empty.
        value: Only what trusts this value, where it is not empty.
    """
    registry = grants.registry
    entries = registry.within(environment) if environment else registry.entries
    found = [(FILE_NAME, entry) for entry in entries]
    for policy in grants.policies:
        if environment and policy.environment not in (None, environment):
            continue
        places = frozenset({policy.environment} if policy.environment else ())
        names = sorted(policy.terms.destinations)
        found += [(policy.id, KnownDestination(name, "", places)) for name in names]
    return [(source, entry) for source, entry in found if not value or entry.covers(value)]


def compile_grants(
    files: Mapping[str, str],
    contracts: Sequence[Contract],
    environments: Sequence[str],
    tenant: str,
    *,
    known_targets: Mapping[str, str] | None = None,
) -> GrantSet:
    """Check a tenant's grant files against its tools and prepare them. No files: everything is refused.

    Args:
        files: Text by name, "NAME.cedar" and "destinations.toml".
        contracts: Of every method that policies may name; several versions of one may be given.
        environments: Names of the broker's environments.
        tenant: Whose grants these are.
        known_targets: Kinds of the operator's targets by name; None to take any name in @targets.

    Raises:
        GrantsInvalid: With every violation, each at its file, line and policy.
    """
    schema = build_schema(contracts, environments)
    policies, violations = read_policies(files)
    violations += _check_policies(policies, schema)
    violations += _check_terms(policies, schema, known_targets)
    registry, wrong = read_destinations(files.get(FILE_NAME, ""), environments)
    violations += wrong
    if violations:
        raise GrantsInvalid(violations)
    return GrantSet(tenant, digest_files(files), policies, schema, registry)


def _check_policies(policies: Sequence[Policy], schema: PolicySchema) -> list[Violation]:
    violations: list[Violation] = []
    known: list[Policy] = []
    for policy in policies:
        problems = find_unknown_names(policy.template, schema)
        known += [] if problems else [policy]
        problems += find_breadth(policy.template)
        problems += [] if policy not in known[-1:] else find_never_true(policy.template, schema)
        violations += [policy.finding(problem) for problem in problems]
    found = schema.validate([policy.text for policy in known]) if known else []
    return violations + [known[number].finding(problem) for number, problem in found]


def _check_terms(
    policies: Sequence[Policy], schema: PolicySchema, known_targets: Mapping[str, str] | None
) -> list[Violation]:
    violations: list[Violation] = []
    for policy in policies:
        unknown = sorted(policy.terms.targets - set(known_targets)) if known_targets is not None else []
        violations += [
            policy.finding(f'@targets: no target "{name}"; {name_nearest(name, known_targets or ())}')
            for name in unknown
        ]
        violations += _check_egress(policy, known_targets or {})
        without = sorted((policy.methods or frozenset()) - schema.with_amounts)
        if policy.terms.currency and without:
            violations.append(policy.finding(f"@limit_amount limits nothing: {without[0]} takes no amount"))
    return violations


def _check_egress(policy: Policy, known_targets: Mapping[str, str]) -> list[Violation]:
    """Refuse rules over requests of a target whose bytes nobody looks into."""
    kinds = {target: known_targets.get(target, "http") for target, _ in policy.terms.egress or ()}
    return [
        policy.finding(f'@egress: "{target}" is of kind {kind}; requests are known of kind http alone')
        for target, kind in sorted(kinds.items())
        if kind != "http"
    ]


def _find_lacking(policy: Policy, question: Question) -> str:
    """What a permit's terms do not cover of a call; empty when they cover it."""
    missing = sorted(question.targets - policy.terms.targets)
    if missing:
        return f'grant "{policy.id}" does not name target {_quote(missing)}'
    currency = policy.terms.currency
    foreign = sorted({amount.field for amount in question.amounts if amount.currency != currency})
    if currency and foreign:
        return f'grant "{policy.id}" limits amounts in {currency} and covers no other currency ({foreign[0]})'
    return ""


def _explain_permit(policy: Policy, question: Question, now: datetime) -> str:
    if _is_expired(policy, now):
        return f'"{policy.id}" has expired'
    if policy.environment not in (None, question.environment):
        return f'"{policy.id}" is for environment "{policy.environment}"'
    return f'the conditions of "{policy.id}" are not met by this request'


def _is_expired(policy: Policy, now: datetime) -> bool:
    return policy.terms.expires is not None and now >= policy.terms.expires


def _deny(message: str, *grant_ids: str) -> Explanation:
    return Explanation("deny", grant_ids, message=message, reason=Reason.REASON_NOT_GRANTED)


def _fail(evaluation: Evaluation) -> Explanation:
    failed = tuple(policy.id for policy in evaluation.failed)
    what = f"policy {_quote(failed)}" if failed else "the request"
    return Explanation(
        "deny",
        failed,
        evaluation.errors,
        f"{what} could not be evaluated, so nothing is allowed; a reviewer has to correct it",
        Reason.REASON_POLICY_FAILED,
    )


def _quote(names: Collection[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
