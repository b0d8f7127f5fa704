"""Who calls is what the certificate says, as long as the certificate is valid, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.brakes import Brakes
from broker.errors import Refused
from broker.model import Brake, BrakeKind, Role
from broker.request import Peer
from broker.stages.authenticate import Authenticator

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def make_peer(
    *uris: str, from_: datetime = NOW - timedelta(hours=1), to: datetime = NOW + timedelta(hours=1)
):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(from_)
        .not_valid_after(to)
    )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    return Peer(certificate.public_bytes(serialization.Encoding.PEM))


@pytest.fixture
def authenticate():
    return Authenticator("example.org", ["shop"], lambda: NOW, Brakes())


def test_reads_tenant_role_name_and_subject(authenticate):
    caller = authenticate(make_peer("spiffe://example.org/tenant/shop/agent/refund-desk/subject/maria@x.org"))
    assert (caller.tenant, caller.role, caller.name) == ("shop", Role.AGENT, "refund-desk")
    assert caller.subject == "maria@x.org"


def test_leaves_the_subject_empty_when_there_is_none(authenticate):
    assert authenticate(make_peer("spiffe://example.org/tenant/shop/reviewer/rob")).subject == ""


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("spiffe://example.org/tenant/shop/agent/a", "spiffe://example.org/tenant/shop/agent/b"),
        ("spiffe://elsewhere.org/tenant/shop/agent/a",),
        ("spiffe://example.org.evil.org/tenant/shop/agent/a",),
        ("spiffe://example.org/tenant/rival/agent/a",),
        ("spiffe://example.org/tenant/shop/root/a",),
        ("spiffe://example.org/tenant/shop/agent/a/extra",),
        ("spiffe://example.org/tenant/shop/agent/",),
        ("spiffe://example.org/tenant/shop/agent/a/subject/",),
        ("https://example.org/tenant/shop/agent/a",),
    ],
)
def test_refuses_what_is_no_identity_of_this_broker(authenticate, uris):
    with pytest.raises(Refused) as refusal:
        authenticate(make_peer(*uris))
    assert refusal.value.reason_name == "IDENTITY_UNKNOWN"


def test_knows_a_certificate_by_its_fingerprint(authenticate):
    peer = make_peer("spiffe://example.org/tenant/shop/agent/a")
    certificate = x509.load_pem_x509_certificate(peer.unverified_pem)
    assert authenticate(peer).certificate == certificate.fingerprint(hashes.SHA256()).hex()


def test_refuses_a_blocked_certificate_that_it_knows_already():
    brakes = Brakes()
    authenticate = Authenticator("example.org", ["shop"], lambda: NOW, brakes)
    peer = make_peer("spiffe://example.org/tenant/shop/reviewer/rob")
    fingerprint = authenticate(peer).certificate
    brakes.put(Brake("b1", BrakeKind.CERTIFICATE, "shop", fingerprint, "stolen", "", NOW))
    with pytest.raises(Refused) as refusal:
        authenticate(peer)
    assert refusal.value.reason_name == "CALLER_BLOCKED"
    authenticate(make_peer("spiffe://example.org/tenant/shop/reviewer/rob"))


def test_refuses_a_channel_without_a_certificate(authenticate):
    with pytest.raises(Refused, match="mutual TLS"):
        authenticate(Peer(b""))


def test_refuses_a_certificate_that_ran_out_since_the_channel_opened():
    now = [NOW]
    authenticate = Authenticator("example.org", ["shop"], lambda: now[0], Brakes())
    peer = make_peer("spiffe://example.org/tenant/shop/agent/a")
    authenticate(peer)
    now[0] += timedelta(hours=2)
    with pytest.raises(Refused) as refusal:
        authenticate(peer)
    assert refusal.value.reason_name == "CERTIFICATE_EXPIRED"
