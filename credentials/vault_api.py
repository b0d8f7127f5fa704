"""The few requests that every engine shares: the session's token, children, leases, and look-ups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from credentials.errors import Cause
from credentials.lease import CallTag
from credentials.policies import TOKEN_ROLE
from credentials.secret import Secret
from credentials.transport import Peer, Transport, VaultFault

__all__ = ["Child", "VaultApi", "VaultFault", "take"]


@dataclass(frozen=True, slots=True)
class Child:
    """The token of one credential of one call."""

    token: Secret
    accessor: str
    policy_missing: bool


class VaultApi:
    """Requests to one Vault, over any transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def peer(self) -> Peer:
        """The Vault that is asked, and how it is known."""
        return self._transport.peer

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def reconnect(self) -> None:
        """Open new connections from now on; see `Transport.reconnect`."""
        await self._transport.reconnect()

    async def ask(
        self,
        method: str,
        path: str,
        token: Secret | None,
        body: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = True,
    ) -> dict[str, Any]:
        """Send one request; see `Transport.ask`."""
        return await self._transport.ask(method, path, token, body, repeatable=repeatable)

    async def renew(self, session: Secret) -> None:
        """Give the session another period."""
        await self.ask("post", "auth/token/renew-self", session, {})

    async def is_session_alive(self, session: Secret) -> bool:
        """Ask whether the token lives. It may look itself up, so DENIED means that it ended."""
        try:
            await self.ask("get", "auth/token/lookup-self", session)
        except VaultFault as fault:
            if fault.cause is Cause.DENIED:
                return False
            raise
        return True

    async def revoke_session(self, session: Secret) -> None:
        """End the session; Vault then ends what hangs under it, in its own time."""
        await self.ask("post", "auth/token/revoke-self", session, {})

    async def create_child(
        self, session: Secret, policy: str, ttl_seconds: int, uses: int, tag: CallTag
    ) -> Child:
        """Make a token under the session that has one policy, for some requests.

        It may be made twice, where the first answer was lost: nobody has that one, and its time is short.
        """
        answer = await self.ask(
            "post",
            f"auth/token/create/{TOKEN_ROLE}",
            session,
            {
                "policies": [policy],
                "ttl": f"{ttl_seconds}s",
                "num_uses": uses,
                "no_default_policy": True,
                "renewable": False,
                "display_name": f"toolcrib-{tag.call_id}",
                "meta": {
                    "call_id": tag.call_id,
                    "tenant": tag.tenant,
                    "environment": tag.environment,
                    "digest": tag.digest,
                },
            },
        )
        auth = take(answer, "auth", "client_token", "accessor")
        missing = any("does not exist" in warning for warning in answer.get("warnings") or ())
        return Child(Secret(auth["client_token"]), auth["accessor"], missing)

    async def revoke_lease(self, session: Secret, lease_id: str) -> None:
        """Have the engine end the lease now; an unknown lease is fine."""
        try:
            await self.ask("put", "sys/leases/revoke", session, {"lease_id": lease_id, "sync": True})
        except VaultFault as fault:
            if fault.cause is not Cause.INVALID:
                raise
            # Vault answers 400 when the statements fail at the target, or when it cannot be reached.
            raise VaultFault(f"the revocation failed at the target: {fault}", Cause.BACKEND) from fault

    async def revoke_accessor(self, session: Secret, accessor: str) -> None:
        """End a child; an unknown one is fine."""
        try:
            await self.ask("post", "auth/token/revoke-accessor", session, {"accessor": accessor})
        except VaultFault as fault:
            # The second is of a token that is being ended; a look-up says when it is gone.
            if not any(words in str(fault) for words in ("invalid accessor", "token not found")):
                raise

    async def is_lease_known(self, session: Secret, lease_id: str) -> bool:
        """Ask whether Vault still has the lease."""
        body = {"lease_id": lease_id}
        return await self._is_known(session, "put", "sys/leases/lookup", body, "invalid lease")

    async def is_accessor_known(self, session: Secret, accessor: str) -> bool:
        """Ask whether Vault still has the token."""
        body = {"accessor": accessor}
        return await self._is_known(session, "post", "auth/token/lookup-accessor", body, "invalid accessor")

    async def read_policy(self, session: Secret, name: str) -> str:
        """Read the text of a policy."""
        answer = await self.ask("get", f"sys/policies/acl/{name}", session)
        return str(take(answer, "data", "policy")["policy"])

    async def read_token_role(self, session: Secret) -> dict[str, Any]:
        """Read the token role through which children are made."""
        return take(await self.ask("get", f"auth/token/roles/{TOKEN_ROLE}", session), "data")

    async def make_data_key(self, session: Secret, name: str, bits: int) -> dict[str, Any]:
        """Make a data key under a transit key: "plaintext" (base64) and "ciphertext"."""
        answer = await self.ask("post", f"transit/datakey/plaintext/{name}", session, {"bits": bits})
        return take(answer, "data", "plaintext", "ciphertext")

    async def unwrap_data_key(self, session: Secret, name: str, wrapped: str) -> str:
        """Unwrap a data key; base64."""
        answer = await self.ask("post", f"transit/decrypt/{name}", session, {"ciphertext": wrapped})
        return str(take(answer, "data", "plaintext")["plaintext"])

    async def _is_known(
        self, session: Secret, method: str, path: str, body: dict[str, Any], unknown: str
    ) -> bool:
        try:
            await self.ask(method, path, session, body)
        except VaultFault as fault:
            # Only these words mean "gone"; a denied, sealed or broken answer proves nothing.
            if unknown in str(fault):
                return False
            raise
        return True


def take(answer: Mapping[str, Any], section: str, *names: str) -> dict[str, Any]:
    """Return a section of an answer that has all these names.

    Raises:
        VaultFault: It has not.
    """
    part = answer.get(section)
    if not isinstance(part, dict) or any(name not in part for name in names):
        raise VaultFault(f'the answer has no proper "{section}": is this a Vault?', Cause.INVALID)
    return part
