"""The broker's session with Vault, and the credentials that hang under it.

Where it stands on the path: mint opens leases, settle ends them. Rules:

1. The session (credentials/session.py) is a login with a short period, kept alive by a `Keeper`. When the
   broker dies the keeper ends it, or nobody renews it, and Vault ends every lease with it: that is the
   backstop, not the way a call ends.
2. Each credential gets a child token of its own, which can get one role's credential and has no other right.
   The session itself can read no credential.
3. A role that is unfit (credentials/engines) is refused before anything is minted.
4. The end, in this order: the lease, synchronously; what the engine has to retire; the child; a look-up of
   lease and child. "Gone" is only what Vault says it does not know; every other answer raises
   `EndNotConfirmed` and the lease stays owed.
5. mint gives all credentials of a call or none: those that were made are ended, or told as owed. Nothing that
   was made is forgotten, whatever went wrong and whoever hung up.
6. A lost session is opened again at once; `on_lost` hears of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from credentials.engines import ENGINES, Order, SecretsEngine, explain_unusable
from credentials.errors import Cause, CredentialsUnavailable, EndNotConfirmed
from credentials.heartbeat import Heartbeat
from credentials.lease import (
    NO_LEASE,
    UNKNOWN_LEASE,
    CallTag,
    CredentialWanted,
    Lease,
    LeaseIds,
    OwedLease,
)
from credentials.logins import Login
from credentials.policies import tool_policy_name
from credentials.refusals import check_wanted, unavailable
from credentials.role_check import Finding, RoleCheck
from credentials.secret import Secret
from credentials.session import Session, gone
from credentials.transport import VaultFault
from credentials.tuning import SessionTuning
from credentials.turns import Rooms, Turns
from credentials.vault_api import Child, VaultApi

__all__ = [
    "CallTag",
    "CredentialWanted",
    "Finding",
    "Lease",
    "LeaseIds",
    "OwedLease",
    "SessionTuning",
    "VaultSession",
]

T = TypeVar("T")
SECOND_TRIES_AFTER_SECONDS = (0.25, 1.0, 2.0)
"""A rotation of Vault's password at a target takes some milliseconds, on a busy machine a second."""
_log = logging.getLogger(__name__)


class VaultSession:
    """The broker's login at Vault. `open` it before use, `close` it at the end."""

    def __init__(self, address: str, login: Login, tuning: SessionTuning | None = None) -> None:
        self._tuning = tuning = tuning or SessionTuning()
        self._api = VaultApi(tuning.transport(tuning.peer(address)))
        keeper = tuning.keeper(self._api) if tuning.keeper else Heartbeat(self._api, tuning.renew_seconds)
        self._session = Session(self._api, login, keeper, self._on_lost, tuning.on_opened)
        self._roles = RoleCheck(self._api, tuning.mounts, tuning.role_check_seconds)
        self._turns = Turns()
        self._rooms = Rooms(tuning.max_requests, tuning.timeout_seconds)
        self._ends = asyncio.Semaphore(tuning.max_requests)
        self._background: set[asyncio.Task[None]] = set()
        self._live: dict[str, Lease] = {}
        self._ending: dict[str, asyncio.Future[None]] = {}

    @property
    def lost(self) -> bool:
        """True while there is no session in place of one that ended."""
        return self._session.lost

    @property
    def is_open(self) -> bool:
        """True while there is a session, as far as is known."""
        return self._session.is_open

    async def open(self) -> None:
        """Log in, and have the session kept alive.

        Raises:
            CredentialsUnavailable: Vault does not answer, is sealed, or refuses the login.
        """
        try:
            await self._session.open()
        except VaultFault as fault:
            await self._api.close()
            raise unavailable("cannot log in", fault) from fault

    async def close(self) -> None:
        """End every live lease, then the session. What fails here ends with the session's period."""
        await asyncio.gather(*self._background, return_exceptions=True)
        ends = await asyncio.gather(
            *(self.end(lease) for lease in list(self._live.values())), return_exceptions=True
        )
        for error in ends:
            if isinstance(error, EndNotConfirmed):
                _log.error("at close: %s", error)
        await self._session.close()
        await self._api.close()

    async def mint(self, tag: CallTag, wanted: Sequence[CredentialWanted], ttl_seconds: int) -> list[Lease]:
        """Mint every credential of one call, in the order asked, or none.

        Args:
            tag: What the child tokens are labelled with.
            wanted: Possibly empty; then nothing is asked of Vault.
            ttl_seconds: After this Vault ends the leases by itself; at most one hour.

        Raises:
            CredentialsUnavailable: With a cause, and what was made and could not be ended as `owed`. A mint
                that is cancelled tells `on_owed` instead.
        """
        for item in wanted:
            check_wanted(item)
        task = asyncio.ensure_future(self._mint_all(tag, wanted, ttl_seconds))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._spawn(self._end_made(tag.call_id, task))
            raise

    async def end(self, lease: LeaseIds) -> datetime:
        """End a lease and its child token and have the end confirmed by look-up.

        Ending it again is fine. Works from any object with the ids of a lease, after a restart too.

        Returns:
            When the end was confirmed.

        Raises:
            EndNotConfirmed: The lease may live on: keep it owed, and end it again.
        """
        task = self._ending.get(lease.lease_id)
        if task is None:
            task = self._ending[lease.lease_id] = asyncio.ensure_future(self._end(lease))
            task.add_done_callback(lambda _: self._ending.pop(lease.lease_id))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            self._spawn(_finish(task))
            raise
        except VaultFault as fault:
            if fault.cause is Cause.DENIED:
                self._session.look()
            raise EndNotConfirmed(lease.lease_id, str(fault), fault.cause) from fault
        return self._tuning.now()

    async def hold(self, lease: LeaseIds) -> None:
        """Keep a login that exists once from every call until this lease, of an earlier run, was ended."""
        engine = ENGINES.get(lease.engine)
        if engine is not None and engine.exclusive:
            await self._turns.hold((lease.engine, lease.role), lease.accessor)

    async def ask(self, subject: str, work: Callable[[VaultApi, Secret], Awaitable[T]]) -> T:
        """Make a request with the session's own token, for what else this package asks of Vault.

        Raises:
            CredentialsUnavailable: With a cause; the message begins with the subject.
        """
        async with self._rooms.of(""):
            session = self._session.living(subject)
            try:
                return await work(self._api, session)
            except VaultFault as fault:
                raise await self._explain(subject, session, fault) from fault

    async def check(self, wanted: Sequence[CredentialWanted] = ()) -> list[Finding]:
        """Look for what would make minting fail or ending unsafe.

        Returns:
            What is wrong and how to mend it; empty when all is well.
        """
        try:
            return await self._roles.check(self._session.token, wanted)
        except VaultFault as fault:
            remedy = "see that Vault runs, is unsealed and knows the broker's login"
            return [Finding("Vault", str(fault), remedy)]

    def live_leases(self) -> list[OwedLease]:
        """List what this session minted and has not confirmed dead."""
        return [lease.owed() for lease in self._live.values()]

    def _on_lost(self) -> None:
        self._roles.forget()
        self._tuning.on_lost()

    # --- mint ---
    async def _mint_all(
        self, tag: CallTag, wanted: Sequence[CredentialWanted], ttl_seconds: int
    ) -> list[Lease]:
        results = await asyncio.gather(
            *(self._mint_one(tag, item, ttl_seconds) for item in wanted), return_exceptions=True
        )
        leases = [result for result in results if isinstance(result, Lease)]
        errors = [result for result in results if isinstance(result, BaseException)]
        if not errors:
            return leases
        owed = [item for error in errors for item in getattr(error, "owed", ())]
        owed += await self._end_all(leases)
        first = errors[0]
        if isinstance(first, CredentialsUnavailable):
            raise CredentialsUnavailable(str(first), first.cause, owed, first.own_words) from first
        text = f"the credentials could not be made ({type(first).__name__}); see the broker's log"
        raise CredentialsUnavailable(text, Cause.INVALID, owed) from first

    async def _mint_one(self, tag: CallTag, wanted: CredentialWanted, ttl_seconds: int) -> Lease:
        engine = ENGINES[wanted.engine]
        turn = (wanted.engine, wanted.role) if engine.exclusive else None
        if turn is not None and not await self._turns.take(turn, self._tuning.timeout_seconds):
            text = f'credential "{wanted.name}": another call has the login {wanted.role}; try again'
            raise CredentialsUnavailable(text, Cause.OVERLOADED)
        try:
            # One of their own for those who wait for a slow server: they keep nobody else from Vault.
            async with self._rooms.of(wanted.role if engine.asks_elsewhere else ""):
                lease = await self._mint_patiently(engine, Order(wanted, tag, ttl_seconds))
        except BaseException as error:
            if turn is not None:
                self._turns.fail(turn, [owed.accessor for owed in getattr(error, "owed", ())])
            raise
        if turn is not None:
            self._turns.belongs_to(turn, lease.accessor)
        self._live[lease.lease_id] = lease
        return lease

    async def _mint_patiently(self, engine: SecretsEngine, order: Order) -> Lease:
        """Mint; again, with another child, where the target refused Vault for a moment.

        It does so while Vault's own password there is rotated. Nothing was made, and the end of the child
        before is confirmed, so no credential is made twice.
        """
        given_up: list[OwedLease] = []
        for pause in SECOND_TRIES_AFTER_SECONDS:
            try:
                lease = await self._mint(engine, order)
                return replace(lease, given_up=tuple(given_up))
            except CredentialsUnavailable as error:
                if error.cause is not Cause.NOTHING_MADE or error.owed:
                    raise
                given_up += error.ended
            await asyncio.sleep(pause)
        lease = await self._mint(engine, order)
        return replace(lease, given_up=tuple(given_up))

    async def _mint(self, engine: SecretsEngine, order: Order) -> Lease:
        wanted, subject = order.wanted, _name(order.wanted)
        session = self._session.living(subject)
        try:
            problems = await self._roles.find_problems(session, engine, wanted.role)
            if problems:
                raise CredentialsUnavailable(f"{subject}: {'; '.join(problems)}", Cause.ROLE_UNSAFE)
            policy, uses = tool_policy_name(engine.name, wanted.role), engine.child_uses(wanted)
            child = await self._api.create_child(session, policy, order.ttl_seconds, uses, order.tag)
        except VaultFault as fault:
            raise await self._explain(subject, session, fault) from fault
        return await self._read(engine, order, child)

    async def _read(self, engine: SecretsEngine, order: Order, child: Child) -> Lease:
        """Get the credential with the child. Whatever goes wrong, the child and what it got are ended."""
        wanted, subject = order.wanted, _name(order.wanted)
        mounts, minted = self._tuning.mounts, self._tuning.now()
        try:
            made = await engine.read(self._api, child.token, mounts, order)
        except Exception as error:
            fault = error if isinstance(error, VaultFault) else explain_unusable(error)
            leased = bool(engine.lease_prefixes(mounts))
            lease_id = UNKNOWN_LEASE + child.accessor if leased else _own_id(wanted, child.accessor)
            lost = OwedLease(wanted.name, lease_id, child.accessor, wanted.engine, wanted.role, "", minted)
            owed = [] if await self._try_to_end(lost) else [lost]
            if fault.cause is Cause.DENIED and child.policy_missing:
                name = tool_policy_name(engine.name, wanted.role)
                text = f"{subject}: Vault has no policy for it; write the policy {name}"
                raise CredentialsUnavailable(text, Cause.DENIED, owed) from fault
            refusal = unavailable(subject, fault, owed)
            refusal.ended = [] if owed else [lost]
            raise refusal from fault
        return Lease(
            credential=wanted.name,
            lease_id=made.lease_id or _own_id(wanted, child.accessor),
            accessor=child.accessor,
            engine=wanted.engine,
            role=wanted.role,
            payload=made.payload,
            minted=minted,
            expires=minted + timedelta(seconds=made.ttl_seconds),
        )

    async def _explain(self, subject: str, session: Secret, fault: VaultFault) -> CredentialsUnavailable:
        """Tell a session that ended from one that may not do what was asked."""
        if fault.cause is not Cause.DENIED:
            return unavailable(subject, fault)
        with suppress(VaultFault):
            if not await self._api.is_session_alive(session):
                self._session.look()
                return gone(subject)
        text = f"{subject}: Vault denies it to the broker; run `toolcrib vault check`"
        return CredentialsUnavailable(text, Cause.DENIED)

    # --- end ---
    async def _end(self, lease: LeaseIds) -> None:
        """End and confirm, in one piece that a cancelled call cannot cut in two."""
        if live := self._live.get(lease.lease_id):
            await live.revoke()  # no record has such a token: only who minted it can end it early
        async with self._ends:
            api, session = self._api, self._session.token
            # Ours begin with one of these; Vault knows no others.
            if known := not lease.lease_id.startswith((UNKNOWN_LEASE, NO_LEASE)):
                await api.revoke_lease(session, lease.lease_id)
            engine = ENGINES.get(lease.engine)
            # A login that another call has by now was retired before, when this lease was ended first.
            if engine is not None and self._turns.may_end((lease.engine, lease.role), lease.accessor):
                await engine.retire(api, session, self._tuning.mounts, lease.role)
            if lease.accessor:
                await api.revoke_accessor(session, lease.accessor)
            await asyncio.gather(
                self._confirm_lease(session, lease.lease_id if known else ""),
                self._confirm_child(session, lease.accessor),
            )
        self._live.pop(lease.lease_id, None)
        self._turns.end((lease.engine, lease.role), lease.accessor)

    async def _confirm_lease(self, session: Secret, lease_id: str) -> None:
        if lease_id and await self._api.is_lease_known(session, lease_id):
            raise VaultFault("Vault still knows the lease after its revoke", Cause.BACKEND)

    async def _confirm_child(self, session: Secret, accessor: str) -> None:
        if accessor and await self._api.is_accessor_known(session, accessor):
            raise VaultFault("Vault still knows the child token after its revoke", Cause.BACKEND)

    async def _try_to_end(self, lease: LeaseIds) -> bool:
        try:
            await self._end(lease)
        except VaultFault as fault:
            _log.warning("lease %s stays owed: %s", lease.lease_id, fault)
            return False
        return True

    async def _end_all(self, leases: Sequence[Lease]) -> list[OwedLease]:
        """End leases that nobody will use; return those whose end is not confirmed."""
        ended = await asyncio.gather(*(self._try_to_end(lease) for lease in leases))
        return [lease.owed() for lease, dead in zip(leases, ended, strict=True) if not dead]

    async def _end_made(self, call_id: str, minting: asyncio.Future[list[Lease]]) -> None:
        """End what a mint makes whose call was cancelled; what cannot be ended is told."""
        try:
            owed = await self._end_all(await minting)
        except CredentialsUnavailable as error:
            owed = error.owed
        if owed:
            self._tuning.on_owed(call_id, owed)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _finish(task: asyncio.Future[None]) -> None:
    """Let an end that was cut off come to its end; whoever owes it tries it again."""
    with suppress(VaultFault):
        await task


def _name(wanted: CredentialWanted) -> str:
    return f'credential "{wanted.name}" ({wanted.engine} role {wanted.role})'


def _own_id(wanted: CredentialWanted, accessor: str) -> str:
    """Name what the engine makes no lease for."""
    return f"{NO_LEASE}{wanted.engine}/{wanted.role}/{accessor}"
