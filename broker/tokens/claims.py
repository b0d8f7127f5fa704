"""What a token's claims say, once its signature is checked: for how long, and who that is.

    act present   the agent is act.sub, and it acts for the user in sub (RFC 8693, section 4.1)
    otherwise     the agent is the claim `agent_claim`, the user the claim `subject_claim`, if any

A name is taken to the letter or refused: what two people wrote differently never becomes one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from broker.identity_settings import Issuer
from broker.model import Caller, Role
from broker.tokens.form import refuse

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,128}")
_MAX_AUDIENCES = 32
_MAX_TIME = 1 << 40
OWN_NAMES = "toolcrib-"
TOKEN_ROLES = ("agent", "orchestrator")

Claims = Mapping[str, Any]


def check_audience(claims: Claims, issuer: Issuer) -> None:
    """See that a token is for us.

    Raises:
        Refused: TOKEN_INVALID.
    """
    given = claims.get("aud")
    audiences = [given] if isinstance(given, str) else given
    if not isinstance(audiences, list) or not all(isinstance(each, str) for each in audiences):
        raise refuse("the token has no audience (aud)")
    if len(audiences) > _MAX_AUDIENCES or not set(audiences) & set(issuer.audiences):
        raise refuse("the token is for another audience (aud)")


def read_validity(claims: Claims, issuer: Issuer) -> tuple[float, float]:
    """Read from when to when a token holds, in seconds since the epoch, with the leeway of its issuer.

    Raises:
        Refused: TOKEN_INVALID, a time is missing, no number, or they do not fit together.
    """
    expires, issued = _read_time(claims, "exp"), _read_time(claims, "iat")
    begins = _read_time(claims, "nbf") if "nbf" in claims else issued
    if not max(issued, begins) < expires:
        raise refuse("the token ends before it begins (exp)")
    if expires - issued > issuer.max_lifetime_seconds:
        raise refuse(f"the token lives longer than {issuer.max_lifetime_seconds} s (iat to exp)")
    return max(issued, begins) - issuer.leeway_seconds, expires + issuer.leeway_seconds


def make_caller(claims: Claims, issuer: Issuer) -> Caller:
    """Say who a token is.

    Raises:
        Refused: TOKEN_INVALID, it does not say it in a way that this broker takes.
    """
    owner = _read_name(claims, "sub", "sub")
    if "act" in claims:
        agent, subject = _read_actor(claims["act"], issuer), owner
    else:
        agent = _read_name(claims, issuer.agent_claim, issuer.agent_claim)
        subject = _read_subject(claims, issuer, agent)
    return Caller(
        _read_tenant(claims, issuer),
        _name_agent(agent, issuer),
        Role(issuer.role),
        _name_subject(subject, issuer),
        f"oidc:{issuer.issuer}#{agent}",
    )


def _read_time(claims: Claims, name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refuse(f"the token has no {name}, or it is no number")
    if not 0 <= value < _MAX_TIME:
        raise refuse(f"the token's {name} is no time of this age")
    return float(value)


def _read_name(claims: Claims, name: str, told: str) -> str:
    """Read a claim that names somebody: visible ASCII, so that what looks alike is alike."""
    value = claims.get(name)
    if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
        raise refuse(f"the token's {told} must be 1 to 128 visible ASCII characters")
    return value


def _read_actor(actor: Any, issuer: Issuer) -> str:
    if not isinstance(actor, dict):
        raise refuse("the token's act is no object")
    if "act" in actor:
        raise refuse("the token's act holds an act: a chain of actors is not taken, only one")
    if actor.get("iss", issuer.issuer) != issuer.issuer:
        raise refuse("the token's act names an actor of another issuer")
    return _read_name(actor, "sub", "act.sub")


def _read_subject(claims: Claims, issuer: Issuer, agent: str) -> str:
    """Read on whose behalf an agent acts; an application's own token names itself, which is nobody else."""
    if issuer.subject_claim is None or issuer.subject_claim not in claims:
        return ""
    if issuer.subject_requires is not None and issuer.subject_requires not in claims:
        return ""
    subject = _read_name(claims, issuer.subject_claim, issuer.subject_claim)
    return "" if subject == agent else subject


def _read_tenant(claims: Claims, issuer: Issuer) -> str:
    if issuer.tenant is not None:
        return issuer.tenant
    value = claims.get(str(issuer.tenant_claim))
    if not isinstance(value, str) or value not in issuer.tenants:
        raise refuse(f"the token's {issuer.tenant_claim} is not one of the tenants of its issuer here")
    return issuer.tenants[value]


def _name_agent(value: str, issuer: Issuer) -> str:
    if value in issuer.agents:
        return issuer.agents[value]
    name = issuer.agent_prefix + value
    if not issuer.agent_prefix:
        raise refuse(f'"{value}" is not one of the agents of its issuer here')
    if not _NAME.fullmatch(name) or name.startswith(OWN_NAMES):
        raise refuse(f'"{value}" cannot be an agent\'s name: the operator must give it one in `agents`')
    return name


def _name_subject(value: str, issuer: Issuer) -> str:
    if not value:
        return ""
    subject = issuer.subject_prefix + value
    if not _SUBJECT.fullmatch(subject):
        raise refuse("the token's user has a name with other characters than letters, digits and . _ @ -")
    return subject
