"""A client certificate: for one name, for clients, for the time of a call; revoked at its end."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from credentials.dev_engines import read_client_authority, read_revocation_list
from credentials.engines import DEFAULT_MOUNTS, ENGINES
from credentials.engines.pki import REQUIRED, role_fields
from credentials.errors import Cause, CredentialsUnavailable
from tests.credentials.engines.conftest import TAG, role_of, wanted

WANTED = wanted("pki")
NAME = "a.tools.test"
MOUNT = "toolcrib-pki"
ODD = "pki-odd"


@pytest.fixture
def session(engines_vault, vault_session):
    return vault_session


def read(lease) -> x509.Certificate:
    return x509.load_pem_x509_certificate(lease.payload.certificate_pem.encode())


def revoked(vault, certificate: x509.Certificate) -> bool:
    listed = x509.load_pem_x509_crl(read_revocation_list(vault).encode())
    return listed.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


async def find_problems(session, role: str = ODD) -> list[str]:
    return await session.ask(
        "x", lambda api, token: ENGINES["pki"].find_problems(api, token, DEFAULT_MOUNTS, role)
    )


async def test_is_signed_by_the_authority_for_our_key(session, engines_vault) -> None:
    [lease] = await session.mint(TAG, WANTED, 60)
    authority = x509.load_pem_x509_certificate(read_client_authority(engines_vault).encode())
    read(lease).verify_directly_issued_by(authority)
    key = serialization.load_pem_private_key(lease.payload.private_key_pem.reveal().encode(), None)
    assert key.public_key() == read(lease).public_key()
    assert lease.payload.chain_pem.strip() == read_client_authority(engines_vault).strip()


async def test_names_what_the_role_names_and_nothing_else(session) -> None:
    [lease] = await session.mint(TAG, WANTED, 60)
    certificate = read(lease)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    [common_name] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert (common_name.value, list(names)) == (NAME, [x509.DNSName(NAME)])
    assert lease.username == NAME


async def test_is_for_clients_and_for_the_time_of_the_call(session) -> None:
    [lease] = await session.mint(TAG, WANTED, 60)
    certificate = read(lease)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert (certificate.not_valid_after_utc - lease.minted).total_seconds() <= 62


async def test_is_revoked_by_the_end(session, engines_vault) -> None:
    [lease] = await session.mint(TAG, WANTED, 60)
    assert not revoked(engines_vault, read(lease))
    await session.end(lease)
    assert revoked(engines_vault, read(lease))


async def test_brings_a_key_of_its_own_each_time(session) -> None:
    [first], [second] = [await session.mint(TAG, WANTED, 60) for _ in range(2)]
    assert read(first).public_key() != read(second).public_key()


async def test_opens_a_tls_door_that_wants_a_certificate(session, engines_vault, tmp_path) -> None:
    [lease] = await session.mint(TAG, WANTED, 60)
    file = tmp_path / "client.pem"
    file.write_text(lease.payload.certificate_pem + lease.payload.private_key_pem.reveal())
    assert await asyncio.to_thread(shake_hands, engines_vault, tmp_path, file) == NAME


def shake_hands(vault, folder, client_file) -> str:
    """Let a server that trusts the authority see a client's certificate; the name that it saw."""
    server_file = folder / "server.pem"
    issued = vault.issue_certificate("spiffe://toolcrib.dev/server", server_names=["localhost"])
    server_file.write_text(issued.cert_pem + "\n" + issued.key_pem.reveal())
    door, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    door.load_cert_chain(server_file)
    door.verify_mode = ssl.CERT_REQUIRED
    door.load_verify_locations(cadata=read_client_authority(vault))
    client.load_verify_locations(cadata=issued.ca_pem)
    client.load_cert_chain(client_file)
    inside = [ssl.MemoryBIO() for _ in range(2)]
    server = door.wrap_bio(inside[0], inside[1], server_side=True)
    caller = client.wrap_bio(inside[1], inside[0], server_hostname="localhost")
    for side in (caller, server, caller, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    seen: Any = server.getpeercert()
    return dict(pair for [pair] in seen["subject"])["commonName"]


def test_would_not_open_it_with_another_certificate(engines_vault, tmp_path) -> None:
    """The control of the test before."""
    other = engines_vault.issue_certificate("spiffe://toolcrib.dev/x", server_names=["localhost"])
    file = tmp_path / "other.pem"
    file.write_text(other.cert_pem + "\n" + other.key_pem.reveal())
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(engines_vault, tmp_path, file)


async def test_finds_nothing_wrong_with_our_role(session) -> None:
    assert await find_problems(session, role_of("pki")) == []


WIDER = {
    "generate_lease": False,
    "no_store": True,
    "allow_bare_domains": False,
    "allow_any_name": True,
    "allow_subdomains": True,
    "allow_glob_domains": True,
    "allow_localhost": True,
    "allowed_domains_template": True,
    "allow_ip_sans": True,
    "allowed_uri_sans": ["*"],
    "allowed_other_sans": ["1.2.3;UTF8:*"],
    "allowed_user_ids": ["*"],
    "use_csr_common_name": True,
    "use_csr_sans": True,
    "client_flag": False,
    "server_flag": True,
    "code_signing_flag": True,
    "email_protection_flag": True,
    "ext_key_usage": ["OCSPSigning"],
    "ext_key_usage_oids": ["1.3.6.1.5.5.7.3.1"],
    "not_after": "2099-01-01T00:00:00Z",
    "key_type": "any",
    "key_bits": 384,
}


@pytest.mark.parametrize("field", REQUIRED)
async def test_finds_a_role_that_is_too_broad(session, engines_vault, field) -> None:
    role = {**role_fields(NAME, 900), field: WIDER[field]}
    if field == "no_store":
        role["generate_lease"] = False  # Vault refuses both together
    if field == "key_type":
        role["key_bits"] = 0
    engines_vault.write(f"{MOUNT}/roles/{ODD}", **role)
    assert [text for text in await find_problems(session) if text.startswith(f"its {field} must be")]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"max_ttl": 0, "ttl": 0}, "its max_ttl must be set, to 3600 s at most"),
        ({"max_ttl": 3601}, "its max_ttl must be set, to 3600 s at most"),
        ({"allowed_domains": []}, "its allowed_domains must be exactly one name"),
        ({"allowed_domains": [NAME, "b.tools.test"]}, "its allowed_domains must be exactly one name"),
        ({"allowed_domains": ["*.tools.test"]}, "its allowed_domains must be exactly one name"),
        ({"allowed_domains": [f"{'a' * 63}.b"]}, "its allowed_domains must be exactly one name"),
    ],
)
async def test_finds_a_role_of_too_many_names_or_too_long_a_life(
    session, engines_vault, change, problem
) -> None:
    engines_vault.write(f"{MOUNT}/roles/{ODD}", **{**role_fields(NAME, 900), **change})
    [found] = await find_problems(session)
    assert found.startswith(problem)


async def test_refuses_what_is_signed_otherwise_than_asked(session, engines_vault) -> None:
    """The role was found safe a moment ago, and somebody changed it since."""
    engines_vault.write(f"{MOUNT}/roles/{ODD}", **role_fields(NAME, 900))
    engines_vault.bootstrap(roles=[("pki", ODD)])
    [lease] = await session.mint(TAG, wanted("pki", "odd"), 60)
    await session.end(lease)
    engines_vault.write(f"{MOUNT}/roles/{ODD}", **{**role_fields(NAME, 900), "server_flag": True})
    with pytest.raises(CredentialsUnavailable, match="signed something else") as caught:
        await session.mint(TAG, wanted("pki", "odd"), 60)
    assert (caught.value.cause, caught.value.owed) == (Cause.INVALID, [])
    async with asyncio.timeout(10):
        while engines_vault.count_leases():
            await asyncio.sleep(0.05)
