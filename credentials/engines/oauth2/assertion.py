"""JSON Web Tokens that a transit key signs: the key stays in Vault, and its public half can be published.

An assertion says to one authorization server (`aud`) that the issuer speaks for a subject, for the length of
one request. Servers know it by the JWK set that `toolcrib credentials jwks` writes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from credentials.engines.base import read_definition
from credentials.engines.transit import ALGORITHMS, read_signature, write_public
from credentials.errors import Cause
from credentials.secret import Secret
from credentials.transport import VaultFault
from credentials.vault_api import VaultApi, take

JWS_NAMES: Mapping[str, str] = {
    "ed25519": "EdDSA",
    "ecdsa-p256": "ES256",
    "rsa-2048": "PS256",
    "rsa-3072": "PS256",
    "rsa-4096": "PS256",
}
"""By the type of a transit key (RFC 7518, 3.1; RFC 8037)."""
_COORDINATE_BYTES = 32


@dataclass(frozen=True, slots=True)
class AssertionKey:
    """What is known of a key; nothing of it is secret.

    Attributes:
        name: In Vault.
        kind: Vault's type of it.
        public_keys: In PEM, by version; those that Vault still verifies with.
        version: The newest, which signs.
    """

    name: str
    kind: str
    public_keys: Mapping[int, str]
    version: int

    def key_id(self, version: int) -> str:
        """Name a version in headers and in the JWK set."""
        return f"{self.name}-v{version}"

    def to_jwks(self) -> dict[str, list[dict[str, str]]]:
        """Write the public halves as a JWK set (RFC 7517)."""
        keys = [
            {**_to_jwk(pem), "kid": self.key_id(version), "alg": JWS_NAMES[self.kind], "use": "sig"}
            for version, pem in sorted(self.public_keys.items())
        ]
        return {"keys": keys}


async def read_key(api: VaultApi, token: Secret, mount: str, name: str) -> AssertionKey:
    """Read what kind of key it is, and its public halves.

    Raises:
        VaultFault: There is none, it cannot sign assertions, or Vault gave no answer.
    """
    found = await read_definition(api, token, f"{mount}/keys/{name}")
    if found is None:
        text = f"there is no key {name}; write its role with `toolcrib vault bootstrap`"
        raise VaultFault(text, Cause.UNKNOWN)
    data = take({"data": found}, "data", "type", "keys", "latest_version")
    if data["type"] not in JWS_NAMES or not isinstance(data["keys"], dict):
        raise VaultFault(f"the key {name} is of a type that signs no assertion", Cause.ROLE_UNSAFE)
    oldest = int(data.get("min_decryption_version") or 1)
    public = {
        int(number): write_public(str(one["public_key"]))
        for number, one in data["keys"].items()
        if int(number) >= oldest
    }
    return AssertionKey(name, str(data["type"]), public, int(data["latest_version"]))


async def sign_assertion(
    api: VaultApi, child: Secret, mount: str, key: AssertionKey, claims: Mapping[str, Any]
) -> Secret:
    """Have Vault sign claims; returns the JWT in its compact form.

    Raises:
        VaultFault: Vault did not.
    """
    header = {"alg": JWS_NAMES[key.kind], "kid": key.key_id(key.version), "typ": "JWT"}
    text = f"{_encode_json(header)}.{_encode_json(claims)}"
    body = {
        "input": base64.b64encode(text.encode()).decode(),
        "key_version": key.version,
        **ALGORITHMS[key.kind].parameters,
    }
    signed = read_signature(await api.ask("post", f"{mount}/sign/{key.name}", child, body))
    signature = _to_raw(signed.signature) if key.kind.startswith("ecdsa") else signed.signature
    return Secret(f"{text}.{_encode(signature)}")


def _to_raw(der: bytes) -> bytes:
    """Bring an ECDSA signature into the form of JWS (RFC 7518, 3.4); Vault's is in DER."""
    try:
        return b"".join(part.to_bytes(_COORDINATE_BYTES, "big") for part in decode_dss_signature(der))
    except (ValueError, OverflowError) as error:
        raise VaultFault("Vault answered with no signature", Cause.INVALID) from error


def _to_jwk(pem: str) -> dict[str, str]:
    key = serialization.load_pem_public_key(pem.encode())
    if isinstance(key, Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": _encode(key.public_bytes_raw())}
    if isinstance(key, EllipticCurvePublicKey):
        numbers = key.public_numbers()
        parts = {"x": _encode_number(numbers.x, 32), "y": _encode_number(numbers.y, 32)}
        return {"kty": "EC", "crv": "P-256", **parts}
    if isinstance(key, RSAPublicKey):
        modulus = key.public_numbers()
        size = (modulus.n.bit_length() + 7) // 8
        return {"kty": "RSA", "n": _encode_number(modulus.n, size), "e": _encode_number(modulus.e, 3)}
    raise VaultFault("a public key is of a kind that signs no assertion", Cause.ROLE_UNSAFE)


def _encode_number(value: int, size: int) -> str:
    return _encode(value.to_bytes(size, "big"))


def _encode_json(value: Mapping[str, Any]) -> str:
    return _encode(json.dumps(value, separators=(",", ":")).encode())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
