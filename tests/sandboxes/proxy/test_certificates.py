"""Certificates of targets that do not hold: none of them is spoken to."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.dialing import Dialer, DialFailed, Obstacle
from tests.sandboxes.proxy.loopback import listening, on_uvloop

HOST = "api.example"
DAY = timedelta(days=1)


def make_key() -> Any:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class Made:
    """How a target's certificate is made; the fields as they are make a good one."""

    names: list[x509.GeneralName] = field(default_factory=lambda: [x509.DNSName(HOST)])
    begins: timedelta = -DAY
    ends: timedelta = DAY
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH
    key: Any = field(default_factory=make_key)
    self_signed: bool = False
    below_no_authority: bool = False


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certify(subject: str, issuer: str, key: Any, issuer_key: Any, made: Made, ca: bool) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        name(issuer), name(subject), key.public_key(), x509.random_serial_number()
    )
    builder = builder.not_valid_before(now + made.begins).not_valid_after(now + made.ends)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([made.usage]), critical=False)
        if made.names:
            builder = builder.add_extension(x509.SubjectAlternativeName(made.names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def serve(made: Made, folder: Path) -> tuple[ssl.SSLContext, str]:
    """Make a server's context, and the authority that the operator declared for it."""
    root_key, between = make_key(), make_key()
    root = certify("root", "root", root_key, root_key, Made(), ca=True)
    issuer, issuer_key, chain = "root", root_key, b""
    if made.below_no_authority:
        middle = certify("middle", "root", between, root_key, Made(), ca=False)
        issuer, issuer_key, chain = "middle", between, middle.public_bytes(Encoding.PEM)
    if made.self_signed:
        issuer, issuer_key = HOST, made.key
    leaf = certify(HOST, issuer, made.key, issuer_key, made, ca=False)
    key = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(key + leaf.public_bytes(Encoding.PEM) + chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else OpenSSL would not serve a weak key at all
    context.load_cert_chain(folder / "server.pem")
    return context, root.public_bytes(Encoding.PEM).decode()


async def dial(made: Made, folder: Path) -> None:
    context, ca_pem = serve(made, folder)
    async with listening(context=context) as listener:
        target = HttpTarget("api", "127.0.0.1", listener.port, (f"https://{HOST}",), ca_pem)
        dialed = await Dialer().dial(target, HOST, opened=True, seconds=20)
        dialed.writer.transport.abort()


@on_uvloop
async def test_speaks_to_a_target_whose_certificate_holds(tmp_path: Path) -> None:
    """The control of those below."""
    await dial(Made(), tmp_path)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (Made(begins=-2 * DAY, ends=-DAY), "expired"),
        (Made(begins=DAY, ends=2 * DAY), "not yet valid"),
        (Made(names=[x509.DNSName("other.example")]), "Hostname mismatch"),
        (Made(names=[x509.DNSName("a*.example")]), "Hostname mismatch"),
        (Made(names=[x509.DNSName("*")]), "Hostname mismatch"),
        (Made(names=[x509.DNSName(f"{HOST}.evil.example")]), "Hostname mismatch"),
        (Made(names=[]), "Hostname mismatch"),
        (Made(usage=ExtendedKeyUsageOID.CLIENT_AUTH), "purpose"),
        (Made(key=rsa.generate_private_key(65537, 1024)), "too weak"),
        (Made(self_signed=True), "self.signed"),
        (Made(below_no_authority=True), "CA certificate|purpose"),
    ],
    ids=[
        "expired", "early", "other", "partial wildcard", "any", "longer", "subject alone", "clients", "weak",
        "self-signed", "no authority",
    ],
)  # fmt: skip
@on_uvloop
async def test_speaks_to_no_target_whose_certificate_does_not_hold(
    made: Made, why: str, tmp_path: Path
) -> None:
    with pytest.raises(DialFailed, match=why) as caught:
        await dial(made, tmp_path)
    assert caught.value.kind is Obstacle.TLS
