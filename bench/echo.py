"""The floor: a bare grpc.aio unary echo in a process of its own, plain and over mTLS."""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bench.measure import Subject

METHOD = "/bench.Echo/Echo"
PLAIN, MUTUAL = "echo, plain", "echo, mTLS"
_REQUEST = bytes(range(120))


@asynccontextmanager
async def open_plain_echo() -> AsyncIterator[Subject]:
    """Hold a server without TLS and a channel to it."""
    async with _serve() as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield _subject(PLAIN, channel, against=MUTUAL)


@asynccontextmanager
async def open_mutual_echo(folder: Path) -> AsyncIterator[Subject]:
    """Hold a server that asks for certificates, made in a folder, and a channel to it. It is the floor."""
    write_certificates(folder)
    credentials = grpc.ssl_channel_credentials(
        (folder / "ca.pem").read_bytes(),
        (folder / "client.key").read_bytes(),
        (folder / "client.pem").read_bytes(),
    )
    async with (
        _serve(str(folder)) as port,
        grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel,
    ):
        yield _subject(MUTUAL, channel, against=MUTUAL)


def write_certificates(folder: Path, identity: str = "") -> None:
    """Write a CA, and a server's and a client's certificate with their keys, good for an hour.

    Args:
        folder: Gets ca.pem, server.pem, server.key, client.pem and client.key.
        identity: A SPIFFE id for the client's certificate; empty for none.
    """
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("bench CA", ca_key.public_key(), "bench CA", ca_key, usage=None)
    _write(folder / "ca.pem", ca)
    own_name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    client_name = x509.UniformResourceIdentifier(identity) if identity else own_name
    for name, usage in (
        ("server", _Use(ExtendedKeyUsageOID.SERVER_AUTH, own_name)),
        ("client", _Use(ExtendedKeyUsageOID.CLIENT_AUTH, client_name)),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        _write(folder / f"{name}.pem", _certificate(name, key.public_key(), "bench CA", ca_key, usage))
        file = folder / f"{name}.key"
        file.touch(0o600)
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


class _Use(NamedTuple):
    """What a leaf certificate is for, and the name that it proves."""

    usage: x509.ObjectIdentifier
    name: x509.GeneralName


def _subject(name: str, channel: grpc.aio.Channel, against: str) -> Subject:
    echo = channel.unary_unary(METHOD)

    async def call() -> None:
        assert await echo(_REQUEST) == _REQUEST

    return Subject(name, call, against)


@asynccontextmanager
async def _serve(*arguments: str) -> AsyncIterator[int]:
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        str(Path(__file__).with_name("echo_server.py")),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdin is not None and server.stdout is not None
    try:
        yield int(await server.stdout.readline())
    finally:
        server.stdin.close()
        await server.wait()


def _certificate(
    name: str,
    key: ec.EllipticCurvePublicKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    usage: _Use | None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=usage is None, path_length=None), critical=True)
    )
    if usage is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([usage.name]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage.usage]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
