"""The doctor's look at the issuers of tokens: are their keys there, and which."""

from __future__ import annotations

from broker.doctor.finding import Finding, bad, fine
from broker.identity_settings import Issuer
from broker.tokens.documents import KeysUnavailable, fetch_keys, read_keys


async def check_issuer(issuer: Issuer) -> list[Finding]:
    """Read an issuer's keys as a broker does."""
    subject = f"issuer {issuer.issuer}"
    try:
        if issuer.jwks_file is not None:
            keys, again = read_keys(issuer, issuer.jwks_file), "when the file changes"
        else:
            keys, again = await fetch_keys(issuer), f"every {issuer.refresh_seconds:g} s"
    except KeysUnavailable as error:
        remedy = "correct identity.issuers, or the issuer; without keys none of its tokens is taken"
        return [bad(subject, f"its keys cannot be read: {error}", remedy)]
    names = keys.names
    told = f"{len(names)} key{'' if len(names) == 1 else 's'} ({', '.join(names[:5])})"
    return [fine(subject, f"{told}; a broker reads them again {again}")]
