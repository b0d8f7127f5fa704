"""What a tool is given of each kind of credential, and what it cannot get signed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.stages.start_frame import MAX_SIGN_BYTES, Signing, credential_frame
from credentials.errors import Cause, CredentialsUnavailable
from credentials.lease import (
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
from toolcrib.handler.v1 import handler_pb2

NOW = datetime.now(UTC)


class Key:
    """A key in Vault."""

    def __init__(self) -> None:
        self.inputs: list[bytes] = []
        self.error: Exception | None = None

    async def sign(self, data: bytes) -> Signed:
        self.inputs.append(data)
        if self.error:
            raise self.error
        return Signed(b"signed " + data, 5)


def _lease(name: str, payload: Payload) -> Lease:
    return Lease(name, f"none/transit/{name}/a", "a", "transit", name, payload, NOW, NOW)


@pytest.fixture
def key() -> Key:
    return Key()


@pytest.fixture
def signing(key: Key) -> Signing:
    leases = [
        _lease("invoices", Signer("ed25519", 2, "PEM", key.sign)),
        _lease("orders", UsernamePassword("v-1", Secret("hidden"))),
    ]
    return Signing("c1", leases)


def _sign(credential: str = "invoices", data: bytes = b"data") -> handler_pb2.Sign:
    return handler_pb2.Sign(id=4, credential=credential, input=data)


async def test_signs_with_the_key_that_is_named(signing: Signing) -> None:
    expected = handler_pb2.Signature(id=4, signature=b"signed data", key_version=5)
    assert await signing(_sign()) == expected


@pytest.mark.parametrize("credential", ["", "orders", "others", "\x00"])
async def test_signs_with_nothing_but_a_signer_of_the_call(
    signing: Signing, key: Key, credential: str
) -> None:
    answer = await signing(_sign(credential))
    assert answer.error == "this call has no such credential that signs; it has: invoices"
    assert (answer.id, answer.signature, key.inputs) == (4, b"", [])


async def test_signs_nothing_that_is_too_long(signing: Signing, key: Key) -> None:
    answer = await signing(_sign(data=bytes(MAX_SIGN_BYTES + 1)))
    assert "over 32 KiB" in answer.error
    assert (await signing(_sign(data=bytes(MAX_SIGN_BYTES)))).error == ""
    assert len(key.inputs) == 1


async def test_signs_no_oftener_than_the_manifest_allows(signing: Signing, key: Key) -> None:
    answers = [await signing(_sign()) for _ in range(5)]
    assert [bool(answer.error) for answer in answers] == [False, False, True, True, True]
    assert "its manifest allows 2" in answers[-1].error
    assert len(key.inputs) == 2


async def test_counts_a_try_that_failed(signing: Signing, key: Key) -> None:
    key.error = CredentialsUnavailable("Vault is sealed", Cause.SEALED)
    answers = [await signing(_sign()) for _ in range(3)]
    assert [answer.error for answer in answers[:2]] == ["the key cannot be used now"] * 2
    assert len(key.inputs) == 2


async def test_says_nothing_of_what_vault_said(signing: Signing, key: Key) -> None:
    key.error = CredentialsUnavailable("http://10.0.0.5:8200 refused", Cause.DENIED)
    assert "10.0.0.5" not in (await signing(_sign())).error


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (
            UsernamePassword("v-1", Secret("hidden")),
            handler_pb2.Credential(
                username_password=handler_pb2.UsernamePassword(username="v-1", password="hidden")
            ),
        ),
        (
            KeyValues({"api_key": Secret("hidden")}, 7),
            handler_pb2.Credential(key_values=handler_pb2.KeyValues(values={"api_key": "hidden"}, version=7)),
        ),
        (
            ClientCertificate("cn", "CERT", Secret("KEY"), "CHAIN"),
            handler_pb2.Credential(
                client_certificate=handler_pb2.ClientCertificate(
                    certificate_pem="CERT", private_key_pem="KEY", chain_pem="CHAIN"
                )
            ),
        ),
        (
            SshLogin("git", Secret("KEY"), "CERT"),
            handler_pb2.Credential(
                ssh_login=handler_pb2.SshLogin(username="git", private_key="KEY", certificate="CERT")
            ),
        ),
    ],
)
def test_gives_the_tool_each_kind_of_credential(payload: Payload, expected: handler_pb2.Credential) -> None:
    assert credential_frame(payload) == expected


def test_gives_the_tool_nothing_of_a_signer_but_its_public_part(key: Key) -> None:
    frame = credential_frame(Signer("ed25519", 2, "PEM", key.sign))
    expected = handler_pb2.Signer(algorithm="ed25519", max_signatures=2, public_key_pem="PEM")
    assert frame == handler_pb2.Credential(signer=expected)
