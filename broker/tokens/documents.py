"""What an issuer publishes: its discovery document, and its set of keys.

Rules:
1. Over TLS with a checked certificate, or from loopback; no redirect, no proxy, no cookie.
2. An answer is bounded in size and time: an issuer that was taken over must not hold the broker up.
3. A discovery document is believed only if it says that it is of the very issuer that was configured.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from broker.identity_settings import Issuer, is_loopback
from broker.tokens.form import parse_strict_json
from broker.tokens.keys import MAX_SET_BYTES, KeySet, KeySetInvalid, parse_key_set

FETCH_SECONDS = 5.0
"""For all that one refresh asks of an issuer."""
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


class KeysUnavailable(Exception):
    """An issuer's keys cannot be read now; the message says why, for the operator."""


async def fetch_keys(issuer: Issuer) -> KeySet:
    """Read an issuer's keys from where its settings say.

    Raises:
        KeysUnavailable: They cannot be read, or none of them can be used.
    """
    try:
        async with asyncio.timeout(FETCH_SECONDS), _open(issuer.ca_file) as session:
            url = await _discover(session, issuer) if issuer.discovery else issuer.jwks_url
            return parse_key_set(await _get(session, url), issuer.algorithms, issuer.issuer)
    except TimeoutError as error:
        raise KeysUnavailable(f"did not answer within {FETCH_SECONDS:g} s") from error
    except KeySetInvalid as error:
        raise KeysUnavailable(f"its set of keys {error}") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise KeysUnavailable(str(error) or type(error).__name__) from error


def read_keys(issuer: Issuer, path: Path) -> KeySet:
    """Read an issuer's keys from a file.

    Raises:
        KeysUnavailable: It cannot be read, or none of its keys can be used.
    """
    try:
        with path.open("rb") as file:
            return parse_key_set(file.read(MAX_SET_BYTES + 1), issuer.algorithms, issuer.issuer)
    except OSError as error:
        raise KeysUnavailable(f"{path}: cannot be read ({error.strerror})") from error
    except KeySetInvalid as error:
        raise KeysUnavailable(f"{path}: {error}") from error


def _open(ca_file: Path | None) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,  # a few packed kilobytes would be gigabytes before they can be counted
    )


async def _discover(session: aiohttp.ClientSession, issuer: Issuer) -> str:
    """Find where an issuer's keys are (OpenID Connect Discovery 1.0, sections 4 and 4.3)."""
    data = await _get(session, f"{issuer.issuer.rstrip('/')}/.well-known/openid-configuration")
    document = parse_strict_json(data)
    if not isinstance(document, dict) or document.get("issuer") != issuer.issuer:
        raise KeysUnavailable("its discovery document is of another issuer")
    url = document.get("jwks_uri")
    if not isinstance(url, str) or not (urlsplit(url).scheme == "https" or _is_local(url, issuer)):
        raise KeysUnavailable("its discovery document names no https:// jwks_uri")
    return url


def _is_local(url: str, issuer: Issuer) -> bool:
    """Tell whether issuer and keys are both on this machine; nobody else may point there."""
    hosts = [urlsplit(each) for each in (url, issuer.issuer)]
    return all(each.scheme == "http" and is_loopback(each.hostname or "") for each in hosts)


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url, allow_redirects=False, headers=_HEADERS) as response:
        if response.status != 200:
            raise KeysUnavailable(f"answered {response.status} for {url}")
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > MAX_SET_BYTES:
                raise KeysUnavailable(f"answered with more than {MAX_SET_BYTES} bytes for {url}")
        return bytes(data)
