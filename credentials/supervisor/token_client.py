"""The three things that the supervisor asks of Vault, with the standard library alone.

Each request has a connection of its own, so that none waits for another one, and none finds its connection
closed. Redirects are not followed: the token goes to the address that the operator gave and to no other.
"""

from __future__ import annotations

import enum
import http.client
import ssl
from urllib.parse import urlsplit

from credentials.secret import Secret
from credentials.supervisor.messages import Begin

_MAX_ANSWER_BYTES = 65_536
_DONE = (200, 204)
_DENIED = 403


class Said(enum.Enum):
    """What Vault said of the token."""

    DONE = "done"
    UNKNOWN = "unknown"
    NOTHING = "nothing"


class AddressInvalid(Exception):
    """The address or a file cannot be used."""


class TokenClient:
    """Renews and revokes a token.

    Attributes:
        trouble: What was wrong the last time that Vault said nothing of use.
    """

    def __init__(self, begin: Begin) -> None:
        """Read the files that it takes to know Vault.

        Raises:
            AddressInvalid: One cannot be read, or the address is none.
        """
        try:
            parts = urlsplit(begin.address)
            self._host, self._port = parts.hostname or "", parts.port
            self._context = _make_context(begin) if parts.scheme == "https" else None
        except (ValueError, OSError) as error:
            raise AddressInvalid(f"{type(error).__name__}: {error}") from error
        self._path = parts.path.rstrip("/") + "/v1/auth/token/"
        self._timeout_seconds = begin.timeout_seconds
        self.trouble = ""

    def renew(self, token: Secret) -> Said:
        """Give the token another period; UNKNOWN when it ended."""
        return self._change("renew-self", token)

    def revoke(self, token: Secret) -> Said:
        """End the token; DONE or UNKNOWN when it is gone."""
        return self._change("revoke-self", token)

    def _change(self, what: str, token: Secret) -> Said:
        status = self._ask("POST", what, token)
        if status in _DONE:
            return Said.DONE
        # Denied may also mean that this is not allowed to it: a token may always look itself up.
        if status == _DENIED and self._ask("GET", "lookup-self", token) == _DENIED:
            return Said.UNKNOWN
        return Said.NOTHING

    def _ask(self, method: str, what: str, token: Secret) -> int:
        """Send one request; 0 when there is no answer."""
        connection = self._connect()
        try:
            headers = {"X-Vault-Token": token.reveal(), "X-Vault-Request": "true", "Connection": "close"}
            connection.request(method, self._path + what, b"{}" if method == "POST" else None, headers)
            answer = connection.getresponse()
            answer.read(_MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Only its kind: the text of some repeats what was sent.
            self.trouble = f"no answer ({type(error).__name__})"
            return 0
        finally:
            connection.close()
        self.trouble = f"status {answer.status}"
        return answer.status

    def _connect(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_seconds)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout_seconds, context=self._context
        )


def _make_context(begin: Begin) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=begin.ca_file or None)
    if begin.certificate:
        context.load_cert_chain(begin.certificate, begin.private_key)
    return context
