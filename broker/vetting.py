"""Whether a bundle gets here what it wants, asked before it is registered: its isolation, its credentials.

A tool whose credential cannot be minted, or could not be ended, is refused here and not at its first call.
Fail closed: while Vault does not answer, a bundle that wants credentials is not registered.

Secrets that somebody put into Vault by hand are read for it, as for a call: the audit names each reading and
its end, so that it has its counterpart in Vault's own log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from broker.errors import Refused
from broker.ids import make_call_id
from broker.model import LeaseRecord
from broker.stages.mint import record_lease
from broker.store.records import AuditEvent
from credentials.errors import CredentialsError
from credentials.lease import CallTag, CredentialWanted, Lease, LeaseIds
from credentials.role_check import Finding, check_token_role, find_unfit
from credentials.secret import Secret
from credentials.vault_api import VaultApi
from credentials.vetting import BY_HAND, Minter, vet
from toolcrib.v1.reasons_pb2 import Reason
from tools.catalogue import ToolVersion
from tools.errors import Violation

PLACE = "tool.yaml: credentials"
Work = Callable[[VaultApi, Secret], Awaitable[list[Violation]]]
Record = Callable[[AuditEvent], Awaitable[None]]


class Session(Minter, Protocol):
    """The broker's session with Vault."""

    async def ask(self, subject: str, work: Work) -> list[Violation]:
        """Make requests with the session's token."""


class Vetting:
    """Compares what bundles want with what Vault has."""

    def __init__(
        self, session: Session, mounts: Mapping[str, str], record: Record, classes: Collection[str]
    ) -> None:
        """Prepare.

        Args:
            session: With Vault.
            mounts: Where its secrets engines are.
            record: Writes an event to the audit.
            classes: The isolation classes that a driver serves here.
        """
        self._session = session
        self._mounts = mounts
        self._record = record
        self._classes = classes

    async def find_violations(self, tenant: str, version: ToolVersion) -> list[Violation]:
        """Return what a bundle wants and does not get here, by its place in tool.yaml.

        An isolation class that no driver serves is refused: nothing falls back to another one.

        Definitions are compared first; secrets that somebody put there by hand are read only when all is
        well.

        Raises:
            Refused: CREDENTIALS_UNAVAILABLE: Vault does not answer, so nothing is known.
            StoreError: The reading cannot be recorded; then nothing is read.
        """
        if version.manifest.isolation not in self._classes:
            return [_unserved(version.manifest.isolation, self._classes)]
        wanted = [
            CredentialWanted(name, asked.engine, asked.role, asked.max_signatures)
            for name, asked in version.manifest.credentials.items()
        ]
        if not wanted:
            return []
        try:
            violations = await self._session.ask(
                "registration", lambda api, token: self._compare(api, token, wanted)
            )
            values = {} if violations else await self._read(tenant, version, wanted)
        except CredentialsError as error:
            raise Refused(
                Reason.REASON_CREDENTIALS_UNAVAILABLE,
                f"nothing was registered, because Vault could not be asked about the credentials: {error}",
                retry_after_seconds=2.0,
            ) from error
        return [*violations, *(Violation(f"{PLACE}.{name}", text) for name, text in values.items())]

    async def _read(
        self, tenant: str, version: ToolVersion, wanted: Sequence[CredentialWanted]
    ) -> Mapping[str, str]:
        by_hand = [item for item in wanted if item.engine in BY_HAND]
        if not by_hand:
            return {}
        reading = _Reading(CallTag(make_call_id(), tenant, "", version.digest), self._session)
        bundle = f"{version.bundle} {version.version}"
        await self._record(reading.event("vetting.began", bundle=bundle, digest=version.digest))
        kind = "vetting.failed"
        try:
            problems = await vet(reading, reading.tag, by_hand)
            kind = "vetting.failed" if problems else "vetting.ended"
            return problems
        finally:
            await self._record(reading.event(kind, leases=[lease.facts() for lease in reading.leases]))
            for lease in reading.leases:
                if lease.confirmed_dead is not None:
                    facts = {"lease": lease.lease_id, "accessor": lease.accessor}
                    await self._record(reading.event("lease.ended", **facts, credential=lease.credential))

    async def _compare(
        self, api: VaultApi, session: Secret, wanted: Sequence[CredentialWanted]
    ) -> list[Violation]:
        violations = [_violation(PLACE, found) for found in await check_token_role(api, session)]
        for item in wanted:
            found = await find_unfit(api, session, self._mounts, item)
            violations += [_violation(f"{PLACE}.{item.name}", one) for one in found]
        return violations


class _Reading:
    """A session that notes what is read for one vetting."""

    def __init__(self, tag: CallTag, session: Minter) -> None:
        self.tag = tag
        self.leases: list[LeaseRecord] = []
        self._session = session

    async def mint(self, tag: CallTag, wanted: Sequence[CredentialWanted], ttl_seconds: int) -> list[Lease]:
        leases = await self._session.mint(tag, wanted, ttl_seconds)
        self.leases += [record_lease(lease) for lease in leases]
        return leases

    async def end(self, lease: LeaseIds) -> datetime:
        dead = await self._session.end(lease)
        self.leases = [
            replace(one, confirmed_dead=dead) if one.lease_id == lease.lease_id else one
            for one in self.leases
        ]
        return dead

    def event(self, kind: str, **details: object) -> AuditEvent:
        return AuditEvent(kind, self.tag.tenant, "", datetime.now(UTC), self.tag.call_id, details=details)


def _violation(place: str, found: Finding) -> Violation:
    return Violation(place, f"{found.subject}: {found.problem}; {found.remedy}")


def _unserved(isolation: str, classes: Collection[str]) -> Violation:
    return Violation(
        "tool.yaml: isolation",
        f'no driver serves the class "{isolation}" here; the operator maps in sandboxes.classes: '
        f"{', '.join(sorted(classes)) or 'none'}",
    )
