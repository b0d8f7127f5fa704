"""Tokens: JSON Web Tokens of configured issuers, beside client certificates.

    authorization: Bearer TOKEN
      → form.py          three parts, strict base64url and JSON, no header that points elsewhere
      → key_source.py    the issuer's key, from memory; fetched off the path
      → verifier.py      the signature, and what was checked before
      → claims.py        issuer, audience, times, and who that is: a `Caller`

Rules:
1. Nothing of a token is believed before its signature; then only what docs/identity.md lists.
2. A token is a secret: no message, log, record or trace holds it, or a part of it that was not checked.
3. What cannot be checked is refused: no keys, no token.
"""
