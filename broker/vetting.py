"""Whether Vault has what a bundle's credentials need, asked before the bundle is registered.

A tool whose credential cannot be minted, or could not be ended, is refused here and not at its first call.
Fail closed: while Vault does not answer, a bundle that wants credentials is not registered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from broker.errors import Refused
from credentials.errors import CredentialsError
from credentials.lease import CallTag, CredentialWanted
from credentials.role_check import Finding, check_token_role, find_unfit
from credentials.secret import Secret
from credentials.vault_api import VaultApi
from credentials.vetting import Minter, vet
from toolcrib.v1.reasons_pb2 import Reason
from tools.catalogue import ToolVersion
from tools.errors import Violation

PLACE = "tool.yaml: credentials"
Work = Callable[[VaultApi, Secret], Awaitable[list[Violation]]]


class Session(Minter, Protocol):
    """The broker's session with Vault."""

    async def ask(self, subject: str, work: Work) -> list[Violation]:
        """Make requests with the session's token."""


class Vetting:
    """Compares what bundles want with what Vault has."""

    def __init__(self, session: Session, mounts: Mapping[str, str]) -> None:
        self._session = session
        self._mounts = mounts

    async def find_violations(self, tenant: str, version: ToolVersion) -> list[Violation]:
        """Return what is wrong with a bundle's credentials, by their names in tool.yaml.

        Definitions are compared first; secrets that somebody put there by hand are read only when all is
        well. Vault's audit names these readings by bundle and version: they are for no call.

        Raises:
            Refused: CREDENTIALS_UNAVAILABLE: Vault does not answer, so nothing is known.
        """
        wanted = [
            CredentialWanted(name, asked.engine, asked.role, asked.max_signatures)
            for name, asked in version.manifest.credentials.items()
        ]
        if not wanted:
            return []
        tag = CallTag(f"registration-{version.bundle}-{version.version}", tenant, "", version.digest)
        try:
            violations = await self._session.ask(
                "registration", lambda api, token: self._compare(api, token, wanted)
            )
            values = {} if violations else await vet(self._session, tag, wanted)
        except CredentialsError as error:
            raise Refused(
                Reason.REASON_CREDENTIALS_UNAVAILABLE,
                f"nothing was registered, because Vault could not be asked about the credentials: {error}",
                retry_after_seconds=2.0,
            ) from error
        return [*violations, *(Violation(f"{PLACE}.{name}", text) for name, text in values.items())]

    async def _compare(
        self, api: VaultApi, session: Secret, wanted: Sequence[CredentialWanted]
    ) -> list[Violation]:
        violations = [_violation(PLACE, found) for found in await check_token_role(api, session)]
        for item in wanted:
            found = await find_unfit(api, session, self._mounts, item)
            violations += [_violation(f"{PLACE}.{item.name}", one) for one in found]
        return violations


def _violation(place: str, found: Finding) -> Violation:
    return Violation(place, f"{found.subject}: {found.problem}; {found.remedy}")
