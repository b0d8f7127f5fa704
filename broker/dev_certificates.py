"""Certificates of the local targets that speak TLS: a CA for each, made at the start and kept by nobody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

CA_FILE, SERVER_FILE = "ca.pem", "server.pem"
_LIFE = timedelta(days=31)
_CLOCK_SLACK = timedelta(minutes=5)


def write_certificates(folder: Path, names: list[str]) -> None:
    """Write what a local server needs to answer to some names.

    Args:
        folder: Gets `ca.pem`, by which clients know it, and `server.pem`, its certificate with its key.
        names: DNS names, the first of them also the certificate's common name.
    """
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer, subject = _name(f"CA of a local {names[0]}"[:64]), _name(names[0][:64])
    basic = x509.BasicConstraints(ca=True, path_length=0)
    ca = _begin(issuer, issuer, ca_key).add_extension(basic, critical=True).sign(ca_key, hashes.SHA256())
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    leaf = _begin(subject, issuer, key).add_extension(alternatives, critical=False)
    certificate = leaf.sign(ca_key, hashes.SHA256())
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / CA_FILE).write_bytes(ca.public_bytes(Encoding.PEM))
    (folder / SERVER_FILE).touch(mode=0o600)
    (folder / SERVER_FILE).write_bytes(certificate.public_bytes(Encoding.PEM) + key_pem)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _begin(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _CLOCK_SLACK).not_valid_after(now + _LIFE)
