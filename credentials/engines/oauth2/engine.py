"""Access tokens of an authorization server: client credentials (RFC 6749, 4.4), token exchange (RFC 8693).

Where it stands on the path: mint asks for the token, the proxy adds it to requests, the end asks the server
to revoke it. Rules:

1. The child reads one secret and signs with one key, both of this role alone.
2. A token exchange is on behalf of the call's subject, and of nobody else: without one nothing is asked.
3. The tool never gets the token (`inject` in the manifest), agents never what the server said.
4. The token ends by its own time. Its early end is asked for while the call's end has it: no record has. A
   token that the server gave to several calls is ended with the last of them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from credentials.engines.base import (
    MAX_TTL_SECONDS,
    Minted,
    Mounts,
    Order,
    find_differences,
    read_definition,
)
from credentials.engines.kv import is_there
from credentials.engines.oauth2.assertion import JWS_NAMES, AssertionKey, read_key, sign_assertion
from credentials.engines.oauth2.endpoint import TIMEOUT_SECONDS, EndpointFault, post_form, read_answer
from credentials.engines.oauth2.grants import Granted, Sign, authenticate, make_form, read_grant
from credentials.engines.oauth2.holders import Holders
from credentials.engines.oauth2.role import (
    CLIENT_SECRET,
    TOKEN_URL,
    Kept,
    OAuthRole,
    RoleInvalid,
    key_name,
    read_kept,
    read_role,
    secret_path,
)
from credentials.engines.transit import REQUIRED
from credentials.errors import Cause
from credentials.lease import AccessToken, CallTag, CredentialWanted, KeyValues
from credentials.secret import Secret
from credentials.transport import VaultFault
from credentials.vault_api import VaultApi, take

REVOKE_SECONDS = 1.5
"""The call's answer waits for it."""
NO_SUBJECT = (
    "this credential is had on behalf of a user, and the call is on nobody's: make it with an identity that "
    "names the user"
)
_log = logging.getLogger(__name__)


class OAuthEngine:
    """Access tokens: each call has one of its own, unless its server gives one to several."""

    name, plugin = "oauth2", "kv"
    plugins: tuple[str, ...] = (plugin, "transit")
    exclusive = False
    asks_elsewhere = True

    def __init__(self) -> None:
        self._holders = Holders()
        self._sharing: set[str] = set()

    def child_uses(self, wanted: CredentialWanted) -> int:
        """Read the secret and the key; sign for subject and client, and for the client again at the end.

        A server that gives an ended token is asked once more.
        """
        return 8

    def child_policy(self, mounts: Mounts, role: str) -> str:
        """Let it read one secret, and sign with one key, one input at a time."""
        return (
            f'path "{mounts["kv"]}/data/{secret_path(role)}" {{ capabilities = ["read"] }}\n'
            f'path "{mounts["transit"]}/keys/{key_name(role)}" {{ capabilities = ["read"] }}\n'
            f'path "{mounts["transit"]}/sign/{key_name(role)}" {{\n'
            '  capabilities        = ["update"]\n'
            '  required_parameters = ["input", "key_version"]\n'
            "  allowed_parameters  = {\n"
            '    "input" = [], "key_version" = [],\n'
            '    "hash_algorithm" = [], "signature_algorithm" = [], "salt_length" = []\n'
            "  }\n"
            "}\n"
        )

    def session_policy(self, mounts: Mounts) -> str:
        """Let it read what roles say, which is no secret, and the public halves of keys."""
        return (
            f'path "{mounts["kv"]}/metadata/{secret_path("*")}" {{ capabilities = ["read"] }}\n'
            f'path "{mounts["transit"]}/keys/{key_name("*")}" {{ capabilities = ["read"] }}\n'
        )

    def lease_prefixes(self, mounts: Mounts) -> tuple[str, ...]:
        """There are none."""
        return ()

    async def read(self, api: VaultApi, child: Secret, mounts: Mounts, order: Order) -> Minted:
        """Read the role, and have the server give a token."""
        path = f"{mounts['kv']}/data/{secret_path(order.role)}"
        role, kept, version = await _read_secret(api, child, path)
        if role.grant == "token_exchange" and not order.tag.subject and not order.tag.is_rehearsal:
            raise VaultFault(NO_SUBJECT, Cause.REFUSED, NO_SUBJECT)
        path = f"{mounts['transit']}/{key_name(order.role)}"
        sign = _Signing(api, child, path, role.key_version).sign
        request = _Request(order.role, role, kept, sign, self._holders)
        if role.grant == "token_exchange" and order.tag.is_rehearsal:
            # Nobody's token can be asked for; that the key signs is seen.
            await make_form(role, order.tag, request.sign, "rehearsal")
            return Minted("", KeyValues({}, version), order.ttl_seconds)
        asked = datetime.now(UTC)
        unique = f"{order.tag.call_id}.{order.wanted.name}"
        granted = await request.ask_token(order.tag, unique)
        if await self._holders.wait_until_ended(role.token_url, granted.token):
            asked = datetime.now(UTC)
            granted = await request.ask_token(order.tag, f"{unique}.again")
        _tell_length(order, granted.expires_in_seconds)
        expires = asked + timedelta(seconds=granted.expires_in_seconds)
        self._tell_shared(order.role, request.hold(granted.token))
        revocation = _Revocation(request, granted.token, order.tag.call_id, expires)
        payload = AccessToken(granted.token, expires, revocation.revoke)
        return Minted("", payload, min(order.ttl_seconds, granted.expires_in_seconds))

    def _tell_shared(self, role: str, holders: int) -> None:
        """Say of a role once that its calls have no token of their own."""
        if holders > 1 and role not in self._sharing:
            self._sharing.add(role)
            _log.warning(
                "the authorization server gives one access token to several calls, which then share it",
                extra={"role": role},
            )

    async def retire(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> None:
        """Nothing: who has the token revokes it (`AccessToken.revoke`), else it ends by its own time."""

    async def find_problems(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> list[str]:
        """See that the role can be used. The session may not see the client secret; `vetting` reads it."""
        metadata = await read_definition(api, session, f"{mounts['kv']}/metadata/{secret_path(role)}")
        if metadata is None:
            return [f"Vault has no oauth2 role {role}; write it with `toolcrib vault bootstrap`"]
        try:
            said = read_role(metadata.get("custom_metadata"))
        except RoleInvalid as error:
            return [str(error)]
        problems = (
            [] if is_there(metadata) else [f"its secret is not there; {how_to_put(mounts, role, said)}"]
        )
        if said.needs_key:
            problems += await _find_key_problems(api, session, mounts["transit"], key_name(role))
        return problems


def how_to_put(mounts: Mounts, name: str, role: OAuthRole) -> str:
    """Say how the operator puts a role's values there."""
    more = f" {CLIENT_SECRET}=-" if role.needs_secret else ""
    where = f"-mount={mounts['kv']} {secret_path(name)}"
    return f"put it there: vault kv put {where} {TOKEN_URL}={role.token_url}{more}"


async def _read_secret(api: VaultApi, child: Secret, path: str) -> tuple[OAuthRole, Kept, int]:
    data = take(await api.ask("get", path, child), "data", "data", "metadata")
    metadata = take(data, "metadata", "version")
    try:
        role = read_role(metadata.get("custom_metadata"))
        return role, read_kept(role, take(data, "data")), int(metadata["version"])
    except RoleInvalid as error:
        raise VaultFault(str(error), Cause.ROLE_UNSAFE) from None


async def _find_key_problems(api: VaultApi, session: Secret, mount: str, name: str) -> list[str]:
    key = await read_definition(api, session, f"{mount}/keys/{name}")
    if key is None:
        return [f"Vault has no key {name} in {mount}/; write it with `toolcrib vault bootstrap`"]
    problems = [f"the key {name}: {text}" for text in find_differences(key, REQUIRED)]
    if key.get("type") not in JWS_NAMES:
        problems.append(f"the key {name} is of type {key.get('type')}; these sign: {', '.join(JWS_NAMES)}")
    return problems


def _tell_length(order: Order, seconds: int) -> None:
    """Say what an operator may want to change at the server; neither is an error."""
    facts = {"role": order.role, "seconds": seconds, "call_id": order.tag.call_id}
    if order.tag.is_rehearsal and seconds > MAX_TTL_SECONDS:
        _log.warning("access tokens outlast every call: have the server make them shorter", extra=facts)
    elif seconds < order.ttl_seconds and not order.tag.is_rehearsal:
        _log.info("the access token may end before its call", extra=facts)


class _Signing:
    """The child's way to the role's key.

    Args:
        path: The key's mount and its name.
        version: Of the key; 0: the newest.
    """

    def __init__(self, api: VaultApi, child: Secret, path: str, version: int) -> None:
        self._api, self._child, self._version = api, child, version
        self._mount, _, self._name = path.rpartition("/")
        self._key: AssertionKey | None = None

    async def sign(self, claims: Mapping[str, Any]) -> Secret:
        """Have claims signed. The key is read once: each request is one of the child's few."""
        if self._key is None:
            self._key = await self._read_key()
        return await sign_assertion(self._api, self._child, self._mount, self._key, claims)

    async def _read_key(self) -> AssertionKey:
        key = await read_key(self._api, self._child, self._mount, self._name)
        chosen = replace(key, version=self._version or key.version)
        if chosen.version not in chosen.public_keys:
            raise VaultFault(f"its key has no version {chosen.version}", Cause.ROLE_UNSAFE)
        return chosen


@dataclass(frozen=True, slots=True)
class _Request:
    """How one role's server is asked."""

    name: str
    role: OAuthRole
    kept: Kept
    sign: Sign
    holders: Holders

    async def ask_token(self, tag: CallTag, unique: str) -> Granted:
        """Ask for a token; see `Granted`.

        Raises:
            EndpointFault: There is none.
            VaultFault: Vault did not sign.
        """
        form = await make_form(self.role, tag, self.sign, unique)
        proof, headers = await authenticate(self.role, self.kept, self.sign, f"{unique}.client")
        reply = await post_form(self.role.token_url, form | proof, headers, self.kept.ca_pem, TIMEOUT_SECONDS)
        answer = read_answer(reply)
        try:
            return read_grant(self.role, answer)
        except EndpointFault:
            await self._end_unfit(answer.get("access_token"), tag)
            raise

    async def _end_unfit(self, token: object, tag: CallTag) -> None:
        """Have what is not taken ended all the same: it may be good for more than was asked for."""
        if isinstance(token, str):
            self.hold(unfit := Secret(token))
            await _Revocation(self, unfit, tag.call_id).revoke()

    def hold(self, token: Secret) -> int:
        """Note one call more that has a token; returns how many have it."""
        return self.holders.take(self.role.token_url, token)

    def ending(self, token: Secret) -> AbstractContextManager[None]:
        """See `Holders.ending`."""
        return self.holders.ending(self.role.token_url, token)

    def give_back(self, token: Secret) -> int:
        """Note one call less that has a token; returns how many still have it."""
        return self.holders.give_back(self.role.token_url, token)

    async def revoke(self, token: Secret) -> int:
        """Have a token revoked (RFC 7009); returns the status.

        Raises:
            EndpointFault: The server gave no answer.
            VaultFault: Vault did not sign.
        """
        form = {"token": token.reveal(), "token_type_hint": "access_token"}
        unique = secrets.token_urlsafe(16)
        proof, headers = await authenticate(self.role, self.kept, self.sign, unique)
        url = self.role.revocation_url
        return (await post_form(url, form | proof, headers, self.kept.ca_pem, REVOKE_SECONDS)).status


class _Revocation:
    """The early end of what one call has of a token."""

    def __init__(
        self, request: _Request, token: Secret, call_id: str, expires: datetime | None = None
    ) -> None:
        self._request, self._token = request, token
        self._call_id, self._expires = call_id, expires
        self._was_asked = False

    async def revoke(self) -> None:
        """Ask for it once, unless others have it; what fails is logged, and it ends by its own time."""
        if self._was_asked:
            return
        self._was_asked = True
        if self._request.give_back(self._token) or not self._request.role.revocation_url:
            return
        with self._request.ending(self._token):
            cause = await self._try()
        if cause:
            until = self._expires.isoformat(timespec="seconds") if self._expires else "unknown"
            facts = {"role": self._request.name, "call_id": self._call_id, "cause": cause, "expires": until}
            _log.warning("access token not revoked", extra=facts)

    async def _try(self) -> str:
        """Ask for it; returns what went wrong."""
        try:
            async with asyncio.timeout(REVOKE_SECONDS):  # Vault's signature is within it
                status = await self._request.revoke(self._token)
        except VaultFault as fault:
            return str(fault)
        except Exception as error:  # the child ends all the same; a foreign text may hold the secret
            return f"it could not be asked ({type(error).__name__})"
        return "" if status == 200 else f"the authorization server: it refused with status {status}"
