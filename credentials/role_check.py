"""Whether what Vault holds for Toolcrib is what Toolcrib needs: roles, policies, the token role."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from credentials.engines import ENGINES, SecretsEngine
from credentials.errors import Cause
from credentials.lease import CredentialWanted
from credentials.policies import TOKEN_ROLE, TOOL_POLICY_PREFIX, tool_policy_name
from credentials.secret import Secret
from credentials.vault_api import VaultApi, VaultFault

BOOTSTRAP = "run `toolcrib vault bootstrap --plan` and apply it"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: where, what, and how to mend it."""

    subject: str
    problem: str
    remedy: str


class RoleCheck:
    """Finds out whether a role is fit; remembers the good news for a while."""

    def __init__(self, api: VaultApi, mounts: Mapping[str, str], remember_seconds: float) -> None:
        self._api = api
        self._mounts = mounts
        self._remember_seconds = remember_seconds
        self._safe_until: dict[tuple[str, str], float] = {}

    def forget(self) -> None:
        """Check every role again at its next use."""
        self._safe_until.clear()

    async def find_problems(self, session: Secret, engine: SecretsEngine, role: str) -> list[str]:
        """Return what makes a role unfit; asks Vault when it was not asked lately.

        Raises:
            VaultFault: Vault gave no answer.
        """
        if time.monotonic() < self._safe_until.get((engine.name, role), 0.0):
            return []
        problems = await engine.find_problems(self._api, session, self._mounts[engine.plugin], role)
        if not problems:
            self._safe_until[engine.name, role] = time.monotonic() + self._remember_seconds
        return problems

    async def check(self, session: Secret, wanted: Sequence[CredentialWanted]) -> list[Finding]:
        """Check the token role, and each role with its policy, from scratch."""
        self.forget()
        findings = await self._check_token_role(session)
        for item in wanted:
            findings += await self._check_role(session, ENGINES[item.engine], item.role)
        return findings

    async def _check_token_role(self, session: Secret) -> list[Finding]:
        subject = f"Vault's token role {TOKEN_ROLE}"
        try:
            role = await self._api.read_token_role(session)
        except VaultFault as fault:
            return [Finding(subject, str(fault), BOOTSTRAP)]
        problems = []
        if role.get("orphan"):
            problems.append("it makes orphans: children would outlive the broker's session")
        if role.get("allowed_policies") or role.get("allowed_policies_glob") != [TOOL_POLICY_PREFIX + "*"]:
            problems.append(f"it allows other policies than {TOOL_POLICY_PREFIX}*")
        return [Finding(subject, problem, BOOTSTRAP) for problem in problems]

    async def _check_role(self, session: Secret, engine: SecretsEngine, role: str) -> list[Finding]:
        subject = f"Vault's {engine.name} role {role}"
        try:
            problems = await self.find_problems(session, engine, role)
        except VaultFault as fault:
            return [Finding(subject, str(fault), "see that Vault answers and has the engine")]
        findings = [Finding(subject, problem, BOOTSTRAP) for problem in problems]
        return findings + await self._check_policy(session, engine, role)

    async def _check_policy(self, session: Secret, engine: SecretsEngine, role: str) -> list[Finding]:
        name = tool_policy_name(engine.name, role)
        subject, ours = f"Vault's policy {name}", engine.child_policy(self._mounts[engine.plugin], role)
        try:
            policy = await self._api.read_policy(session, name)
        except VaultFault as fault:
            problem = "it is missing" if fault.cause is Cause.UNKNOWN else str(fault)
            return [Finding(subject, problem, BOOTSTRAP)]
        if " ".join(policy.split()) != " ".join(ours.split()):
            return [Finding(subject, "it is not exactly the right to get this one role", BOOTSTRAP)]
        return []
