"""The few requests that the broker makes to Vault, each one blocking, each with a timeout.

Rules:
1. Nothing is taken from the environment: no token, no proxy, no CA that the settings did not name.
2. Redirects are not followed: a token goes to the address that the operator gave and to no other.
3. What hvac and requests raise becomes `VaultFault` here, once; its text holds no token and no URL.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from hvac import exceptions
from hvac.adapters import RawAdapter
from requests.adapters import HTTPAdapter

from credentials.errors import Cause
from credentials.lease import CallTag
from credentials.policies import CHILD_USES, TOKEN_ROLE, tool_policy_name
from credentials.secret import Secret

_CAUSES: dict[type[Exception], Cause] = {
    exceptions.VaultDown: Cause.SEALED,
    exceptions.VaultNotInitialized: Cause.SEALED,
    exceptions.Forbidden: Cause.DENIED,
    exceptions.Unauthorized: Cause.DENIED,
    exceptions.InvalidPath: Cause.UNKNOWN,
    exceptions.InvalidRequest: Cause.INVALID,
    exceptions.InternalServerError: Cause.BACKEND,
    exceptions.BadGateway: Cause.UNREACHABLE,
    exceptions.RateLimitExceeded: Cause.OVERLOADED,
}


class VaultFault(Exception):
    """A request was refused, or got no answer (then it may have been carried out all the same)."""

    def __init__(self, message: str, cause: Cause) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Child:
    """The token of one credential of one call."""

    token: Secret
    accessor: str
    policy_missing: bool


@dataclass(frozen=True, slots=True)
class DatabaseLogin:
    """What the database engine answered."""

    lease_id: str
    username: str
    password: Secret
    duration_seconds: int


class VaultApi:
    """Blocking requests to one Vault; safe to use from several threads."""

    def __init__(
        self, address: str, *, ca_file: Path | None, timeout_seconds: float, connections: int
    ) -> None:
        self.address = address
        self.timeout_seconds = timeout_seconds
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.verify = str(ca_file) if ca_file else True
        pool = HTTPAdapter(pool_connections=1, pool_maxsize=connections)
        self._http.mount("http://", pool)
        self._http.mount("https://", pool)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def login(self, role_id: Secret, secret_id: Secret) -> Secret:
        """Log in with AppRole and return the session's token."""
        body = {"role_id": role_id.reveal(), "secret_id": secret_id.reveal()}
        auth = _take(self._ask("post", "auth/approle/login", None, body), "auth", "client_token")
        return Secret(auth["client_token"])

    def renew(self, session: Secret) -> None:
        """Give the session another period."""
        self._ask("post", "auth/token/renew-self", session, {})

    def is_session_alive(self, session: Secret) -> bool:
        """Ask whether the token lives. It may look itself up, so DENIED means that it ended."""
        try:
            self._ask("get", "auth/token/lookup-self", session)
        except VaultFault as fault:
            if fault.cause is Cause.DENIED:
                return False
            raise
        return True

    def revoke_session(self, session: Secret) -> None:
        """End the session; Vault then ends what hangs under it, in its own time."""
        self._ask("post", "auth/token/revoke-self", session, {})

    def create_child(self, session: Secret, role: str, ttl_seconds: int, tag: CallTag) -> Child:
        """Make a token under the session that can read one database role."""
        answer = self._ask(
            "post",
            f"auth/token/create/{TOKEN_ROLE}",
            session,
            {
                "policies": [tool_policy_name(role)],
                "ttl": f"{ttl_seconds}s",
                "num_uses": CHILD_USES,
                "no_default_policy": True,
                "renewable": False,
                "display_name": "toolcrib",
                "meta": {
                    "call_id": tag.call_id,
                    "tenant": tag.tenant,
                    "environment": tag.environment,
                    "digest": tag.digest,
                },
            },
        )
        auth = _take(answer, "auth", "client_token", "accessor")
        missing = any("does not exist" in warning for warning in answer.get("warnings") or ())
        return Child(Secret(auth["client_token"]), auth["accessor"], missing)

    def read_database_login(self, child: Secret, role: str) -> DatabaseLogin:
        """Have the database engine make a login; this is what creates the lease."""
        answer = self._ask("get", f"database/creds/{role}", child)
        data = _take(answer, "data", "username", "password")
        lease_id, duration_seconds = str(answer.get("lease_id", "")), int(answer.get("lease_duration", 0))
        if not lease_id:
            raise VaultFault(
                "Vault made a login without a lease: its end could not be confirmed", Cause.INVALID
            )
        return DatabaseLogin(lease_id, data["username"], Secret(data["password"]), duration_seconds)

    def revoke_lease(self, session: Secret, lease_id: str) -> None:
        """Run the role's revocation statements now; an unknown lease is fine."""
        try:
            self._ask("put", "sys/leases/revoke", session, {"lease_id": lease_id, "sync": True})
        except VaultFault as fault:
            if fault.cause is not Cause.INVALID:
                raise
            # Vault answers 400 when the statements fail at the target, or when it cannot be reached.
            raise VaultFault(f"the revocation failed at the target: {fault}", Cause.BACKEND) from fault

    def revoke_accessor(self, session: Secret, accessor: str) -> None:
        """End a child; an unknown one is fine."""
        try:
            self._ask("post", "auth/token/revoke-accessor", session, {"accessor": accessor})
        except VaultFault as fault:
            if "invalid accessor" not in str(fault):
                raise

    def is_lease_known(self, session: Secret, lease_id: str) -> bool:
        """Ask whether Vault still has the lease."""
        return self._is_known(session, "put", "sys/leases/lookup", {"lease_id": lease_id}, "invalid lease")

    def is_accessor_known(self, session: Secret, accessor: str) -> bool:
        """Ask whether Vault still has the token."""
        return self._is_known(
            session, "post", "auth/token/lookup-accessor", {"accessor": accessor}, "invalid accessor"
        )

    def read_database_role(self, session: Secret, role: str) -> dict[str, Any]:
        """Read a role's definition; it holds no secret."""
        return _take(self._ask("get", f"database/roles/{role}", session), "data")

    def read_tool_policy(self, session: Secret, role: str) -> str:
        """Read the policy that a child for this role gets."""
        answer = self._ask("get", f"sys/policies/acl/{tool_policy_name(role)}", session)
        return str(_take(answer, "data", "policy")["policy"])

    def read_token_role(self, session: Secret) -> dict[str, Any]:
        """Read the token role through which children are made."""
        return _take(self._ask("get", f"auth/token/roles/{TOKEN_ROLE}", session), "data")

    def make_data_key(self, session: Secret, name: str, bits: int) -> dict[str, Any]:
        """Make a data key under a transit key: "plaintext" (base64) and "ciphertext"."""
        answer = self._ask("post", f"transit/datakey/plaintext/{name}", session, {"bits": bits})
        return _take(answer, "data", "plaintext", "ciphertext")

    def unwrap_data_key(self, session: Secret, name: str, wrapped: str) -> str:
        """Unwrap a data key; base64."""
        answer = self._ask("post", f"transit/decrypt/{name}", session, {"ciphertext": wrapped})
        return str(_take(answer, "data", "plaintext")["plaintext"])

    def _is_known(self, session: Secret, method: str, path: str, body: dict[str, Any], unknown: str) -> bool:
        try:
            self._ask(method, path, session, body)
        except VaultFault as fault:
            # Only these words mean "gone"; a denied, sealed or broken answer proves nothing.
            if unknown in str(fault):
                return False
            raise
        return True

    def _ask(
        self, method: str, path: str, token: Secret | None, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            try:
                response = self._send(method, path, token, body)
            except requests.exceptions.ConnectionError as error:
                # An idle connection that Vault closed. Every request but the one that makes a login may be
                # sent twice: a second child that nobody knows holds no lease and ends with the session.
                if isinstance(error, requests.exceptions.Timeout) or path.startswith("database/creds/"):
                    raise
                response = self._send(method, path, token, body)
            if response.status_code == requests.codes.no_content:
                return {}
            if response.status_code != requests.codes.ok:
                raise VaultFault(f"unexpected status {response.status_code}", Cause.INVALID)
            return dict(response.json())
        except (requests.exceptions.RequestException, exceptions.VaultError) as error:
            raise self._translate(error) from error

    def _send(
        self, method: str, path: str, token: Secret | None, body: dict[str, Any] | None
    ) -> requests.Response:
        adapter = RawAdapter(
            base_uri=self.address,
            token=token.reveal() if token else None,
            session=self._http,
            verify=self._http.verify,
            timeout=self.timeout_seconds,
            allow_redirects=False,
        )
        response: requests.Response = adapter.request(method, f"v1/{path}", json=body)
        return response

    def _translate(self, error: Exception) -> VaultFault:
        if isinstance(error, exceptions.VaultError):
            return VaultFault(_reason(error), _CAUSES.get(type(error), Cause.INVALID))
        if isinstance(error, requests.exceptions.Timeout):
            text = f"no answer from {self.address} within {self.timeout_seconds:g} s"
            return VaultFault(text, Cause.TIMEOUT)
        if isinstance(error, requests.exceptions.SSLError):
            text = f"the certificate of {self.address} is not trusted; check vault.ca_file"
            return VaultFault(text, Cause.UNREACHABLE)
        return VaultFault(f"{self.address} does not answer; is Vault running there?", Cause.UNREACHABLE)


def _reason(error: exceptions.VaultError) -> str:
    text = "; ".join(str(item) for item in error.errors or ()) or str(error.args[0] or "no reason given")
    return " ".join(text.replace("1 error occurred:", "").replace("* ", "").split())[:500]


def _take(answer: dict[str, Any], section: str, *names: str) -> dict[str, Any]:
    """Return a section of an answer that has all these names."""
    part = answer.get(section)
    if not isinstance(part, dict) or any(name not in part for name in names):
        raise VaultFault(f'the answer has no proper "{section}": is this a Vault?', Cause.INVALID)
    return part
