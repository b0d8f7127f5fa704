"""Stage 8, mint: one short-lived credential for each that the manifest wants, for this call only.

The end comes with the end of the block, after sandbox and egress are gone: each lease is revoked, its token
too, and look-up confirms both. What is not confirmed stays owed, visible, and is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Protocol

from broker.debts import Debts
from broker.model import Call, LeaseRecord, Reservation
from broker.outlast import outlast
from broker.stages.reserve import NothingRan
from broker.trail import Trail
from credentials.errors import Cause, CredentialsUnavailable
from credentials.lease import CallTag, CredentialWanted, Lease, OwedLease
from toolcrib.v1.reasons_pb2 import Reason

log = logging.getLogger(__name__)

# A lease outlives the deadline by this, so that it does not die under a tool that ends in time.
MARGIN_SECONDS = 20
# A call that is stopped while its credentials are made waits this long to learn which they are.
LEARN_SECONDS = 1.0
# What is said again until somebody changes something.
_LASTING = frozenset({Cause.REFUSED})


class Mint(Protocol):
    """Where credentials come from."""

    async def mint(self, tag: CallTag, wanted: Sequence[CredentialWanted], ttl_seconds: int) -> list[Lease]:
        """Mint all of them, or none."""


class Minter:
    """Mints a call's leases and sees to their end."""

    def __init__(self, vault: Mint, debts: Debts) -> None:
        self._vault = vault
        self._debts = debts

    def __call__(
        self, call: Call, reservation: Reservation, trail: Trail
    ) -> AbstractAsyncContextManager[list[Lease]]:
        """Hold the call's leases.

        Raises:
            NothingRan: CREDENTIALS_UNAVAILABLE; reservation and key are given back.
        """
        if not call.version.manifest.method(call.contract.method).credentials:
            return _NoLeases(trail)
        return self._hold(call, reservation, trail)

    @asynccontextmanager
    async def _hold(self, call: Call, reservation: Reservation, trail: Trail) -> AsyncIterator[list[Lease]]:
        minting = asyncio.create_task(self._mint(call, reservation, trail))
        try:
            yield await asyncio.shield(minting)
        finally:
            await outlast(self._end(trail, minting))

    async def _mint(self, call: Call, reservation: Reservation, trail: Trail) -> list[Lease]:
        manifest = call.version.manifest
        names = manifest.method(call.contract.method).credentials
        wanted = [
            CredentialWanted(name, asked.engine, asked.role, asked.max_signatures)
            for name in names
            if (asked := manifest.credentials[name])
        ]
        if not wanted:
            return []
        caller = call.caller
        tag = CallTag(
            reservation.call_id, caller.tenant, call.environment, call.digest, caller.subject, caller.name
        )
        ttl_seconds = math.ceil(max(call.deadline - time.monotonic(), 0)) + MARGIN_SECONDS
        try:
            leases = await self._vault.mint(tag, wanted, ttl_seconds)
            trail.leases = [record for lease in leases for record in _records(lease)]
            return leases
        except CredentialsUnavailable as error:
            trail.leases = [record_lease(lease) for lease in error.owed]  # written down with the call's end
            self._debts.owe(reservation.call_id, trail.leases)
            log.warning("no credential", extra={"call_id": reservation.call_id, "cause": str(error)})
            raise NothingRan(
                Reason.REASON_CREDENTIALS_UNAVAILABLE,
                # Not what a target said: an agent would read it, and no label counts it.
                f"Vault gave no credential, nothing ran: {error.own_words}",
                retry_after_seconds=2.0,
                passes=error.cause not in _LASTING,
            ) from error

    async def _end(self, trail: Trail, minting: asyncio.Task[list[Lease]]) -> None:
        """End what was minted; a call that was stopped meanwhile first learns what that is, to record it.

        From a Vault that stalls it does not hear; then the session ends what it makes, and owes the rest.
        """
        await asyncio.wait((minting,), timeout=LEARN_SECONDS)
        if not minting.done():
            minting.cancel()
            await asyncio.wait((minting,))
        elif not minting.cancelled() and minting.exception() is None:
            await trail.at("end")
            await end_leases(trail, self._debts)


class _NoLeases(AbstractAsyncContextManager[list[Lease]]):
    """What a call holds whose tool wants no credential."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail

    async def __aenter__(self) -> list[Lease]:
        return []

    async def __aexit__(self, *_: object) -> None:
        await self._trail.at("end")


async def end_leases(trail: Trail, debts: Debts) -> None:
    """End a call's leases now; one that is known to be dead, because its secret had leaked, is left alone."""

    async def end(lease: LeaseRecord) -> LeaseRecord:
        if lease.confirmed_dead is not None:
            return lease
        return replace(lease, confirmed_dead=await debts.end(trail.call_id, lease))

    trail.leases = list(await asyncio.gather(*map(end, trail.leases)))


def _records(lease: Lease) -> list[LeaseRecord]:
    """Say what the record knows of a credential: also what was tried for it, so that both audits agree."""
    tried = [replace(record_lease(one), confirmed_dead=lease.minted) for one in lease.given_up]
    return [*tried, record_lease(lease)]


def record_lease(lease: Lease | OwedLease) -> LeaseRecord:
    """Say what the record knows of a lease."""
    return LeaseRecord(
        lease.lease_id,
        lease.accessor,
        lease.credential,
        lease.username,
        lease.minted,
        engine=lease.engine,
        role=lease.role,
        expires=lease.expires,
    )
