"""Stage 1, authenticate: the channel's certificate, or the token in metadata `authorization` → `Caller`.

A caller has one of the two; broker/tokens/ has the second. The identity in a certificate is its SPIFFE id, of
the form

    spiffe://TRUST-DOMAIN/tenant/TENANT/ROLE/NAME[/subject/SUBJECT]

with ROLE one of agent, orchestrator, author, reviewer, operator. TLS checked the chain when the channel
opened; dates and blocks are checked again for each call, because a channel can outlive its certificate.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime

from cryptography import x509

from broker.brakes import Brakes
from broker.certificates import find_fingerprints
from broker.errors import Refused
from broker.model import Caller, Role
from broker.request import Peer
from broker.tokens.claims import OWN_NAMES, TOKEN_ROLES
from broker.tokens.form import refuse as refuse_token
from broker.tokens.verifier import Tokens
from toolcrib.v1.reasons_pb2 import Reason

_NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
_PATH = re.compile(
    rf"/tenant/(?P<tenant>{_NAME})/(?P<role>agent|orchestrator|author|reviewer|operator)/(?P<name>{_NAME})"
    r"(?:/subject/(?P<subject>[A-Za-z0-9][A-Za-z0-9._@-]{0,127}))?"
)
# What an issuer's token says of itself may hold such a path, too.
_ACCEPTED = re.compile(rf"spiffe://[^/]+{_PATH.pattern}")
_MAX_REMEMBERED = 1024


class Authenticator:
    """Turns a peer into a caller of one of this broker's tenants."""

    def __init__(
        self,
        trust_domain: str,
        tenants: Collection[str],
        clock: Callable[[], datetime],
        brakes: Brakes,
        tokens: Tokens | None = None,
    ) -> None:
        self._prefix = f"spiffe://{trust_domain}"
        self._tenants = frozenset(tenants)
        self._clock = clock
        self._brakes = brakes
        self._tokens = tokens
        self._known: OrderedDict[bytes, tuple[Caller, datetime, datetime]] = OrderedDict()

    def __call__(self, peer: Peer) -> Caller:
        """Prove who calls.

        Raises:
            Refused: IDENTITY_UNKNOWN, CERTIFICATE_EXPIRED, TOKEN_INVALID, TOKEN_KEYS_UNAVAILABLE or
                CALLER_BLOCKED.
        """
        has_token = bool(peer.unverified_authorization)
        caller = self._check_token(peer) if has_token else self._check_certificate(peer)
        self._brakes.check_caller(caller)
        return caller

    async def prepare(self, peer: Peer) -> None:
        """Have at hand what it takes to check a token: its issuer's key. Refuses nothing."""
        if self._tokens is not None and not peer.unverified_pem:
            await self._tokens.prepare(peer.unverified_authorization)

    def _check_token(self, peer: Peer) -> Caller:
        if self._tokens is None:
            raise refuse_token("this broker takes client certificates and no token in metadata authorization")
        if peer.unverified_pem:
            raise refuse_token(
                "a call has one identity: send no metadata authorization beside a client certificate, or use "
                "the door for tokens"
            )
        return self._tokens.check(peer.unverified_authorization)

    def _check_certificate(self, peer: Peer) -> Caller:
        known = self._known.get(peer.unverified_pem)
        if known is None:
            known = self._read(peer)
            self._known[peer.unverified_pem] = known
            if len(self._known) > _MAX_REMEMBERED:
                self._known.popitem(last=False)
        caller, not_before, not_after = known
        if not not_before <= self._clock() < not_after:
            raise Refused(
                Reason.REASON_CERTIFICATE_EXPIRED,
                f"the client certificate is valid from {not_before:%Y-%m-%dT%H:%M:%SZ} to "
                f"{not_after:%Y-%m-%dT%H:%M:%SZ}; get a new one and open a new channel",
            )
        return caller

    def _read(self, peer: Peer) -> tuple[Caller, datetime, datetime]:
        if not peer.unverified_pem:
            raise _unknown(
                "the channel carries no client certificate; connect with mutual TLS, or send a token at the "
                "door for tokens"
            )
        try:
            certificate = x509.load_pem_x509_certificate(peer.unverified_pem)
            spiffe_id = _spiffe_id(certificate)
            fingerprint, *twins = find_fingerprints(certificate)
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            raise _unknown("the client certificate cannot be read; get a new one") from error
        return (
            replace(self._caller(spiffe_id), certificate=fingerprint, twins=tuple(twins)),
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )

    def _caller(self, spiffe_id: str) -> Caller:
        path = spiffe_id.removeprefix(self._prefix)
        match = _PATH.fullmatch(path) if path != spiffe_id else None
        if match is None:
            raise _unknown(
                f'"{spiffe_id}" is no identity of this broker; expected '
                f"{self._prefix}/tenant/TENANT/(agent|orchestrator|author|reviewer|operator)/NAME"
            )
        if match["tenant"] not in self._tenants:
            raise _unknown(f'tenant "{match["tenant"]}" is not one of this broker\'s')
        if match["name"].startswith(OWN_NAMES):
            raise _unknown(f'"{match["name"]}": names that begin with {OWN_NAMES} are the broker\'s own')
        self._check_prefix(match["tenant"], match["name"], match["role"])
        return Caller(
            match["tenant"],
            match["name"],
            Role(match["role"]),
            match["subject"] or "",
            spiffe_id,
        )

    def _check_prefix(self, tenant: str, name: str, role: str) -> None:
        """See that a certificate does not name an agent that only a token can be."""
        if self._tokens is None or role not in TOKEN_ROLES:
            return
        for prefix in self._tokens.prefixes(tenant):
            if name.startswith(prefix):
                raise _unknown(f'"{name}": names that begin with {prefix} are for an issuer of tokens')


def name_of(spiffe_id: str) -> str:
    """Read the name in an identity that was accepted once, whatever role or subject it came with."""
    path = _ACCEPTED.fullmatch(spiffe_id)
    return path["name"] if path else ""


def tenant_of(spiffe_id: str) -> str:
    """Read the tenant in an identity that was accepted once."""
    path = _ACCEPTED.fullmatch(spiffe_id)
    return path["tenant"] if path else ""


def _spiffe_id(certificate: x509.Certificate) -> str:
    """Return the one URI name; X.509-SVID allows exactly one (SPIFFE X509-SVID, section 2)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise _unknown(f"the client certificate has {len(uris)} URI names; a SPIFFE certificate has one")
    return str(uris[0])


def _unknown(message: str) -> Refused:
    return Refused(Reason.REASON_IDENTITY_UNKNOWN, message)
