"""Whether what Vault holds for Toolcrib is what Toolcrib needs: roles, policies, the token role."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from credentials.errors import Cause
from credentials.policies import TOKEN_ROLE, TOOL_POLICY_PREFIX, tool_policy, tool_policy_name
from credentials.secret import Secret
from credentials.statements import find_statement_problems
from credentials.vault_api import VaultApi, VaultFault


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: where, what, and how to mend it."""

    subject: str
    problem: str
    remedy: str


class RoleCheck:
    """Finds out whether a role's logins can be ended; remembers the good news for a while."""

    def __init__(self, api: VaultApi, remember_seconds: float) -> None:
        self._api = api
        self._remember_seconds = remember_seconds
        self._safe_until: dict[str, float] = {}
        self._lock = Lock()

    def forget(self) -> None:
        """Check every role again at its next use."""
        with self._lock:
            self._safe_until.clear()

    def find_problems(self, session: Secret, role: str) -> list[str]:
        """Return what makes a role unfit; asks Vault when it was not asked lately.

        Raises:
            VaultFault: Vault gave no answer.
        """
        with self._lock:
            if time.monotonic() < self._safe_until.get(role, 0.0):
                return []
        try:
            definition = self._api.read_database_role(session, role)
        except VaultFault as fault:
            if fault.cause is Cause.UNKNOWN:
                return [
                    f"Vault has no database role {role}; write it with the statements of docs/credentials.md"
                ]
            raise
        problems = find_statement_problems(
            definition.get("creation_statements") or (), definition.get("revocation_statements") or ()
        )
        if not problems:
            with self._lock:
                self._safe_until[role] = time.monotonic() + self._remember_seconds
        return problems

    def check(self, session: Secret, roles: Sequence[str]) -> list[Finding]:
        """Check the token role, and each role with its policy, from scratch."""
        self.forget()
        findings = self._check_token_role(session)
        for role in roles:
            findings += self._check_role(session, role)
        return findings

    def _check_token_role(self, session: Secret) -> list[Finding]:
        subject = f"Vault's token role {TOKEN_ROLE}"
        remedy = f"write auth/token/roles/{TOKEN_ROLE} as docs/credentials.md has it"
        try:
            role = self._api.read_token_role(session)
        except VaultFault as fault:
            return [Finding(subject, str(fault), remedy)]
        problems = []
        if role.get("orphan"):
            problems.append("it makes orphans: children would outlive the broker's session")
        if role.get("allowed_policies") or role.get("allowed_policies_glob") != [TOOL_POLICY_PREFIX + "*"]:
            problems.append(f"it allows other policies than {TOOL_POLICY_PREFIX}*")
        return [Finding(subject, problem, remedy) for problem in problems]

    def _check_role(self, session: Secret, role: str) -> list[Finding]:
        try:
            findings = [
                Finding(f"Vault's database role {role}", problem, "mend it as docs/credentials.md has it")
                for problem in self.find_problems(session, role)
            ]
        except VaultFault as fault:
            return [Finding(f"Vault's database role {role}", str(fault), "see that Vault answers")]
        return findings + self._check_policy(session, role)

    def _check_policy(self, session: Secret, role: str) -> list[Finding]:
        subject = f"Vault's policy {tool_policy_name(role)}"
        remedy = f"write it as: {tool_policy(role).strip()}"
        try:
            policy = self._api.read_tool_policy(session, role)
        except VaultFault as fault:
            problem = "it is missing" if fault.cause is Cause.UNKNOWN else str(fault)
            return [Finding(subject, problem, remedy)]
        if " ".join(policy.split()) != " ".join(tool_policy(role).split()):
            return [Finding(subject, "it is not exactly the right to read this one role", remedy)]
        return []
