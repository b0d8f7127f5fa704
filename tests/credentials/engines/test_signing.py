"""A key that signs in Vault: so often as was asked, with the call's child, and not after its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from credentials.engines import DEFAULT_MOUNTS, ENGINES
from credentials.engines.transit import ALGORITHMS, MAX_INPUT_BYTES
from credentials.errors import Cause, CredentialsUnavailable
from tests.credentials.engines.conftest import TAG, role_of, wanted

MOUNT = "toolcrib-sign"
DIGESTS = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


@pytest.fixture
def session(engines_vault, vault_session):
    return vault_session


async def mint(session, max_signatures: int = 1, which: str = "a"):
    [lease] = await session.mint(TAG, wanted("transit", which, max_signatures), 60)
    return lease


def verify(signer, signature: bytes, text: bytes) -> None:
    """Verify as who has the public key and knows the algorithm's name."""
    key: Any = load_pem_public_key(signer.public_key_pem.encode())
    if signer.algorithm == "ed25519":
        key.verify(signature, text)
    elif signer.algorithm == "rsa-pss-sha256":
        digest = hashes.SHA256()
        pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
        key.verify(signature, text, pss, digest)
    else:
        key.verify(signature, text, ec.ECDSA(DIGESTS[signer.algorithm[-3:]]))


@pytest.mark.parametrize("kind", ALGORITHMS)
async def test_signs_with_a_key_of_each_type(session, engines_vault, kind) -> None:
    engines_vault.write(f"{MOUNT}/keys/transit-{kind}", type=kind)
    engines_vault.bootstrap(roles=[("transit", f"transit-{kind}")])
    lease = await mint(session, which=kind)
    signed = await lease.payload.sign(b"a text")
    verify(lease.payload, signed.signature, b"a text")
    with pytest.raises(InvalidSignature):
        verify(lease.payload, signed.signature, b"another text")


async def test_signs_with_the_newest_version_of_a_key(session, engines_vault) -> None:
    engines_vault.write(f"{MOUNT}/keys/transit-old", type="ed25519")
    engines_vault.bootstrap(roles=[("transit", "transit-old")])
    engines_vault.write(f"{MOUNT}/keys/transit-old/rotate")
    lease = await mint(session, which="old")
    signed = await lease.payload.sign(b"a text")
    verify(lease.payload, signed.signature, b"a text")
    assert signed.key_version == 2


async def test_signs_as_often_as_was_asked_and_no_oftener(session) -> None:
    signer = (await mint(session, 2)).payload
    for text in (b"one", b"two"):
        verify(signer, (await signer.sign(text)).signature, text)
    with pytest.raises(CredentialsUnavailable, match="the call's 2 signatures are used up"):
        await signer.sign(b"three")


async def test_signs_a_hundred_times(session) -> None:
    signer = (await mint(session, 100)).payload
    signed = await asyncio.gather(*(signer.sign(b"%d" % number) for number in range(100)))
    assert len({each.signature for each in signed}) == 100


async def test_signs_nothing_after_the_end(session) -> None:
    lease = await mint(session, 5)
    await session.end(lease)
    with pytest.raises(CredentialsUnavailable, match="has its call ended") as caught:
        await lease.payload.sign(b"late")
    assert caught.value.cause is Cause.DENIED


async def test_refuses_a_text_that_is_too_long_and_does_not_count_it(session) -> None:
    signer = (await mint(session)).payload
    with pytest.raises(CredentialsUnavailable, match="more than 32768 bytes"):
        await signer.sign(bytes(MAX_INPUT_BYTES + 1))
    text = bytes(MAX_INPUT_BYTES)
    verify(signer, (await signer.sign(text)).signature, text)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ({"type": "ed25519", "exportable": True}, "its exportable must be false"),
        ({"type": "ecdsa-p256", "allow_plaintext_backup": True}, "its allow_plaintext_backup must be false"),
        ({"type": "ed25519", "derived": True}, "its derived must be false"),
        ({"type": "aes256-gcm96"}, "it is of type aes256-gcm96; these sign: ed25519"),
        ({"type": "hmac", "key_size": 32}, "it is of type hmac; these sign: ed25519"),
    ],
)
async def test_finds_a_key_that_could_leave_vault_or_does_not_sign(
    session, engines_vault, key, problem
) -> None:
    name = "transit-odd"
    engines_vault.write(f"{MOUNT}/keys/{name}", **key)
    engine = ENGINES["transit"]
    found = await session.ask("x", lambda api, token: engine.find_problems(api, token, DEFAULT_MOUNTS, name))
    engines_vault.write(f"{MOUNT}/keys/{name}/config", deletion_allowed=True)
    engines_vault.delete(f"{MOUNT}/keys/{name}")
    assert [text[: len(problem)] for text in found] == [problem]


async def test_finds_nothing_wrong_with_our_key(session) -> None:
    engine, name = ENGINES["transit"], role_of("transit")
    assert (
        await session.ask("x", lambda api, token: engine.find_problems(api, token, DEFAULT_MOUNTS, name))
        == []
    )


async def test_shows_neither_token_nor_text(session) -> None:
    lease = await mint(session)
    child = lease.payload.sign.__self__._child.reveal()
    assert child not in f"{lease!r} {lease.payload.sign!r}"
