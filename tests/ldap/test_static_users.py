"""A directory's user that exists: one call at a time has its password, and each ends with a new one."""

from __future__ import annotations

import asyncio

import pytest

from credentials.errors import Cause, CredentialsUnavailable, EndNotConfirmed
from credentials.secret import Secret
from credentials.vault import SessionTuning, VaultSession
from tests.ldap.conftest import REPORTER, TAG, wanted, wanted_static
from tests.ldap.slapd import STATIC_DN


async def test_lets_the_user_log_in_until_the_end(session, slapd) -> None:
    [lease] = await session.mint(TAG, wanted_static(), 60)
    assert lease.username == STATIC_DN
    assert slapd.can_bind(STATIC_DN, lease.secrets[0])
    await session.end(lease)
    assert not slapd.can_bind(STATIC_DN, lease.secrets[0])


async def test_would_leave_the_password_as_it_is_without_a_rotation(vault, slapd) -> None:
    """The control: what ends a dynamic user, the end of the token, does nothing to this one."""
    policy = "toolcrib-tool-ldap_static-staff-reporter"
    child = vault.write("auth/token/create", policies=[policy], no_default_policy=True)["auth"]
    read = vault.read(f"ldap/static-cred/{REPORTER}")["data"]
    vault.write("auth/token/revoke-accessor", accessor=child["accessor"])
    assert slapd.can_bind(STATIC_DN, Secret(read["password"]))


async def test_is_out_who_knew_the_password_before_vault_took_it_over(vault, slapd) -> None:
    assert not slapd.can_bind(STATIC_DN, slapd.static_password)


async def test_gives_the_user_to_one_call_after_the_other(session, slapd) -> None:
    [first] = await session.mint(TAG, wanted_static(), 60)
    second = asyncio.create_task(session.mint(TAG, wanted_static(), 60))
    await asyncio.sleep(0.2)
    assert not second.done()
    await session.end(first)
    [lease] = await second
    assert not slapd.can_bind(STATIC_DN, first.secrets[0])
    assert slapd.can_bind(STATIC_DN, lease.secrets[0])


async def test_refuses_when_the_turn_does_not_come(vault) -> None:
    session = VaultSession(vault.address, vault.login, SessionTuning(timeout_seconds=0.5))
    await session.open()
    await session.mint(TAG, wanted_static(), 60)
    with pytest.raises(CredentialsUnavailable, match="another call has the login") as caught:
        await session.mint(TAG, wanted_static(), 60)
    await session.close()
    assert (caught.value.cause, caught.value.owed) == (Cause.OVERLOADED, [])


async def test_lets_other_roles_through_meanwhile(session) -> None:
    await session.mint(TAG, wanted_static(), 60)
    assert len(await session.mint(TAG, wanted(), 60)) == 1


async def test_changes_the_password_from_the_ids_in_the_journal(session, vault, slapd) -> None:
    [lease] = await session.mint(TAG, wanted_static(), 60)
    later = VaultSession(vault.address, vault.login)
    await later.open()
    await later.end(lease.owed())
    await later.close()
    assert not slapd.can_bind(STATIC_DN, lease.secrets[0])


async def test_keeps_the_user_taken_while_its_end_is_owed(vault, slapd) -> None:
    session = VaultSession(vault.address, vault.login, SessionTuning(timeout_seconds=1))
    await session.open()
    [lease] = await session.mint(TAG, wanted_static(), 60)
    slapd.pause()
    with pytest.raises(EndNotConfirmed):
        await session.end(lease)
    slapd.resume()
    with pytest.raises(CredentialsUnavailable, match="another call has the login"):
        await session.mint(TAG, wanted_static(), 60)
    await session.end(lease)
    await session.mint(TAG, wanted_static(), 60)
    await session.close()


async def test_refuses_a_password_that_is_too_short(session, vault) -> None:
    vault.write("sys/policies/password/short", policy='length = 8\nrule "charset" { charset = "abcdef" }')
    vault.write("ldap/config", password_policy="short")
    vault.write(f"ldap/rotate-role/{REPORTER}")
    with pytest.raises(CredentialsUnavailable, match="shorter than 12") as caught:
        await session.mint(TAG, wanted_static(), 60)
    vault.write("ldap/config", password_policy="")
    vault.write(f"ldap/rotate-role/{REPORTER}")
    assert (caught.value.cause, caught.value.owed) == (Cause.ROLE_UNSAFE, [])


async def test_refuses_a_role_that_names_no_entry(session, vault) -> None:
    loose = {"username": "clerk", "rotation_period": "24h", "skip_import_rotation": True}
    vault.write("ldap/static-role/staff-loose", **loose)
    with pytest.raises(CredentialsUnavailable, match="has no dn") as caught:
        await session.mint(TAG, wanted("ldap_static", "staff-loose"), 60)
    vault.delete("ldap/static-role/staff-loose")
    assert caught.value.cause is Cause.ROLE_UNSAFE


async def test_refuses_a_role_that_vault_does_not_have(session) -> None:
    with pytest.raises(CredentialsUnavailable, match="no static LDAP role staff-none"):
        await session.mint(TAG, wanted("ldap_static", "staff-none"), 60)


async def test_changes_the_password_first_when_vault_would_change_it_meanwhile(session, vault, slapd) -> None:
    vault.write(f"ldap/static-role/{REPORTER}", rotation_period="2h")
    before = vault.read(f"ldap/static-cred/{REPORTER}")["data"]["last_vault_rotation"]
    with pytest.raises(CredentialsUnavailable, match="it is changed now; try again") as caught:
        await session.mint(TAG, wanted_static(), 7201)
    vault.write(f"ldap/static-role/{REPORTER}", rotation_period="24h")
    assert (caught.value.cause, caught.value.owed) == (Cause.OVERLOADED, [])
    assert vault.read(f"ldap/static-cred/{REPORTER}")["data"]["last_vault_rotation"] != before


async def test_keeps_the_end_owed_when_vault_lost_the_role(session, vault, slapd) -> None:
    [lease] = await session.mint(TAG, wanted_static(), 60)
    definition = dict(vault.read(f"ldap/static-role/{REPORTER}")["data"])
    vault.delete(f"ldap/static-role/{REPORTER}")
    with pytest.raises(EndNotConfirmed, match="change the password by hand"):
        await session.end(lease)
    assert slapd.can_bind(STATIC_DN, lease.secrets[0])
    fields = {name: definition[name] for name in ("dn", "username", "rotation_period")}
    vault.write(f"ldap/static-role/{REPORTER}", **fields)
    await session.end(lease)
    assert not slapd.can_bind(STATIC_DN, lease.secrets[0])


async def test_ends_a_second_password_that_a_call_gave_the_user(session, slapd) -> None:
    [lease] = await session.mint(TAG, wanted_static(), 60)
    change = f"dn: {STATIC_DN}\nchangetype: modify\nadd: userPassword\nuserPassword: a-second-one\n"
    slapd.change(change)
    assert slapd.can_bind(STATIC_DN, Secret("a-second-one"))
    assert slapd.can_bind(STATIC_DN, lease.secrets[0])
    await session.end(lease)
    assert not slapd.can_bind(STATIC_DN, Secret("a-second-one"))
