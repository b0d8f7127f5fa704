"""Whether Vault has what a bundle's credentials need, asked before the bundle is registered.

A tool whose credential cannot be minted, or could not be ended, is refused here and not at its first call.
Fail closed: while Vault does not answer, a bundle that wants credentials is not registered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from broker.errors import Refused
from credentials.errors import CredentialsError
from credentials.lease import CredentialWanted
from credentials.role_check import check_token_role, find_unfit
from credentials.secret import Secret
from credentials.vault_api import VaultApi
from toolcrib.v1.reasons_pb2 import Reason
from tools.errors import Violation
from tools.manifest import Manifest

Work = Callable[[VaultApi, Secret], Awaitable[list[Violation]]]


class Asker(Protocol):
    """A session that can make requests with its own token."""

    async def ask(self, subject: str, work: Work) -> list[Violation]:
        """Make requests with the session's token."""


class Vetting:
    """Compares what bundles want with what Vault has."""

    def __init__(self, vault: Asker, mounts: Mapping[str, str]) -> None:
        self._vault = vault
        self._mounts = mounts

    async def find_violations(self, manifest: Manifest) -> list[Violation]:
        """Return what is wrong with a bundle's credentials, by their names in tool.yaml.

        Raises:
            Refused: CREDENTIALS_UNAVAILABLE: Vault does not answer, so nothing is known.
        """
        if not manifest.credentials:
            return []
        try:
            return await self._vault.ask("registration", lambda api, token: self._vet(api, token, manifest))
        except CredentialsError as error:
            raise Refused(
                Reason.REASON_CREDENTIALS_UNAVAILABLE,
                f"nothing was registered, because Vault could not be asked about the credentials: {error}",
                retry_after_seconds=2.0,
            ) from error

    async def _vet(self, api: VaultApi, session: Secret, manifest: Manifest) -> list[Violation]:
        violations = [
            Violation("tool.yaml: credentials", f"{found.subject}: {found.problem}; {found.remedy}")
            for found in await check_token_role(api, session)
        ]
        for name, asked in manifest.credentials.items():
            wanted = CredentialWanted(name, asked.engine, asked.role, asked.max_signatures)
            violations += [
                Violation(
                    f"tool.yaml: credentials.{name}", f"{found.subject}: {found.problem}; {found.remedy}"
                )
                for found in await find_unfit(api, session, self._mounts, wanted)
            ]
        return violations
