"""Keys that sign in Vault and never leave it: the transit engine.

The tool gets the public key and may ask for signatures; the broker has them made with the call's child token.
So there is nothing to steal, and after the end of the call nothing signs: the child is gone.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from credentials.engines.base import Minted, Mounts, Order, find_differences, read_definition
from credentials.errors import Cause, CredentialsUnavailable
from credentials.lease import CredentialWanted, Signed, Signer
from credentials.secret import Secret
from credentials.transport import VaultFault
from credentials.vault_api import VaultApi, take

MAX_INPUT_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Algorithm:
    """How keys of one type sign.

    Attributes:
        name: What the tool is told.
        parameters: What Vault is told beside the input.
    """

    name: str
    parameters: Mapping[str, str]


def _ecdsa(curve: str, digest: str) -> Algorithm:
    return Algorithm(f"ecdsa-{curve}-sha{digest}", {"hash_algorithm": f"sha2-{digest}"})


_RSA = Algorithm(
    "rsa-pss-sha256", {"hash_algorithm": "sha2-256", "signature_algorithm": "pss", "salt_length": "hash"}
)
ALGORITHMS: Mapping[str, Algorithm] = {
    "ed25519": Algorithm("ed25519", {}),
    "ecdsa-p256": _ecdsa("p256", "256"),
    "ecdsa-p384": _ecdsa("p384", "384"),
    "ecdsa-p521": _ecdsa("p521", "512"),
    "rsa-2048": _RSA,
    "rsa-3072": _RSA,
    "rsa-4096": _RSA,
}
"""By the type of a key. An ECDSA signature is in DER; RSA's salt is as long as its digest."""
REQUIRED: Mapping[str, tuple[object, str]] = {
    "exportable": (False, "the key could leave Vault; make a new one"),
    "allow_plaintext_backup": (False, "the key could leave Vault; make a new one"),
    "derived": (False, "each input would be signed with another key"),
}


class TransitEngine:
    """Signatures with one key."""

    name = plugin = "transit"
    plugins: tuple[str, ...] = (plugin,)
    exclusive = False
    asks_elsewhere = False

    def child_uses(self, wanted: CredentialWanted) -> int:
        """One reads the public key, one makes each signature."""
        return wanted.max_signatures + 2

    def child_policy(self, mounts: Mounts, role: str) -> str:
        """Let it sign with one key, one input at a time: a batch would count as one."""
        return (
            f'path "{mounts[self.plugin]}/keys/{role}" {{ capabilities = ["read"] }}\n'
            f'path "{mounts[self.plugin]}/sign/{role}" {{\n'
            '  capabilities        = ["update"]\n'
            '  required_parameters = ["input"]\n'
            "  allowed_parameters  = {\n"
            '    "input" = [], "hash_algorithm" = [], "signature_algorithm" = [], "salt_length" = []\n'
            "  }\n"
            "}\n"
        )

    def session_policy(self, mounts: Mounts) -> str:
        """Let it read what kind of key it is, and the public half."""
        return f'path "{mounts[self.plugin]}/keys/*" {{ capabilities = ["read"] }}\n'

    def lease_prefixes(self, mounts: Mounts) -> tuple[str, ...]:
        """There are none: it ends with its child."""
        return ()

    async def read(self, api: VaultApi, child: Secret, mounts: Mounts, order: Order) -> Minted:
        """Read the public key. The child stays for the signatures."""
        key = take(
            await api.ask("get", f"{mounts[self.plugin]}/keys/{order.role}", child),
            "data",
            "type",
            "keys",
            "latest_version",
        )
        algorithm, newest = ALGORITHMS.get(key["type"]), key["keys"].get(str(key["latest_version"]))
        if algorithm is None or not isinstance(newest, dict) or "public_key" not in newest:
            raise VaultFault(f"a key of type {key['type']} does not sign", Cause.ROLE_UNSAFE)
        signing = _Signing(
            api, child, f"{mounts[self.plugin]}/sign/{order.role}", algorithm, order.wanted.max_signatures
        )
        public_key = write_public(newest["public_key"])
        payload = Signer(algorithm.name, order.wanted.max_signatures, public_key, signing.sign)
        return Minted("", payload, order.ttl_seconds)

    async def retire(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> None:
        """Nothing: without its child nothing signs."""

    async def find_problems(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> list[str]:
        """See that the key signs and cannot leave Vault."""
        key = await read_definition(api, session, f"{mounts[self.plugin]}/keys/{role}")
        if key is None:
            return [f"Vault has no signing key {role}; write it with `toolcrib vault bootstrap`"]
        problems = find_differences(key, REQUIRED)
        if key.get("type") not in ALGORITHMS:
            problems.append(f"it is of type {key.get('type')}; these sign: {', '.join(ALGORITHMS)}")
        return problems


class _Signing:
    """One call's way to a key. Failed requests count too: Vault counts them."""

    def __init__(self, api: VaultApi, child: Secret, path: str, algorithm: Algorithm, most: int) -> None:
        self._api, self._child, self._path, self._algorithm = api, child, path, algorithm
        self._most, self._left = most, most

    async def sign(self, text: bytes) -> Signed:
        """Sign one input; see `Signer.sign`."""
        if len(text) > MAX_INPUT_BYTES:
            raise CredentialsUnavailable(f"more than {MAX_INPUT_BYTES} bytes to sign", Cause.INVALID)
        if self._left == 0:
            raise CredentialsUnavailable(f"the call's {self._most} signatures are used up", Cause.DENIED)
        self._left -= 1
        body = {"input": base64.b64encode(text).decode(), **self._algorithm.parameters}
        try:
            return read_signature(
                await self._api.ask("post", self._path, self._child, body, repeatable=False)
            )
        except VaultFault as fault:
            hint = "has its call ended? " if fault.cause is Cause.DENIED else ""
            raise CredentialsUnavailable(f"Vault did not sign: {hint}{fault}", fault.cause) from fault


def read_signature(answer: Mapping[str, Any]) -> Signed:
    """Take a signature out of an answer.

    Raises:
        VaultFault: There is none.
    """
    signature = str(take(answer, "data", "signature")["signature"])
    try:
        prefix, version, encoded = signature.split(":")
        if prefix == "vault":
            return Signed(base64.b64decode(encoded, validate=True), int(version.removeprefix("v")))
    except ValueError:
        pass
    raise VaultFault("Vault answered with no signature", Cause.INVALID)


def write_public(public_key: str) -> str:
    """Return a public key in PEM; Vault gives those of ed25519 bare."""
    if public_key.startswith("-----"):
        return public_key
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()
