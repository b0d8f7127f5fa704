"""What is asked of a token endpoint, and what is taken as a token (RFC 6749, 6750, 7523, 8693)."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

from credentials.engines.base import MIN_SECRET_LENGTH
from credentials.engines.oauth2.endpoint import EndpointFault
from credentials.engines.oauth2.role import Kept, OAuthRole
from credentials.errors import Cause
from credentials.lease import CallTag
from credentials.secret import Secret

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS = 60
MAX_EXPIRES_SECONDS = 366 * 86_400
MAX_TOKEN_CHARACTERS = 8192
"""Servers take headers of 8 KiB, and some more."""
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, 2.1. What has other characters could end the header that it is written into."""

Sign = Callable[[Mapping[str, Any]], Awaitable[Secret]]
"""Has claims signed with the role's key."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A token that was given.

    Attributes:
        expires_in_seconds: From the moment before it was asked for.
    """

    token: Secret
    expires_in_seconds: int


async def authenticate(
    role: OAuthRole, kept: Kept, sign: Sign, unique: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Say who the broker is, to the server that the role names.

    Args:
        role: Its public part.
        kept: Its secret part.
        sign: Has an assertion signed.
        unique: No other assertion has this.

    Returns:
        Fields of the form, and headers.
    """
    if role.client_auth == "client_secret_post":
        return {"client_id": role.client_id, "client_secret": kept.client_secret.reveal()}, {}
    if role.client_auth == "private_key_jwt":
        claims = {"iss": role.client_id, "sub": role.client_id, **_bounds(role, unique)}
        assertion = await sign(claims)
        fields = {"client_assertion_type": JWT_BEARER, "client_assertion": assertion.reveal()}
        return {"client_id": role.client_id, **fields}, {}
    # RFC 6749, 2.3.1: both are form-encoded first.
    pair = f"{quote_plus(role.client_id)}:{quote_plus(kept.client_secret.reveal())}"
    return {}, {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def make_claims(role: OAuthRole, tag: CallTag, unique: str) -> dict[str, Any]:
    """Say for whom the token is wanted, and who acts for them. Subjects are unique within a tenant only."""
    return {
        "iss": role.issuer,
        "sub": tag.subject,
        "act": {"sub": tag.agent},
        "tenant": tag.tenant,
        **_bounds(role, unique),
    }


async def make_form(role: OAuthRole, tag: CallTag, sign: Sign, unique: str) -> dict[str, str]:
    """Write what is asked for, without who asks."""
    wanted = {"scope": role.scope, "audience": role.audience, "resource": role.resource}
    fields = {name: value for name, value in wanted.items() if value}
    if role.grant == "client_credentials":
        return {"grant_type": "client_credentials", **fields}
    assertion = await sign(make_claims(role, tag, unique))
    return {
        "grant_type": EXCHANGE,
        "subject_token": assertion.reveal(),
        "subject_token_type": JWT_TYPE,
        "requested_token_type": ACCESS_TOKEN_TYPE,
        **fields,
    }


def read_grant(role: OAuthRole, answer: Mapping[str, Any]) -> Granted:
    """Take the token out of an answer. What else stands there, a refresh token too, is dropped.

    Raises:
        EndpointFault: It is none that can be added to a request, or nobody knows when it ends.
    """
    token, seconds = answer.get("access_token"), answer.get("expires_in", role.assumed_seconds or None)
    checks = {
        "its token_type is not Bearer": str(answer.get("token_type")).lower() == "bearer",
        "its access_token is no bearer token": isinstance(token, str) and bool(_BEARER.fullmatch(token)),
        "it does not say when the token ends, and the role has no assumed_seconds": seconds is not None,
        "its expires_in is no sensible number of seconds": seconds is None or _is_sensible(seconds),
        "what it issued is no access token": _is_access_token(role, answer),
        "it gave a broader scope than the role asks for": _is_within(role.scope, answer.get("scope")),
    }
    problem = next((text for text, is_fine in checks.items() if not is_fine), "")
    if not problem and not MIN_SECRET_LENGTH <= len(str(token)) <= MAX_TOKEN_CHARACTERS:
        problem = f"its access_token has not {MIN_SECRET_LENGTH} to {MAX_TOKEN_CHARACTERS} characters"
    if problem:
        raise EndpointFault(problem, Cause.REFUSED)
    return Granted(Secret(str(token)), int(str(seconds)))


def _bounds(role: OAuthRole, unique: str) -> dict[str, Any]:
    """Bind an assertion to one server, one request and a minute."""
    now = int(time.time())
    return {"aud": role.token_url, "jti": unique, "iat": now, "exp": now + ASSERTION_SECONDS}


def _is_sensible(seconds: object) -> bool:
    return type(seconds) is int and 0 < seconds <= MAX_EXPIRES_SECONDS


def _is_access_token(role: OAuthRole, answer: Mapping[str, Any]) -> bool:
    """Tell an access token from an id or refresh token; RFC 8693 makes the server say it."""
    return role.grant == "client_credentials" or answer.get("issued_token_type") in (
        ACCESS_TOKEN_TYPE,
        JWT_TYPE,
    )


def _is_within(asked: str, given: object) -> bool:
    """Tell whether a scope is no broader than what was asked for; "" asks for what the server likes."""
    if not asked or given is None:
        return True
    return isinstance(given, str) and set(given.split()) <= set(asked.split())
