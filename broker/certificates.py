"""Tells a certificate by its fingerprints: its own, and those of the forms that its holder can give it.

An ECDSA signature (r, s) has a twin (r, n - s) that verifies as well, and nobody needs the CA's key to make
it. So whoever stole a certificate can have another DER form of it, with another SHA-256, and TLS takes it: a
block of one fingerprint has to hold for the twins.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

# The order n of each curve that TLS knows. A certificate does not say on which its issuer's key is.
_ORDERS = (
    2**256 - 2**224 + 2**192 - 0x4319055258E8617B0C46353D039CDAAF,  # P-256
    2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,  # P-384
    2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,  # P-521
)
_SEQUENCE, _BIT_STRING = 0x30, 0x03
_ECDSA = "1.2.840.10045.4."
"""What the identifiers of all signatures by ECDSA begin with (RFC 5758)."""


def find_fingerprints(certificate: x509.Certificate) -> tuple[str, ...]:
    """Give the SHA-256 of a certificate's DER form, in lower-case hex, and of its twins' forms after it."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    return tuple(hashlib.sha256(form).hexdigest() for form in (der, *_make_twins(certificate, der)))


def _make_twins(certificate: x509.Certificate, der: bytes) -> list[bytes]:
    """Write a certificate with the other signature that verifies, one for each curve it may be of."""
    if not certificate.signature_algorithm_oid.dotted_string.startswith(_ECDSA):
        return []
    try:
        r, s = decode_dss_signature(certificate.signature)
    except ValueError:
        return []  # TLS took no such certificate
    content = certificate.tbs_certificate_bytes
    begin = der.index(content) + len(content)
    algorithm = der[begin : len(der) - len(_write(_BIT_STRING, b"\0" + certificate.signature))]
    signatures = [encode_dss_signature(r, order - s) for order in _ORDERS if max(r, s) < order]
    return [
        _write(_SEQUENCE, content + algorithm + _write(_BIT_STRING, b"\0" + signature))
        for signature in signatures
    ]


def _write(tag: int, content: bytes) -> bytes:
    """Write one value in DER."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
