"""What a handler gets of each credential: one kind for each way in which a target lets somebody in.

Named tuples, because importing dataclasses costs a call 10 ms. Their `repr` hides what is secret: what is
printed ends up in a log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from toolcrib.handler.v1 import handler_pb2


class Login(NamedTuple):
    """A user name and a password (engines database, database_static, ldap, ldap_static)."""

    username: str
    password: str

    def __repr__(self) -> str:
        """Hide the password."""
        return f"Login(username={self.username!r}, password=…)"


class KeyValues(NamedTuple):
    """The values of a secret that somebody put into Vault (engine kv). They do not end with the call.

    Attributes:
        fields: The values by their names.
        version: Which version of the secret it is.
    """

    fields: Mapping[str, str]
    version: int

    def __repr__(self) -> str:
        """Hide the values."""
        return f"KeyValues(fields={sorted(self.fields)}, version={self.version})"


class ClientCertificate(NamedTuple):
    """A certificate with its key, in PEM (engine pki).

    Attributes:
        chain_pem: The CAs that signed it, nearest first.
    """

    certificate_pem: str
    private_key_pem: str
    chain_pem: str

    def __repr__(self) -> str:
        """Hide the key."""
        return "ClientCertificate(certificate_pem=…, private_key_pem=…, chain_pem=…)"


class SshLogin(NamedTuple):
    """A key with a certificate that is good for one user name, in OpenSSH's formats (engine ssh)."""

    username: str
    private_key: str
    certificate: str

    def __repr__(self) -> str:
        """Hide the key."""
        return f"SshLogin(username={self.username!r}, private_key=…, certificate=…)"


class Signer(NamedTuple):
    """A key that signs in Vault and never leaves it (engine transit); `Context.sign` asks it.

    Attributes:
        algorithm: For example "ed25519".
        max_signatures: How often this call may sign.
    """

    algorithm: str
    max_signatures: int
    public_key_pem: str


class Injected(NamedTuple):
    """A credential that is added to requests toward its target, on the way out; the tool has nothing of it.

    Attributes:
        form: How, for example "bearer".
    """

    form: str


class Signed(NamedTuple):
    """A signature, raw bytes, and the version of the key that made it."""

    signature: bytes
    key_version: int


Credential = Login | KeyValues | ClientCertificate | SshLogin | Signer | Injected
"""What stands in `Context.credentials`."""


def read_credential(value: handler_pb2.Credential) -> Credential:
    """Take one credential out of its frame.

    Raises:
        ValueError: Its kind is one of a later protocol.
    """
    kind = value.WhichOneof("kind")
    if kind == "username_password":
        return Login(value.username_password.username, value.username_password.password)
    if kind == "key_values":
        return KeyValues(dict(value.key_values.values), value.key_values.version)
    if kind == "client_certificate":
        pem = value.client_certificate
        return ClientCertificate(pem.certificate_pem, pem.private_key_pem, pem.chain_pem)
    if kind == "ssh_login":
        login = value.ssh_login
        return SshLogin(login.username, login.private_key, login.certificate)
    if kind == "signer":
        return Signer(value.signer.algorithm, value.signer.max_signatures, value.signer.public_key_pem)
    if kind == "injected":
        return Injected(value.injected.form)
    raise ValueError("a credential is of a kind that this SDK does not know; update it")
