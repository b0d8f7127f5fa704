"""A certificate for SSH: one user name, one command, the time of a call, and the call's id in its name."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization

from credentials.dev_engines import read_ssh_authority
from credentials.engines import DEFAULT_MOUNTS, ENGINES
from credentials.engines.ssh import REQUIRED, role_fields
from credentials.errors import Cause, CredentialsUnavailable
from tests.credentials.engines.conftest import COMMAND, TAG, role_of, wanted

WANTED = wanted("ssh")
MOUNT = "toolcrib-ssh"
ODD = "ssh-odd"


@pytest.fixture
def session(engines_vault, vault_session):
    return vault_session


@pytest.fixture
async def lease(session):
    [minted] = await session.mint(TAG, WANTED, 60)
    return minted


def read(lease) -> serialization.SSHCertificate:
    identity = serialization.load_ssh_public_identity(lease.payload.certificate.strip().encode())
    assert isinstance(identity, serialization.SSHCertificate)
    return identity


async def find_problems(session, role: str = ODD) -> list[str]:
    return await session.ask(
        "x", lambda api, token: ENGINES["ssh"].find_problems(api, token, DEFAULT_MOUNTS, role)
    )


async def test_is_signed_by_the_authority_for_our_key(lease, engines_vault) -> None:
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    assert read(lease).signature_key().public_bytes(*form).decode() == read_ssh_authority(engines_vault)
    key = serialization.load_ssh_private_key(lease.payload.private_key.reveal().encode(), None)
    assert key.public_key() == read(lease).public_key()


async def test_is_for_one_user_and_one_command(lease) -> None:
    certificate = read(lease)
    assert certificate.valid_principals == [b"git"] == [lease.username.encode()]
    assert certificate.critical_options == {b"force-command": COMMAND.encode()}
    assert (certificate.extensions, certificate.type) == ({}, serialization.SSHCertificateType.USER)


async def test_ends_with_the_time_that_was_asked(lease) -> None:
    assert 0 < read(lease).valid_before - lease.minted.timestamp() <= 62


async def test_names_the_call(lease) -> None:
    assert TAG.call_id in read(lease).key_id.decode()


async def test_refuses_a_longer_time_than_the_role_allows(session) -> None:
    with pytest.raises(CredentialsUnavailable, match="ttl is larger than maximum allowed") as caught:
        await session.mint(TAG, WANTED, 3000)
    assert caught.value.owed == []


async def test_finds_nothing_wrong_with_our_role(session) -> None:
    assert await find_problems(session, role_of("ssh")) == []


WIDER = {
    "key_type": "otp",
    "allow_user_certificates": False,
    "allow_host_certificates": True,
    "allowed_users_template": True,
    "default_user_template": True,
    "allow_empty_principals": True,
    "default_extensions": {"permit-pty": ""},
    "default_extensions_template": True,
    "allowed_extensions": "permit-port-forwarding",
}


@pytest.mark.parametrize("field", REQUIRED)
async def test_finds_a_role_that_is_too_broad(session, engines_vault, field) -> None:
    role = {**role_fields("git", COMMAND, 900), field: WIDER[field]}
    if field == "key_type":
        role = {"key_type": "otp", "default_user": "git", "cidr_list": "127.0.0.0/8"}
    if field == "allow_user_certificates":
        role["allow_host_certificates"] = True  # Vault wants one of them
    engines_vault.write(f"{MOUNT}/roles/{ODD}", **role)
    assert [text for text in await find_problems(session) if text.startswith(f"its {field} must be")]
    engines_vault.delete(f"{MOUNT}/roles/{ODD}")


FORCED = {"force-command": COMMAND}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"allowed_users": "*"}, "its allowed_users must be its default_user"),
        ({"allowed_users": "git,root"}, "its allowed_users must be its default_user"),
        ({"allowed_users": "git,root", "default_user": "git,root"}, "its allowed_users must be its default"),
        ({"default_user": ""}, "its allowed_users must be its default_user"),
        ({"default_critical_options": {}}, "its default_critical_options must force one command"),
        ({"default_critical_options": {"force-command": ""}}, "its default_critical_options must force"),
        ({"default_critical_options": {**FORCED, "x": "y"}}, "its default_critical_options must force"),
        ({"max_ttl": 0, "ttl": 0}, "its max_ttl must be set, to 3600 s at most"),
        ({"not_before_duration": 301}, "its not_before_duration must be 300 s at most"),
    ],
)
async def test_finds_a_role_of_more_users_more_commands_more_time(
    session, engines_vault, change, problem
) -> None:
    engines_vault.write(f"{MOUNT}/roles/{ODD}", **{**role_fields("git", COMMAND, 900), **change})
    [found] = await find_problems(session)
    assert found.startswith(problem)


async def test_takes_a_role_that_is_good_from_some_addresses_only(session, engines_vault) -> None:
    role = role_fields("git", COMMAND, 900)
    role["default_critical_options"] = {**FORCED, "source-address": "127.0.0.1"}
    engines_vault.write(f"{MOUNT}/roles/{ODD}", **role)
    assert await find_problems(session) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"default_critical_options": {}}, "it forces no command"),
        ({"default_extensions": {"permit-pty": ""}}, "it has extensions"),
        ({"default_user": "git,root", "allowed_users": "git,root"}, "it is not for exactly one user name"),
        ({"not_before_duration": 3600}, "it is valid for too long"),
    ],
)
async def test_refuses_what_is_signed_otherwise_than_asked(session, engines_vault, change, problem) -> None:
    """The role was found safe a moment ago, and somebody changed it since."""
    good = role_fields("git", COMMAND, 900)
    engines_vault.write(f"{MOUNT}/roles/{ODD}", **good)
    engines_vault.bootstrap(roles=[("ssh", ODD)])
    await session.end((await session.mint(TAG, wanted("ssh", "odd"), 60))[0])
    engines_vault.write(f"{MOUNT}/roles/{ODD}", **{**good, **change})
    with pytest.raises(CredentialsUnavailable, match=problem) as caught:
        await session.mint(TAG, wanted("ssh", "odd"), 60)
    assert (caught.value.cause, caught.value.owed) == (Cause.ROLE_UNSAFE, [])
