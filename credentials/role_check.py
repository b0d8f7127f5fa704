"""Whether what Vault holds for Toolcrib is what Toolcrib needs: engines, roles, policies, the token role.

It asks as the broker's session, whose rights are enough to read definitions and to read nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from credentials.bootstrap.items import Item, read_if_there
from credentials.engines import ENGINES, SecretsEngine
from credentials.errors import Cause
from credentials.lease import CredentialWanted
from credentials.policies import TOKEN_ROLE, token_role, tool_policy_name
from credentials.secret import Secret
from credentials.vault_api import VaultApi, VaultFault

BOOTSTRAP = "run `toolcrib vault bootstrap --plan` and apply it"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: where, what, and how to mend it.

    Attributes:
        is_warning: It works and is safe, and wants a look.
    """

    subject: str
    problem: str
    remedy: str
    is_warning: bool = False


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
        problems = await engine.find_problems(self._api, session, self._mounts, role)
        if not problems:
            self._safe_until[engine.name, role] = time.monotonic() + self._remember_seconds
        return problems

    async def check(self, session: Secret, wanted: Sequence[CredentialWanted]) -> list[Finding]:
        """Check the token role, and each role with its engine and its policy, from scratch."""
        self.forget()
        try:
            findings = await check_token_role(self._api, session)
        except VaultFault as fault:
            findings = [Finding(f"Vault's token role {TOKEN_ROLE}", str(fault), BOOTSTRAP)]
        for item in wanted:
            try:
                findings += await find_unfit(self._api, session, self._mounts, item)
            except VaultFault as fault:
                subject = f"Vault's {item.engine} role {item.role}"
                findings.append(Finding(subject, str(fault), "see that Vault answers, then look again"))
        return findings


async def check_token_role(api: VaultApi, session: Secret) -> list[Finding]:
    """Compare the token role with ours, field by field.

    Raises:
        VaultFault: Vault gave no answer.
    """
    item = Item(f"Vault's token role {TOKEN_ROLE}", f"auth/token/roles/{TOKEN_ROLE}", token_role())
    current = await item.read(api, session)
    if current is None:
        return [Finding(item.subject, "it is missing: no call gets a credential", BOOTSTRAP)]
    return [
        Finding(item.subject, f"{name} is {before!r} and should be {after!r}", BOOTSTRAP)
        for name, (before, after) in item.compare(current).items()
    ]


async def find_unfit(
    api: VaultApi, session: Secret, mounts: Mapping[str, str], wanted: CredentialWanted
) -> list[Finding]:
    """Say all that is wrong with what one credential needs: the engine; else its role and its policy.

    Raises:
        VaultFault: Vault gave no answer, or does not know the session any more.
    """
    engine = ENGINES[wanted.engine]
    try:
        problem = await find_engine_problem(api, session, engine, mounts)
        if problem:
            return [Finding(f"Vault's engine {engine.name}", problem, BOOTSTRAP)]
        problems = await engine.find_problems(api, session, mounts, wanted.role)
        subject = f"Vault's {engine.name} role {wanted.role}"
        findings = [Finding(subject, text, BOOTSTRAP) for text in problems]
        return findings + await _check_policy(api, session, engine, mounts, wanted.role)
    except VaultFault as fault:
        if fault.cause is not Cause.DENIED or not await api.is_session_alive(session):
            raise
        text = f"the broker's policy does not cover it: {fault}"
        return [Finding(f"Vault's engine {engine.name}", text, BOOTSTRAP)]


async def find_engine_problem(
    api: VaultApi, session: Secret, engine: SecretsEngine, mounts: Mapping[str, str]
) -> str:
    """Say what is wrong with the first bad one of an engine's mounts; "" when nothing is.

    Raises:
        VaultFault: Vault gave no answer, or does not know the session any more.
    """
    for plugin in engine.plugins:
        if problem := await _find_mount_problem(api, session, plugin, mounts[plugin]):
            return problem
    return ""


async def _find_mount_problem(api: VaultApi, session: Secret, plugin: str, mount: str) -> str:
    """Say what is wrong with a mount; "" when nothing is.

    The session may not list mounts. Vault tells everybody the type of a mount in which they have any right,
    and of others not even whether they exist.

    Raises:
        VaultFault: Vault gave no answer, or does not know the session any more.
    """
    try:
        data = await read_if_there(api, session, f"sys/internal/ui/mounts/{mount}") or {}
    except VaultFault as fault:
        if fault.cause is not Cause.DENIED or not await api.is_session_alive(session):
            raise
        return (
            f"Vault has no engine at {mount}/ in which the broker has any right: it is not enabled, this "
            "Vault does not have it, or the broker's policy does not name it"
        )
    version = (data.get("options") or {}).get("version", "1")
    if data.get("type") != plugin:
        return f"what is enabled at {mount}/ is {data.get('type')}, and {plugin} is needed"
    if plugin == "kv" and version != "2":
        return f"what is enabled at {mount}/ is version {version} of kv, and version 2 is needed"
    return ""


async def _check_policy(
    api: VaultApi, session: Secret, engine: SecretsEngine, mounts: Mapping[str, str], role: str
) -> list[Finding]:
    name = tool_policy_name(engine.name, role)
    subject, ours = f"Vault's policy {name}", engine.child_policy(mounts, role)
    current = await read_if_there(api, session, f"sys/policies/acl/{name}")
    if current is None:
        return [Finding(subject, "it is missing", BOOTSTRAP)]
    if " ".join(str(current.get("policy", "")).split()) != " ".join(ours.split()):
        return [Finding(subject, "it is not exactly the right to get this one role", BOOTSTRAP)]
    return []
