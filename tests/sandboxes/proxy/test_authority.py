"""The container's authority, and the certificates that are shown in its name."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sandboxes.nests import AUTHORITY_FILE, AUTHORITY_FOLDER, Nests
from sandboxes.proxy.authority import LIFE, Authority, Leaves, load_certificate, make_authority
from tests.sandboxes.proxy.loopback import trusting

LONG_NAME = "a" * 60 + "." + "b" * 60 + ".example"


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Open TLS in memory; gives the client's end."""
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(one, other, server_hostname=name)
    answering = server.wrap_bio(other, one, server_side=True)
    for end in (asking, answering, asking, answering):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    asking.do_handshake()
    return asking


@pytest.mark.parametrize("host", ["api.example", "localhost", "127.0.0.1", "::1", LONG_NAME, "orders_db"])
def test_shows_a_certificate_that_holds_for_the_host(host: str) -> None:
    authority = make_authority()
    end = shake_hands(Leaves(authority).context(host), trusting(authority), host)
    assert end.version() == "TLSv1.3"


def test_shows_no_certificate_that_holds_for_another_host() -> None:
    authority = make_authority()
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(Leaves(authority).context("api.example"), trusting(authority), "other.example")


def test_is_not_trusted_by_another_container() -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(
            Leaves(make_authority()).context("api.example"), trusting(make_authority()), "api.example"
        )


def test_speaks_http_1_1_also_with_who_offers_http_2_first() -> None:
    authority = make_authority()
    client = trusting(authority, ("h2", "http/1.1"))
    end = shake_hands(Leaves(authority).context("api.example"), client, "api.example")
    assert end.selected_alpn_protocol() == "http/1.1"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_speaks_nothing_older_than_tls_1_2() -> None:
    authority = make_authority()
    client = trusting(authority)
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shake_hands(Leaves(authority).context("api.example"), client, "api.example")


def test_signs_for_servers_alone_and_for_no_other_authority() -> None:
    certificate = x509.load_pem_x509_certificate(make_authority().certificate_pem.encode())
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign and not usage.digital_signature
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [purpose.dotted_string for purpose in purposes] == ["1.3.6.1.5.5.7.3.1"]


def test_lives_for_hours_and_began_a_while_ago() -> None:
    certificate = x509.load_pem_x509_certificate(make_authority().certificate_pem.encode())
    assert certificate.not_valid_after_utc <= datetime.now(UTC) + LIFE
    assert certificate.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=30)


def test_knows_when_it_ends_too_soon_for_a_call() -> None:
    assert not make_authority().ends_soon
    assert make_authority(LIFE / 2 - timedelta(minutes=1)).ends_soon


def test_is_made_anew_for_a_sandbox_that_waited_too_long(tmp_path: Path) -> None:
    old = make_authority(timedelta(minutes=5))
    with Nests(tmp_path).make(12_345, old, "OTHERS") as nest:
        certificate, key = nest.take_authority()
        read = (nest.folder / AUTHORITY_FOLDER / AUTHORITY_FILE).read_text()
    assert not Authority(certificate, key).ends_soon
    assert read == certificate + "OTHERS"
    Leaves(Authority(certificate, key)).context("api.example")


def test_stays_as_it_is_for_a_sandbox_that_did_not(tmp_path: Path) -> None:
    authority = make_authority()
    with Nests(tmp_path).make(12_345, authority) as nest:
        assert nest.take_authority() == (authority.certificate_pem, authority.key_pem)
        assert nest.take_authority() == ("", "")


def test_makes_each_authority_anew() -> None:
    one, other = make_authority(), make_authority()
    assert one.key_pem != other.key_pem
    assert isinstance(load_pem_private_key(one.key_pem.encode(), None), ec.EllipticCurvePrivateKey)


def test_keeps_the_key_out_of_its_repr() -> None:
    assert "PRIVATE" not in repr(make_authority())


def test_makes_a_context_once_for_a_host_and_keeps_a_bounded_number() -> None:
    leaves = Leaves(make_authority())
    first = leaves.context("h0.example")
    assert leaves.context("h0.example") is first
    for number in range(1, 70):
        leaves.context(f"h{number}.example")
    assert len(leaves._contexts) == 64
    assert leaves.context("h0.example") is not first


def test_leaves_no_descriptor_open() -> None:
    leaves = Leaves(make_authority())
    before = len(list(Path("/proc/self/fd").iterdir()))
    leaves.context("api.example")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_refuses_an_encrypted_key_without_asking_for_its_password() -> None:
    certificate = make_authority().certificate_pem
    encrypted = (
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
        "DEK-Info: AES-128-CBC,00000000000000000000000000000000\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
    )
    with pytest.raises((ssl.SSLError, ValueError)):
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, encrypted)


def test_refuses_what_is_no_authority() -> None:
    with pytest.raises(ValueError):
        Leaves(Authority("no certificate", "no key"))
