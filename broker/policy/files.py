"""Grant files: NAME.cedar and destinations.toml, read into policies, named by a digest, compared as a plan.

Reading needs no tools: it finds what is wrong with the text itself. Whether the policies fit the tools is
found by `broker.policy.grants.compile_grants`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import cedarpy
from cedarpy import pst

from broker.policy.annotations import Terms, read_terms
from broker.policy.destinations import FILE_NAME
from broker.policy.findings import GrantsInvalid, finding
from broker.policy.rules import bound_names, covered_methods, named_in_scope
from broker.policy.statements import Statement, split_statements
from tools.errors import Violation

MAX_FILES = 200
MAX_CHARACTERS = 2 * 1024 * 1024
MAX_POLICIES = 5000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.cedar")
_NAMED_TOKEN = re.compile(r"`([^`]+)`|: (\w+)$")


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy as it stands in a file: a permit, which grants, or a forbid, which wins over permits."""

    statement: Statement
    template: pst.Template
    terms: Terms

    @property
    def id(self) -> str:
        """The policy's @id."""
        return self.terms.id

    @property
    def effect(self) -> pst.Effect:
        """What it does: "permit" or "forbid"."""
        return self.template.effect

    @property
    def text(self) -> str:
        """The policy's own text, without the comments above it."""
        return self.statement.text

    @property
    def file(self) -> str:
        """Name of the file that it stands in."""
        return self.statement.file

    @property
    def methods(self) -> frozenset[str] | None:
        """Methods that its scope covers; None for every method."""
        return covered_methods(self.template)

    @property
    def agent(self) -> str | None:
        """The one agent that its scope is bound to; None when the scope leaves it open."""
        return named_in_scope(self.template.principal)

    @property
    def environment(self) -> str | None:
        """The one environment that its scope is bound to; None when the scope leaves it open."""
        return named_in_scope(self.template.resource)

    @property
    def agents(self) -> frozenset[str] | None:
        """The agents that scope and conditions name; None when it names none, and so covers all."""
        return bound_names(self.template, "principal")

    @property
    def environments(self) -> frozenset[str] | None:
        """The environments that scope and conditions name; None when it names none, and so covers all."""
        return bound_names(self.template, "resource")

    @property
    def conditions(self) -> str:
        """Its `when` and `unless` clauses as they stand in the file; empty where it has none."""
        return self.statement.conditions

    def finding(self, description: str) -> Violation:
        """Make a violation at this policy."""
        return finding(self.statement.place, description, self.id)


@dataclass(frozen=True, slots=True)
class Change:
    """What applying files would do to one policy, or to the registry (id "destinations")."""

    kind: Literal["ADD", "REMOVE", "REPLACE"]
    id: str
    before: str = ""
    after: str = ""


def read_policies(files: Mapping[str, str]) -> tuple[list[Policy], list[Violation]]:
    """Read every policy of some files, with every violation of their text at once."""
    statements, violations = _split(files)
    if len(statements) > MAX_POLICIES:
        found = f"{len(statements)} policies; at most {MAX_POLICIES} are allowed"
        return [], [*violations, finding("grant files", found)]
    policies: list[Policy] = []
    for statement in statements:
        policy, found_here = _read_policy(statement)
        policies += [policy] if policy else []
        violations += found_here
    return policies, violations + _find_repeated_ids(policies)


def digest_files(files: Mapping[str, str]) -> str:
    """Name files by their content, whatever their order: SHA-256, hex. No files have an empty digest."""
    if not files:
        return ""
    digest = hashlib.sha256()
    for name, text in sorted(files.items()):
        for part in (name.encode(), text.encode()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def diff_grants(old_files: Mapping[str, str], new_files: Mapping[str, str]) -> list[Change]:
    """Say what replacing the old files changes, by policy id; layout and comments do not count.

    The old files need not check any more; what cannot be read in them is compared as text.

    Raises:
        GrantsInvalid: The new files cannot be read.
    """
    new_policies, violations = read_policies(new_files)
    if violations:
        raise GrantsInvalid(violations)
    before, after = _by_id(old_files), {policy.id: policy for policy in new_policies}
    changes = [_change(key, before.get(key), after.get(key)) for key in sorted(before.keys() | after.keys())]
    return [*(change for change in changes if change), *_diff_destinations(old_files, new_files)]


def _split(files: Mapping[str, str]) -> tuple[list[Statement], list[Violation]]:
    size = sum(map(len, files.values()))
    if len(files) > MAX_FILES or size > MAX_CHARACTERS:
        problem = f"{len(files)} files, {size} characters; allowed are {MAX_FILES} and {MAX_CHARACTERS}"
        return [], [finding("grant files", problem)]
    statements: list[Statement] = []
    violations: list[Violation] = []
    for name, text in sorted(files.items()):
        if _NAME.fullmatch(name):
            found, wrong = split_statements(name, text)
            statements += found
            violations += wrong
        elif name != FILE_NAME:
            violations.append(finding(name, f"is no grant file; name it NAME.cedar or {FILE_NAME}"))
    return statements, violations


def _read_policy(statement: Statement) -> tuple[Policy | None, list[Violation]]:
    try:
        parsed = cedarpy.policies_to_pst(statement.text)
    except ValueError as error:
        return None, [_explain_syntax(statement, str(error))]
    if parsed.templates or len(parsed.static_policies) != 1:
        return None, [finding(statement.place, "has a slot (?principal or ?resource); write the name itself")]
    (template,) = parsed.static_policies.values()
    terms, problems = read_terms(template.annotations, template.effect)
    policy = Policy(statement, template, terms)
    return policy, [policy.finding(problem) for problem in problems]


def _explain_syntax(statement: Statement, message: str) -> Violation:
    if "nesting exceeds" in message:
        problem = "conditions are nested more than 100 deep; write several `when { }` or several policies"
        return finding(statement.place, problem)
    token = _NAMED_TOKEN.search(message)
    word = next((group for group in token.groups() if group), "") if token else ""
    place = statement.place_of(word) if word else statement.place
    return finding(place, f"is not Cedar: {message}; correct the policy that begins at {statement.place}")


def _find_repeated_ids(policies: Iterable[Policy]) -> list[Violation]:
    first: dict[str, Policy] = {}
    violations = []
    for policy in policies:
        earlier = first.setdefault(policy.id, policy)
        if policy.id and earlier is not policy:
            violations.append(
                policy.finding(f"its @id is taken by {earlier.statement.place}; give each policy its own")
            )
    return violations


def _by_id(files: Mapping[str, str]) -> dict[str, Policy | Statement]:
    found: dict[str, Policy | Statement] = {}
    for statement in _split(files)[0]:
        policy, _ = _read_policy(statement)
        known = policy is not None and policy.id and policy.id not in found
        found[policy.id if policy and known else statement.place] = policy or statement
    return found


def _change(key: str, before: Policy | Statement | None, after: Policy | None) -> Change | None:
    if before is None:
        return Change("ADD", key, after=after.text if after else "")
    if after is None:
        return Change("REMOVE", key, before=before.text)
    if isinstance(before, Policy) and _meaning(before) == _meaning(after):
        return None
    return Change("REPLACE", key, before.text, after.text)


def _meaning(policy: Policy) -> pst.Template:
    return replace(policy.template, id="")


def _diff_destinations(old_files: Mapping[str, str], new_files: Mapping[str, str]) -> list[Change]:
    before, after = old_files.get(FILE_NAME, ""), new_files.get(FILE_NAME, "")
    if before.strip() == after.strip():
        return []
    kind: Literal["ADD", "REMOVE", "REPLACE"] = (
        "REPLACE" if before and after else "ADD" if after else "REMOVE"
    )
    return [Change(kind, "destinations", before, after)]
