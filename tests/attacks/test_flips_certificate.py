"""A stolen certificate that was blocked comes back in another form: its signature's twin, which TLS takes.

Whoever holds a certificate signed by ECDSA can make it, without any key. Its SHA-256 is another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from broker.brakes import Brakes
from broker.errors import Refused
from broker.model import Brake, BrakeKind
from broker.request import Peer
from broker.stages.authenticate import Authenticator

NOW = datetime.now(UTC)
IDENTITY = "spiffe://example.org/tenant/shop/agent/refund-desk"
CURVES = {
    "P-256": (ec.SECP256R1(), 2**256 - 2**224 + 2**192 - 0x4319055258E8617B0C46353D039CDAAF),
    "P-521": (ec.SECP521R1(), 2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7),
    "P-384": (ec.SECP384R1(), 2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D),
}


@dataclass(frozen=True)
class Identity:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()


def make(name: str, curve: ec.EllipticCurve, issuer: Identity | None = None) -> Identity:
    key = ec.generate_private_key(curve)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    names = [x509.DNSName("localhost"), x509.UniformResourceIdentifier(IDENTITY)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return Identity(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def write_signature(signature: bytes) -> bytes:
    size = len(signature) + 1
    return bytes((0x03, size) if size < 128 else (0x03, 0x81, size)) + b"\0" + signature


def flip(stolen: Identity, order: int) -> Identity:
    """Give a certificate its signature's twin."""
    certificate = stolen.certificate
    r, s = decode_dss_signature(certificate.signature)
    twin = encode_dss_signature(r, order - s)
    der = certificate.public_bytes(serialization.Encoding.DER)
    old = write_signature(certificate.signature)
    assert (der[:2], der[-len(old) :]) == (b"\x30\x82", old), "the outer length has two bytes"
    body = der[4 : -len(old)] + write_signature(twin)
    form = b"\x30\x82" + len(body).to_bytes(2, "big") + body
    return Identity(x509.load_der_x509_certificate(form), stolen.key)


@contextmanager
def serve(ca: Identity, server: Identity) -> Iterator[str]:
    """Serve whoever shows a certificate of the CA, and tell what it showed."""

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        return context.auth_context()["x509_pem_cert"][0]

    class Handler(grpc.GenericRpcHandler):
        def service(self, _: object) -> object:
            return grpc.unary_unary_rpc_method_handler(answer)

    with ThreadPoolExecutor(1) as pool:
        served = grpc.server(pool, handlers=(Handler(),))
        doors = grpc.ssl_server_credentials([(server.key_pem, server.pem)], ca.pem, require_client_auth=True)
        port = served.add_secure_port("localhost:0", doors)
        served.start()
        yield f"localhost:{port}"
        served.stop(None).wait()


def show(address: str, ca: Identity, shown: Identity) -> Peer:
    """Connect with a certificate; what the server sees of it."""
    credentials = grpc.ssl_channel_credentials(ca.pem, shown.key_pem, shown.pem)
    with grpc.secure_channel(address, credentials) as channel:
        return Peer(channel.unary_unary("/x/Y")(b"", timeout=10))


@pytest.mark.parametrize("curve", CURVES)
def test_stays_blocked_in_the_other_form_that_tls_takes(curve: str):
    kind, order = CURVES[curve]
    ca = make("ca", kind)
    server, stolen = (make(name, ec.SECP256R1(), ca) for name in ("server", "agent"))
    flipped, brakes = flip(stolen, order), Brakes()
    authenticate = Authenticator("example.org", ["shop"], lambda: NOW, brakes)
    with serve(ca, server) as address:
        peer = show(address, ca, flipped)
    assert authenticate(peer).certificate == flipped.fingerprint != stolen.fingerprint  # it gets in
    brakes.put(Brake("b1", BrakeKind.CERTIFICATE, "shop", stolen.fingerprint, "stolen", "", NOW))
    with pytest.raises(Refused, match="blocked"):
        authenticate(peer)


def test_blocks_the_first_form_when_the_other_one_was_named():
    kind, order = CURVES["P-256"]
    ca, brakes = make("ca", kind), Brakes()
    stolen, new = make("agent", kind, ca), make("agent", kind, ca)
    authenticate = Authenticator("example.org", ["shop"], lambda: NOW, brakes)
    brakes.put(Brake("b1", BrakeKind.CERTIFICATE, "shop", flip(stolen, order).fingerprint, "r", "", NOW))
    with pytest.raises(Refused, match="blocked"):
        authenticate(Peer(stolen.pem))
    assert authenticate(Peer(new.pem)).name == "refund-desk"
