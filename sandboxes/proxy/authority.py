"""The certificate authority of one container, and the certificates that the proxy shows in its name.

The broker makes an authority with each nest; its certificate lies in the container, which therefore trusts
what the proxy signs, and nobody else does. The key is handed to the proxy when the call opens, and forgotten
with it. It never touches a disk: OpenSSL reads certificates through an anonymous file in memory.
"""

from __future__ import annotations

import os
import ssl
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = timedelta(hours=12)
"""How long an authority is good for. A sandbox that waits half of it gets another when its call opens."""
_CLOCK_SLACK = timedelta(hours=1)
_MOST_CONTEXTS = 64
"""Hosts of one call whose TLS contexts are kept."""
_SERVER_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


@dataclass(frozen=True, slots=True)
class Authority:
    """A container's certificate authority.

    Attributes:
        certificate_pem: For the container's trust file.
        key_pem: Its private key (PKCS 8); keep it no longer than the call.
    """

    certificate_pem: str
    key_pem: str = field(repr=False)

    @property
    def ends_soon(self) -> bool:
        """Whether its certificate, and all that it signed, may end while a call runs."""
        certificate = x509.load_pem_x509_certificate(self.certificate_pem.encode())
        return certificate.not_valid_after_utc < datetime.now(UTC) + LIFE / 2


def make_authority(life: timedelta = LIFE) -> Authority:
    """Make the authority of one container: EC P-256, signs server certificates only."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Toolcrib sandbox {os.urandom(8).hex()}")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = _begin(name, name, key.public_key(), now + life)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(_SERVER_ONLY, critical=False)
    builder = builder.add_extension(identifier, critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    )
    certificate = builder.sign(key, hashes.SHA256())
    return Authority(_to_pem(certificate), _key_pem(key))


class Leaves:
    """The certificates of one call's hosts, made when they are first wanted; one key for all of them."""

    def __init__(self, authority: Authority) -> None:
        """Begin with none.

        Raises:
            ValueError: The authority's certificate or key is none.
        """
        self._issuer = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
        issuer_key = load_pem_private_key(authority.key_pem.encode(), None)
        if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
            raise ValueError("the authority's key is no EC key")
        self._issuer_key = issuer_key
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: OrderedDict[str, ssl.SSLContext] = OrderedDict()

    def context(self, host: str) -> ssl.SSLContext:
        """Give the TLS context that shows a certificate for a host.

        Args:
            host: A name, or an address without brackets.

        Raises:
            ValueError: No certificate can name it.
        """
        context = self._contexts.pop(host, None) or self._make_context(host)
        self._contexts[host] = context
        if len(self._contexts) > _MOST_CONTEXTS:
            self._contexts.popitem(last=False)
        return context

    def _make_context(self, host: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        load_certificate(context, _to_pem(self._sign(host)), _key_pem(self._key))
        return context

    def _sign(self, host: str) -> x509.Certificate:
        issuer_identifier = self._issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        public_key = self._key.public_key()
        # An empty subject: hosts may be longer than the 64 characters of a common name. RFC 5280, 4.2.1.6.
        builder = _begin(x509.Name([]), self._issuer.subject, public_key, self._issuer.not_valid_after_utc)
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(_SERVER_ONLY, critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_identifier), critical=False
        )
        return builder.sign(self._issuer_key, hashes.SHA256())


def load_certificate(context: ssl.SSLContext, certificate_pem: str, key_pem: str) -> None:
    """Load a certificate, its chain and its key into a TLS context, through memory alone.

    Raises:
        ssl.SSLError: They are none, or do not belong together.
        OSError: No anonymous file can be made.
    """
    # One file for both: OpenSSL finds the key among the certificates.
    with _memory_file(f"{key_pem.strip()}\n{certificate_pem.strip()}\n".encode()) as path:
        context.load_cert_chain(path, password=_no_password)


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted; give it without a password")


@contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - _CLOCK_SLACK)
        .not_valid_after(until)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _to_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
