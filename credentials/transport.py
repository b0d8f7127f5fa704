"""How requests reach Vault: one protocol, two ways, one suite of tests for both.

`AsyncTransport` carries what each call needs; `HvacTransport` carries what is asked seldom (bootstrap, check,
rotation), in a bounded pool of threads, because hvac is synchronous. Rules:

1. Nothing is taken from the environment: no token, no proxy, no CA that the settings did not name.
2. Redirects are not followed: a token goes to the address that the operator gave and to no other.
3. What a library raises becomes `VaultFault` here, once; its text holds no token and no URL.
4. A request is sent a second time only where the caller says that it may be: an idle connection that Vault
   closed is no reason to make two logins.
"""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import requests
import urllib3
from hvac.adapters import RawAdapter
from requests.adapters import HTTPAdapter

from credentials.errors import Cause
from credentials.secret import Secret

__all__ = ["AsyncTransport", "HvacTransport", "Peer", "Transport", "VaultFault"]

_CAUSES = {
    400: Cause.INVALID,
    401: Cause.DENIED,
    403: Cause.DENIED,
    404: Cause.UNKNOWN,
    429: Cause.OVERLOADED,
    500: Cause.BACKEND,
    501: Cause.SEALED,
    502: Cause.UNREACHABLE,
    503: Cause.SEALED,
}
_DONE, _REDIRECTS = (200, 204), (301, 302, 303, 307, 308)
MAX_ANSWER_BYTES = 4 * 1024 * 1024


class VaultFault(Exception):
    """A request was refused, or got no answer (then it may have been carried out all the same).

    Attributes:
        own_words: What agents may read of it; "" where the cause decides that.
    """

    def __init__(self, message: str, cause: Cause, own_words: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.own_words = own_words


@dataclass(frozen=True, slots=True)
class Peer:
    """Which Vault, and how we know that it is the one.

    Attributes:
        ca_file: PEM of the CA of Vault's certificate; None: the system's.
        certificate: PEM of our own certificate, for the login by certificate; None: none is shown.
        private_key: PEM of its key.
        timeout_seconds: For one request, to connect and to answer.
        connections: The most that are open at once.
    """

    address: str
    ca_file: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    timeout_seconds: float = 5.0
    connections: int = 33


class Transport(Protocol):
    """A way to ask one Vault."""

    @property
    def peer(self) -> Peer:
        """The Vault that is asked."""

    async def ask(
        self,
        method: str,
        path: str,
        token: Secret | None,
        body: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = True,
    ) -> dict[str, Any]:
        """Send one request and return its answer; {} where there is none.

        Args:
            method: "get", "post", "put", "delete" or "list".
            path: Below /v1/.
            token: None for requests that need none.
            body: JSON-ready.
            repeatable: It may be sent again when the connection was found closed.

        Raises:
            VaultFault: With a cause.
        """

    async def reconnect(self) -> None:
        """Read the files of the peer again for the connections from now on; open ones are closed."""

    async def close(self) -> None:
        """Close the connections."""


class AsyncTransport:
    """Requests from the event loop, by aiohttp."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._base = peer.address.rstrip("/") + "/v1/"
        self._session: aiohttp.ClientSession | None = None

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
        try:
            async with asyncio.timeout(self.peer.timeout_seconds):
                try:
                    return await self._send(method, path, token, body)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                    if not repeatable or isinstance(error, aiohttp.ClientConnectorError):
                        raise
                    return await self._send(method, path, token, body)
        except TimeoutError as error:
            raise _silent(self.peer) from error
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise _untrusted(self.peer) from error
        except aiohttp.InvalidURL as error:
            raise VaultFault(f"{self.peer.address} is no address", Cause.UNREACHABLE) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _absent(self.peer) from error

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def reconnect(self) -> None:
        """Open new connections from now on; see `Transport.reconnect`."""
        await self.close()

    async def _send(
        self, method: str, path: str, token: Secret | None, body: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        session = self._session or self._open()
        headers = {"X-Vault-Request": "true"}
        if token is not None:
            headers["X-Vault-Token"] = token.reveal()
        async with session.request(
            method.upper(), self._base + path, json=body, headers=headers, allow_redirects=False
        ) as response:
            text = bytearray()
            async for chunk in response.content.iter_any():
                text += chunk
                _check_size(text)
        return _read_answer(response.status, bytes(text))

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=self.peer.connections, ssl=_tls_context(self.peer))
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        # aiohttp would send every GET again by itself, and a GET is what makes a login.
        self._session._retry_connection = False
        return self._session


class HvacTransport:
    """Requests by hvac, in a bounded pool of threads."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._threads = ThreadPoolExecutor(min(peer.connections, 16), thread_name_prefix="vault")
        self._http = self._open()

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
        work = functools.partial(self._ask, method, path, token, body, repeatable)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown(wait=False)
        self._http.close()

    async def reconnect(self) -> None:
        """Open new connections from now on; see `Transport.reconnect`."""
        self._http.close()
        self._http = self._open()

    def _open(self) -> requests.Session:
        peer, opened = self.peer, requests.Session()
        opened.trust_env = False
        opened.verify = str(peer.ca_file) if peer.ca_file else True
        if peer.certificate is not None and peer.private_key is not None:
            opened.cert = (str(peer.certificate), str(peer.private_key))
        pool = HTTPAdapter(pool_connections=1, pool_maxsize=peer.connections)
        opened.mount("http://", pool)
        opened.mount("https://", pool)
        return opened

    def _ask(
        self, method: str, path: str, token: Secret | None, body: Mapping[str, Any] | None, repeatable: bool
    ) -> dict[str, Any]:
        try:
            try:
                return self._send(method, path, token, body)
            except requests.exceptions.ConnectionError as error:
                if isinstance(error, requests.exceptions.Timeout) or not repeatable:
                    raise
                return self._send(method, path, token, body)
        except (requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError) as error:
            raise _silent(self.peer) from error
        except requests.exceptions.SSLError as error:
            raise _untrusted(self.peer) from error
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _absent(self.peer) from error

    def _send(
        self, method: str, path: str, token: Secret | None, body: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        adapter = RawAdapter(
            base_uri=self.peer.address,
            token=token.reveal() if token else None,
            session=self._http,
            verify=self._http.verify,
            timeout=self.peer.timeout_seconds,
            allow_redirects=False,
        )
        late = time.monotonic() + self.peer.timeout_seconds
        with adapter.request(method, f"v1/{path}", raise_exception=False, json=body, stream=True) as response:
            text = bytearray()
            # As it comes: a piece that is waited for until it is full would be waited for for ever.
            while chunk := response.raw.read1(65_536, decode_content=True):
                text += chunk
                _check_size(text)
                if time.monotonic() > late:
                    raise requests.exceptions.ReadTimeout
        return _read_answer(response.status_code, bytes(text))


def _tls_context(peer: Peer) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(peer.ca_file) if peer.ca_file else None)
    if peer.certificate is not None:
        context.load_cert_chain(peer.certificate, peer.private_key)
    return context


def _check_size(text: bytearray) -> None:
    if len(text) > MAX_ANSWER_BYTES:
        raise VaultFault(
            f"the answer is larger than {MAX_ANSWER_BYTES} bytes: is this a Vault?", Cause.INVALID
        )


def _read_answer(status: int, text: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(text) if text else {}
    except ValueError:
        answer = None
    if status in _DONE:
        if not isinstance(answer, dict):
            raise VaultFault("the answer is no JSON: is this a Vault?", Cause.INVALID)
        return answer
    if status in _REDIRECTS:
        said = "it names another address, which is not followed: give vault.address the active Vault's"
        raise VaultFault(said, Cause.UNREACHABLE)
    errors = answer.get("errors") if isinstance(answer, dict) else None
    said = "; ".join(str(item) for item in errors) if isinstance(errors, list) else ""
    raise VaultFault(_tidy(said) or f"status {status}", _CAUSES.get(status, Cause.INVALID))


def _tidy(text: str) -> str:
    return " ".join(text.replace("1 error occurred:", "").replace("* ", "").split())[:500]


def _silent(peer: Peer) -> VaultFault:
    return VaultFault(f"no answer from {peer.address} within {peer.timeout_seconds:g} s", Cause.TIMEOUT)


def _untrusted(peer: Peer) -> VaultFault:
    text = f"the certificate of {peer.address} is not trusted; check vault.ca_file"
    return VaultFault(text, Cause.UNREACHABLE)


def _absent(peer: Peer) -> VaultFault:
    return VaultFault(f"{peer.address} does not answer; is Vault running there?", Cause.UNREACHABLE)
