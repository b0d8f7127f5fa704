"""The credentials that an example invents, as what Vault would have minted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from credentials.lease import (
    NO_LEASE,
    AccessToken,
    ClientCertificate,
    KeyValues,
    Lease,
    Payload,
    Signed,
    Signer,
    SshLogin,
    UsernamePassword,
)
from credentials.secret import Secret
from tools.errors import BundleInvalid, Violation
from tools.manifest import CredentialWanted

_LIFE = timedelta(minutes=5)
_FIELDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("database", "database_static", "ldap", "ldap_static"),
        ("username", "password"),
    ),
    "pki": ("certificate_pem", "private_key_pem", "chain_pem"),
    "ssh": ("username", "private_key", "certificate"),
    "transit": (),
    "oauth2": ("token",),
}
"""What an example has to say of a credential, by its engine; of kv: the values themselves."""


def mint(name: str, wanted: CredentialWanted, said: Mapping[str, Any], where: str) -> Lease:
    """Make a lease of what an example says; a signer gets a key of its own.

    Args:
        name: The manifest's name of the credential.
        wanted: What the manifest says of it.
        said: The fields that the example gives.
        where: The example, for the fault.

    Raises:
        BundleInvalid: A field is missing, or there is one too many.
    """
    fields = _FIELDS.get(wanted.engine)
    if fields is not None and set(said) != set(fields):
        needed = ", ".join(fields) or "no field: a key is made for it"
        raise BundleInvalid([Violation(where, f"credentials.{name}: {wanted.engine} has {needed}")])
    values = {key: str(value) for key, value in said.items()}
    now = datetime.now(UTC)
    return Lease(
        credential=name,
        lease_id=f"{NO_LEASE}{name}",
        accessor="example",
        engine=wanted.engine,
        role=wanted.role,
        payload=_make_payload(wanted, values),
        minted=now,
        expires=now + _LIFE,
    )


def _make_payload(wanted: CredentialWanted, values: Mapping[str, str]) -> Payload:
    match wanted.engine:
        case "kv":
            return KeyValues({key: Secret(value) for key, value in values.items()}, version=1)
        case "pki":
            key = Secret(values["private_key_pem"])
            return ClientCertificate("example", values["certificate_pem"], key, values["chain_pem"])
        case "ssh":
            return SshLogin(values["username"], Secret(values["private_key"]), values["certificate"])
        case "oauth2":
            return AccessToken(Secret(values["token"]), datetime.now(UTC) + _LIFE)
        case "transit":
            return _make_signer(wanted.max_signatures)
        case _:
            return UsernamePassword(values["username"], Secret(values["password"]))


def _make_signer(max_signatures: int) -> Signer:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    async def sign(data: bytes) -> Signed:
        return Signed(key.sign(data), 1)

    return Signer("ed25519", max_signatures, public, sign)
