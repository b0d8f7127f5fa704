"""The broker's session with Vault, and the credentials that hang under it.

Where it stands on the path: mint opens leases, settle ends them. Rules:

1. The session is a login with a short period, renewed every few seconds. When the broker dies nobody renews
   it, Vault ends it, and with it every lease: that is the backstop, not the way a call ends.
2. Each credential gets a child token of its own, which can read one role, twice at most, and has no other
   right. The session itself can read no credential.
3. A role without our revocation statements (credentials/statements.py) is refused before anything is minted.
4. The end, in this order: the lease, synchronously; the child; a look-up of both. "Gone" is only what Vault
   says it does not know; every other answer raises `EndNotConfirmed` and the lease stays owed.
5. mint gives all credentials of a call or none: those that were made are ended, or returned as owed.
6. A request that was cut off (a cancelled call) is finished behind the scenes and what it made is ended.

hvac is synchronous: mints and ends run in a bounded pool of threads each, so that neither waits for the
other, and the heartbeat in a thread of its own.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from credentials.errors import Cause, CredentialsUnavailable, EndNotConfirmed
from credentials.lease import UNKNOWN_LEASE, CallTag, CredentialWanted, Lease, LeaseIds, OwedLease
from credentials.role_check import Finding, RoleCheck
from credentials.secret import Secret
from credentials.vault_api import Child, VaultApi, VaultFault

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
ROLE_SHAPE = re.compile(r"^[a-z0-9-]{1,63}$")
_log = logging.getLogger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class SessionTuning:
    """How a session behaves.

    Attributes:
        ca_file: PEM of the CA of Vault's certificate; None: the system's.
        timeout_seconds: For one request, to connect and to answer.
        renew_seconds: Between two heartbeats.
        max_requests: Mints at once, and ends at once. A mint without room within the timeout is refused.
        role_check_seconds: How long a role that was found safe counts as safe.
    """

    ca_file: Path | None = None
    timeout_seconds: float = 5.0
    renew_seconds: float = 5.0
    max_requests: int = 16
    role_check_seconds: float = 60.0
    now: Callable[[], datetime] = _utc_now


class VaultSession:
    """The broker's login at Vault. `open` it before use, `close` it at the end."""

    def __init__(
        self, address: str, role_id: Secret, secret_id: Secret, tuning: SessionTuning | None = None
    ) -> None:
        self._tuning = tuning or SessionTuning()
        self._role_id, self._secret_id = role_id, secret_id
        self._api = VaultApi(
            address,
            ca_file=self._tuning.ca_file,
            timeout_seconds=self._tuning.timeout_seconds,
            connections=2 * self._tuning.max_requests + 1,
        )
        self._roles = RoleCheck(self._api, self._tuning.role_check_seconds)
        self._mints = ThreadPoolExecutor(self._tuning.max_requests, thread_name_prefix="vault-mint")
        self._ends = ThreadPoolExecutor(self._tuning.max_requests, thread_name_prefix="vault-end")
        self._pulse = ThreadPoolExecutor(1, thread_name_prefix="vault-heartbeat")
        self._room = asyncio.Semaphore(self._tuning.max_requests)
        self._token = Secret("")
        self._heartbeat: asyncio.Task[None] | None = None
        self._check_now = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._live: dict[str, Lease] = {}
        self.lost = False

    async def open(self) -> None:
        """Log in and start the heartbeat.

        Raises:
            CredentialsUnavailable: Vault does not answer, is sealed, or refuses the AppRole.
        """
        try:
            await self._log_in()
        except VaultFault as fault:
            raise _unavailable("cannot log in with the AppRole", fault) from fault
        self._heartbeat = asyncio.create_task(self._beat(), name="vault-heartbeat")

    async def close(self) -> None:
        """End every live lease, then the session. What fails here ends with the session's period."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            with suppress(asyncio.CancelledError):
                await self._heartbeat
            self._heartbeat = None
        await asyncio.gather(*self._background, return_exceptions=True)
        ends = await asyncio.gather(
            *(self.end(lease) for lease in list(self._live.values())), return_exceptions=True
        )
        for error in ends:
            if isinstance(error, EndNotConfirmed):
                _log.error("at close: %s", error)
        if self._token and not self.lost:
            try:
                await self._run(self._pulse, self._api.revoke_session, self._token)
            except VaultFault as fault:
                _log.error("the session could not be ended and lives until its period is over: %s", fault)
        self._token = Secret("")
        for pool in (self._mints, self._ends, self._pulse):
            pool.shutdown(wait=False)
        self._api.close()

    async def mint(self, tag: CallTag, wanted: Sequence[CredentialWanted], ttl_seconds: int) -> list[Lease]:
        """Mint every credential of one call, in the order asked, or none.

        Args:
            tag: What the child tokens are labelled with.
            wanted: Possibly empty; then nothing is asked of Vault.
            ttl_seconds: After this Vault ends the leases by itself; at most one hour.

        Raises:
            CredentialsUnavailable: With a cause, and what was made and could not be ended as `owed`.
        """
        for item in wanted:
            _check_wanted(item)
        task = asyncio.ensure_future(self._mint_all(tag, wanted, ttl_seconds))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._spawn(self._end_made(task))
            raise

    async def end(self, lease: LeaseIds) -> datetime:
        """End a lease and its child token and have the end confirmed by look-up.

        Ending it again is fine. Works from any object with `lease_id` and `accessor`, after a restart too.

        Returns:
            When the end was confirmed.

        Raises:
            EndNotConfirmed: The lease may live on: keep it owed, and end it again.
        """
        try:
            await self._run(self._ends, self._end, lease.lease_id, lease.accessor)
        except VaultFault as fault:
            if fault.cause is Cause.DENIED:
                self._check_now.set()
            raise EndNotConfirmed(lease.lease_id, str(fault), fault.cause) from fault
        self._live.pop(lease.lease_id, None)
        return self._tuning.now()

    async def ask(self, subject: str, work: Callable[[VaultApi, Secret], T]) -> T:
        """Make a request with the session's own token, for what else this package asks of Vault.

        Raises:
            CredentialsUnavailable: With a cause; the message begins with the subject.
        """
        return await self._in_room(self._ask, subject, work)

    async def check(self, roles: Sequence[str] = ()) -> list[Finding]:
        """Look for what would make minting fail or ending unsafe.

        Returns:
            What is wrong and how to mend it; empty when all is well.
        """
        try:
            return await self._run(self._ends, self._roles.check, self._token, tuple(roles))
        except VaultFault as fault:
            remedy = "see that Vault runs, is unsealed and knows the broker's AppRole"
            return [Finding("Vault", str(fault), remedy)]

    def live_leases(self) -> list[OwedLease]:
        """List what this session minted and has not confirmed dead."""
        return [lease.owed() for lease in self._live.values()]

    # --- the heartbeat ---
    async def _log_in(self) -> None:
        self._token = await self._run(self._pulse, self._api.login, self._role_id, self._secret_id)
        self.lost = False

    async def _beat(self) -> None:
        """Renew for ever. A session that ended took its leases with it; a new one is opened in its place."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._tuning.renew_seconds):
                    await self._check_now.wait()
            self._check_now.clear()
            try:
                await self._beat_once()
            except VaultFault as fault:
                _log.warning("heartbeat to Vault failed: %s", fault)

    async def _beat_once(self) -> None:
        if not self.lost:
            try:
                await self._run(self._pulse, self._api.renew, self._token)
                return
            except VaultFault as fault:
                if fault.cause is not Cause.DENIED:
                    raise
            self.lost = True
            self._roles.forget()
            _log.error("the session at Vault ended, and its leases with it; logging in again")
        await self._log_in()

    # --- mint ---
    async def _mint_all(
        self, tag: CallTag, wanted: Sequence[CredentialWanted], ttl_seconds: int
    ) -> list[Lease]:
        results = await asyncio.gather(
            *(self._mint_one(tag, item, ttl_seconds) for item in wanted), return_exceptions=True
        )
        leases = [result for result in results if isinstance(result, Lease)]
        self._live.update({lease.lease_id: lease for lease in leases})
        errors = [result for result in results if isinstance(result, BaseException)]
        if not errors:
            return leases
        owed = [item for error in errors for item in getattr(error, "owed", ())]
        owed += await self._end_all(leases)
        first = errors[0]
        if isinstance(first, CredentialsUnavailable):
            raise CredentialsUnavailable(str(first), first.cause, owed) from first
        raise first

    async def _mint_one(self, tag: CallTag, wanted: CredentialWanted, ttl_seconds: int) -> Lease:
        return await self._in_room(self._mint, tag, wanted, ttl_seconds)

    async def _in_room(self, work: Callable[..., T], *args: object) -> T:
        """Do what needs the session in one of the threads for mints, when one is free."""
        try:
            async with asyncio.timeout(self._tuning.timeout_seconds):
                await self._room.acquire()
        except TimeoutError as error:
            text = f"{self._tuning.max_requests} requests to Vault are under way and none ends; try again"
            raise CredentialsUnavailable(text, Cause.OVERLOADED) from error
        try:
            return await self._run(self._mints, work, *args)
        except CredentialsUnavailable as error:
            if error.cause is Cause.SESSION_LOST:
                self._check_now.set()
            raise
        finally:
            self._room.release()

    def _mint(self, tag: CallTag, wanted: CredentialWanted, ttl_seconds: int) -> Lease:
        subject = f'credential "{wanted.name}" (database role {wanted.role})'
        session = self._living_session(subject)
        try:
            problems = self._roles.find_problems(session, wanted.role)
            if problems:
                raise CredentialsUnavailable(f"{subject}: {'; '.join(problems)}", Cause.ROLE_UNSAFE)
            child = self._api.create_child(session, wanted.role, ttl_seconds, tag)
        except VaultFault as fault:
            raise self._explain(subject, session, fault) from fault
        return self._read(wanted, child, subject, ttl_seconds)

    def _ask(self, subject: str, work: Callable[[VaultApi, Secret], T]) -> T:
        session = self._living_session(subject)
        try:
            return work(self._api, session)
        except VaultFault as fault:
            raise self._explain(subject, session, fault) from fault

    def _living_session(self, subject: str) -> Secret:
        if not self._token or self.lost:
            text = f"{subject}: the broker's session at Vault ended; it is being opened again"
            raise CredentialsUnavailable(text, Cause.SESSION_LOST)
        return self._token

    def _read(self, wanted: CredentialWanted, child: Child, subject: str, ttl_seconds: int) -> Lease:
        """Read the lease with the child. Whatever goes wrong, the child and what it read are ended."""
        minted = self._tuning.now()
        try:
            login = self._api.read_database_login(child.token, wanted.role)
        except VaultFault as fault:
            made = OwedLease(wanted.name, UNKNOWN_LEASE + child.accessor, child.accessor, "", minted)
            owed = [] if self._try_to_end(made) else [made]
            if fault.cause is Cause.DENIED and child.policy_missing:
                text = f"{subject}: Vault has no policy for it; write the policy toolcrib-tool-{wanted.role}"
                raise CredentialsUnavailable(text, Cause.DENIED, owed) from fault
            raise _unavailable(subject, fault, owed) from fault
        return Lease(
            credential=wanted.name,
            lease_id=login.lease_id,
            accessor=child.accessor,
            username=login.username,
            password=login.password,
            minted=minted,
            ttl_seconds=min(ttl_seconds, login.duration_seconds),
        )

    def _explain(self, subject: str, session: Secret, fault: VaultFault) -> CredentialsUnavailable:
        """Tell a session that ended from one that may not do what was asked."""
        if fault.cause is not Cause.DENIED:
            return _unavailable(subject, fault)
        with suppress(VaultFault):
            if not self._api.is_session_alive(session):
                text = f"{subject}: the broker's session at Vault ended; it is being opened again"
                return CredentialsUnavailable(text, Cause.SESSION_LOST)
        text = f"{subject}: Vault denies it to the broker; compare its policy with docs/credentials.md"
        return CredentialsUnavailable(text, Cause.DENIED)

    # --- end ---
    def _end(self, lease_id: str, accessor: str) -> None:
        """End and confirm, in one piece that a cancelled call cannot cut in two."""
        session = self._token
        known_lease = bool(lease_id) and not lease_id.startswith(UNKNOWN_LEASE)
        if known_lease:
            self._api.revoke_lease(session, lease_id)
        if accessor:
            self._api.revoke_accessor(session, accessor)
        if known_lease and self._api.is_lease_known(session, lease_id):
            raise VaultFault("Vault still knows the lease after its revoke", Cause.BACKEND)
        if accessor and self._api.is_accessor_known(session, accessor):
            raise VaultFault("Vault still knows the child token after its revoke", Cause.BACKEND)

    def _try_to_end(self, lease: LeaseIds) -> bool:
        try:
            self._end(lease.lease_id, lease.accessor)
        except VaultFault as fault:
            _log.warning("lease %s stays owed: %s", lease.lease_id, fault)
            return False
        return True

    async def _end_all(self, leases: Sequence[Lease]) -> list[OwedLease]:
        """End leases that nobody will use; return those whose end is not confirmed."""
        owed = []
        for lease in leases:
            try:
                await self.end(lease)
            except EndNotConfirmed as error:
                _log.warning("%s", error)
                owed.append(lease.owed())
        return owed

    async def _end_made(self, minting: asyncio.Task[list[Lease]] | asyncio.Future[list[Lease]]) -> None:
        """End what a mint makes whose call was cancelled. What cannot be ended dies with its time to live."""
        with suppress(CredentialsUnavailable):
            await self._end_all(await minting)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, functools.partial(work, *args))


def _check_wanted(wanted: CredentialWanted) -> None:
    if wanted.engine != "database":
        text = f'credential "{wanted.name}": the engine "{wanted.engine}" is not known; use "database"'
        raise CredentialsUnavailable(text, Cause.UNKNOWN)
    if not ROLE_SHAPE.match(wanted.role):
        text = f'credential "{wanted.name}": "{wanted.role}" is no role name; use a-z, 0-9 and "-"'
        raise CredentialsUnavailable(text, Cause.INVALID)


def _unavailable(subject: str, fault: VaultFault, owed: Sequence[OwedLease] = ()) -> CredentialsUnavailable:
    hints = {
        Cause.SEALED: "Vault is sealed: unseal it",
        Cause.BACKEND: "Vault could not make it at the target: see that the target runs and the grants exist",
        Cause.DENIED: "Vault denies it: compare roles and policies with docs/credentials.md",
    }
    text = ": ".join(part for part in (subject, hints.get(fault.cause, ""), str(fault)) if part)
    return CredentialsUnavailable(text, fault.cause, owed)
