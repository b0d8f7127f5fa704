"""Client certificates, made for one call: Vault's PKI engine, with leases.

The key is made here and only the request for a certificate goes to Vault: so the key is in no answer of
Vault's, and a certificate whose answer was lost is good for nothing, as its key is gone.

A certificate is for the one name that its role allows. It ends by its time, which is the call's; and at the
call's end its lease's revocation puts it on the list of revoked ones (CRL, OCSP), for targets that read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from credentials.engines.base import (
    Minted,
    Mounts,
    Order,
    find_differences,
    find_ttl_problems,
    read_definition,
)
from credentials.errors import Cause
from credentials.lease import ClientCertificate, CredentialWanted
from credentials.secret import Secret
from credentials.transport import VaultFault
from credentials.vault_api import VaultApi, take

MAX_NAME_LENGTH = 64
"""Of a common name (X.520, ub-common-name)."""
_WIDER = "it would allow other names"
_USES = "the certificate is for clients"
REQUIRED: Mapping[str, tuple[object, str]] = {
    "generate_lease": (True, "else the end of a call revokes nothing"),
    "no_store": (False, "what is not stored cannot be revoked"),
    "allow_bare_domains": (True, "the certificate's name is the allowed domain itself"),
    "allow_any_name": (False, _WIDER),
    "allow_subdomains": (False, _WIDER),
    "allow_glob_domains": (False, _WIDER),
    "allow_localhost": (False, _WIDER),
    "allowed_domains_template": (False, _WIDER),
    "allow_ip_sans": (False, _WIDER),
    "allowed_uri_sans": ([], _WIDER),
    "allowed_other_sans": ([], _WIDER),
    "allowed_user_ids": ([], _WIDER),
    "use_csr_common_name": (False, "the name is the role's"),
    "use_csr_sans": (False, "the name is the role's"),
    "client_flag": (True, _USES),
    "server_flag": (False, _USES),
    "code_signing_flag": (False, _USES),
    "email_protection_flag": (False, _USES),
    "ext_key_usage": ([], _USES),
    "ext_key_usage_oids": ([], _USES),
    "not_after": ("", "it would end at another time than its call"),
    "key_type": ("ec", "keys are made here, on P-256"),
    "key_bits": (256, "keys are made here, on P-256"),
}
"""What a role has to say, field by field."""


class PkiEngine:
    """Client certificates: each call has one of its own."""

    name = plugin = "pki"
    plugins: tuple[str, ...] = (plugin,)
    exclusive = False
    asks_elsewhere = False

    def child_uses(self, wanted: CredentialWanted) -> int:
        """One reads the role's name, one has the key signed."""
        return 3

    def child_policy(self, mounts: Mounts, role: str) -> str:
        """Let it have keys signed for one role; `not_after`, which may outlast `max_ttl`, is not allowed."""
        return (
            f'path "{mounts[self.plugin]}/roles/{role}" {{ capabilities = ["read"] }}\n'
            f'path "{mounts[self.plugin]}/sign/{role}" {{\n'
            '  capabilities        = ["update"]\n'
            '  required_parameters = ["csr", "common_name", "ttl"]\n'
            '  allowed_parameters  = { "csr" = [], "common_name" = [], "ttl" = [] }\n'
            "}\n"
        )

    def session_policy(self, mounts: Mounts) -> str:
        """Let it read definitions, which hold no secret."""
        return f'path "{mounts[self.plugin]}/roles/*" {{ capabilities = ["read"] }}\n'

    def lease_prefixes(self, mounts: Mounts) -> tuple[str, ...]:
        """Each certificate is a lease."""
        return (f"{mounts[self.plugin]}/sign/",)

    async def read(self, api: VaultApi, child: Secret, mounts: Mounts, order: Order) -> Minted:
        """Make a key and have it signed; the signing makes the lease, so it is never sent twice."""
        definition = take(await api.ask("get", f"{mounts[self.plugin]}/roles/{order.role}", child), "data")
        names = definition.get("allowed_domains") or []
        if len(names) != 1 or len(names[0]) > MAX_NAME_LENGTH:
            raise VaultFault("its allowed_domains must be exactly one name", Cause.ROLE_UNSAFE)
        name, key = str(names[0]), ec.generate_private_key(ec.SECP256R1())
        body = {"csr": make_request(key, name), "common_name": name, "ttl": f"{order.ttl_seconds}s"}
        answer = await api.ask(
            "post", f"{mounts[self.plugin]}/sign/{order.role}", child, body, repeatable=False
        )
        data = take(answer, "data", "certificate", "issuing_ca")
        lease_id = str(answer.get("lease_id", ""))
        if not lease_id or not _is_as_asked(data["certificate"], key, name):
            raise VaultFault("Vault signed something else than was asked for", Cause.INVALID)
        chain = data.get("ca_chain") or [data["issuing_ca"]]
        payload = ClientCertificate(
            name, data["certificate"] + "\n", _write_key(key), "\n".join(chain) + "\n"
        )
        return Minted(lease_id, payload, min(order.ttl_seconds, int(answer.get("lease_duration", 0))))

    async def retire(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> None:
        """Nothing: the lease's revocation revokes the certificate."""

    async def find_problems(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> list[str]:
        """See that the role gives short client certificates for one name, and can revoke them."""
        definition = await read_definition(api, session, f"{mounts[self.plugin]}/roles/{role}")
        if definition is None:
            return [f"Vault has no pki role {role}; write it with `toolcrib vault bootstrap`"]
        problems = find_differences(definition, REQUIRED) + find_ttl_problems(definition)
        names = definition.get("allowed_domains") or []
        if len(names) != 1 or "*" in names[0] or len(names[0]) > MAX_NAME_LENGTH:
            text = f"exactly one name of at most {MAX_NAME_LENGTH} characters: it is the certificate's"
            problems.append(f"its allowed_domains must be {text}")
        return problems


def role_fields(name: str, max_ttl_seconds: int) -> dict[str, Any]:
    """Return a role for client certificates with one name."""
    fields = {field: value for field, (value, _) in REQUIRED.items()}
    return {**fields, "allowed_domains": [name], "max_ttl": max_ttl_seconds, "ttl": max_ttl_seconds}


def make_request(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    """Write the request for a certificate, in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _is_as_asked(certificate_pem: str, key: ec.EllipticCurvePrivateKey, name: str) -> bool:
    """Tell whether a certificate is for our key, for this one name, and for clients only."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        [common_name] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    return (
        certificate.public_key() == key.public_key()
        and common_name.value == name
        and list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        and list(names) == [x509.DNSName(name)]
    )


def _write_key(key: ec.EllipticCurvePrivateKey) -> Secret:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Secret(pem.decode())
