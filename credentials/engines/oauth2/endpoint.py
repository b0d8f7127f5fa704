"""Requests to an authorization server, made by the broker: it is another party, and its answers are hostile.

Rules:

1. One request, no redirect, no proxy, nothing from the environment; TLS is verified. The secret is shown to
   whom the operator named.
2. Five seconds, 64 KiB, no compression: what is slower or larger is no answer.
3. Nothing that the server said is told, but for error codes that are in the RFCs: those help the operator.
"""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from credentials.engines.oauth2.names import Names
from credentials.errors import Cause
from credentials.transport import VaultFault

TIMEOUT_SECONDS = 5.0
MAX_ANSWER_BYTES = 64 * 1024
OWN_WORDS = "the authorization server gave no token (the broker's log says why)"
_HINTS: Mapping[str, str] = {
    "invalid_request": "it does not take what the role asks for",
    "invalid_client": "it does not know the client: see client_id, client_auth and the secret",
    "invalid_grant": "it does not take the assertion: see issuer, and that it knows the role's public key",
    "unauthorized_client": "the client may not use this grant",
    "unsupported_grant_type": "it does not know this grant",
    "invalid_scope": "it does not give this scope",
    "invalid_target": "it does not give tokens for this audience or resource",
}
"""Error codes of RFC 6749, 5.2 and RFC 8693, 2.2.2. All else that it says is kept from everybody."""


class EndpointFault(VaultFault):
    """The authorization server gave no token that can be used."""

    def __init__(self, message: str, cause: Cause) -> None:
        super().__init__(f"the authorization server: {message}", cause, OWN_WORDS)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, read to its end.

    Attributes:
        content_type: Without parameters, lower case.
    """

    status: int
    content_type: str
    body: bytes


async def post_form(
    url: str, fields: Mapping[str, str], headers: Mapping[str, str], ca_pem: str, seconds: float
) -> Reply:
    """Send a form once.

    Args:
        url: Checked (`role.OAuthRole`).
        fields: The form.
        headers: Beside those of a form.
        ca_pem: Whom to trust; "" for the system's.
        seconds: For all of it.

    Raises:
        EndpointFault: No answer, none within the bounds, or a redirect.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _send(url, fields, headers, _trust(ca_pem))
    except TimeoutError as error:
        raise EndpointFault(f"no answer within {seconds:g} s", Cause.TIMEOUT) from error
    except (aiohttp.ClientSSLError, ssl.SSLError) as error:
        raise EndpointFault("its certificate is not trusted; see ca_pem", Cause.UNREACHABLE) from error
    except (aiohttp.ClientConnectionError, OSError) as error:
        raise EndpointFault("it does not answer", Cause.UNREACHABLE) from error
    except (aiohttp.ClientError, ValueError):
        # Without its cause: aiohttp's own has the headers that were sent, and with them the secret.
        raise EndpointFault("its answer is no proper HTTP", Cause.BACKEND) from None


def read_answer(reply: Reply) -> dict[str, Any]:
    """Return what a good answer says.

    Raises:
        EndpointFault: It refused, or what it said is no JSON object.
    """
    if reply.status != 200:
        raise _refusal(reply)
    if reply.content_type != "application/json":
        raise EndpointFault("its answer is not of type application/json", Cause.BACKEND)
    answer = _parse(reply.body)
    if answer is None:
        raise EndpointFault("its answer is no proper JSON object", Cause.BACKEND)
    return answer


async def _send(
    url: str, fields: Mapping[str, str], headers: Mapping[str, str], trust: ssl.SSLContext
) -> Reply:
    connector = aiohttp.TCPConnector(ssl=trust, force_close=True, resolver=Names())
    async with (
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as session,
        session.post(
            url,
            data=dict(fields),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", **headers},
            allow_redirects=False,
        ) as response,
    ):
        if 300 <= response.status < 400:
            raise EndpointFault("it names another address, which is not followed", Cause.REFUSED)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise EndpointFault("its answer is compressed", Cause.BACKEND)
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise EndpointFault(f"its answer is larger than {MAX_ANSWER_BYTES} bytes", Cause.BACKEND)
        return Reply(response.status, response.content_type.lower(), bytes(body))


@functools.lru_cache(maxsize=64)
def _trust(ca_pem: str) -> ssl.SSLContext:
    """Return whom to trust; kept, because reading the system's store takes milliseconds."""
    context = ssl.create_default_context(cadata=ca_pem or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _refusal(reply: Reply) -> EndpointFault:
    busy = reply.status == 429 or reply.status >= 500
    cause = Cause.BACKEND if busy else Cause.REFUSED
    answer = _parse(reply.body) if reply.content_type == "application/json" else None
    code = (answer or {}).get("error")
    hint = _HINTS.get(code, "") if isinstance(code, str) else ""
    said = f": {code}, {hint}" if hint else ""
    return EndpointFault(f"it refused with status {reply.status}{said}", cause)


def _parse(body: bytes) -> dict[str, Any] | None:
    """Read a JSON object; None for what two readers could read differently."""
    try:
        answer = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
