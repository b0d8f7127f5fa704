"""A directory's users that are made for one call: they log in while it runs, and not after."""

from __future__ import annotations

import pytest

from credentials.engines.ldap import creation_ldif, deletion_ldif, find_ldif_problems
from credentials.errors import Cause, CredentialsUnavailable, EndNotConfirmed, PartUnavailable
from credentials.secret import Secret
from credentials.vault import VaultSession
from tests.ldap.conftest import GUEST, REPORTER, TAG, wanted
from tests.ldap.slapd import READERS, TOOLS

ORPHAN = "# forgets the user\n" + deletion_ldif(TOOLS).replace("{{.Username}}", "nobody")


async def test_lets_the_user_log_in_until_the_end(session, slapd) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    assert slapd.can_bind(lease.username, lease.secrets[0])
    await session.end(lease)
    assert not slapd.can_bind(lease.username, lease.secrets[0])


async def test_names_the_user_as_the_directory_does(session, slapd) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    assert slapd.list_users() == [lease.username]
    assert lease.username.endswith(TOOLS)


async def test_makes_the_user_a_member_until_the_end(session, slapd) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    assert slapd.list_readers() == [lease.username]
    await session.end(lease)
    assert slapd.list_readers() == []


async def test_makes_a_user_of_its_own_for_each_call(session, slapd) -> None:
    [one], [other] = [await session.mint(TAG, wanted(), 60) for _ in range(2)]
    await session.end(one)
    assert slapd.list_users() == [other.username]
    assert slapd.can_bind(other.username, other.secrets[0])


async def test_ends_the_user_from_the_ids_in_the_journal(session, vault, slapd) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    later = VaultSession(vault.address, vault.login)
    await later.open()
    await later.end(lease.owed())
    await later.close()
    assert not slapd.can_bind(lease.username, lease.secrets[0])


async def test_ends_a_user_that_was_ended_before(session, slapd) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    await session.end(lease)
    await session.end(lease)
    assert slapd.list_users() == []


async def test_keeps_the_end_owed_while_the_directory_is_away(session, slapd) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    slapd.pause()
    with pytest.raises(EndNotConfirmed, match="failed at the target") as caught:
        await session.end(lease)
    slapd.resume()
    assert caught.value.cause is Cause.BACKEND
    await session.end(lease)
    assert slapd.list_users() == []


async def test_makes_no_user_while_the_directory_is_away(session, slapd) -> None:
    slapd.pause()
    with pytest.raises(CredentialsUnavailable, match="see that the target runs") as caught:
        await session.mint(TAG, wanted(), 60)
    slapd.resume()
    assert (caught.value.cause, caught.value.owed) == (Cause.BACKEND, [])
    assert slapd.list_users() == []


async def test_leaves_no_user_when_one_of_its_groups_is_missing(session, vault, slapd) -> None:
    group = f"cn=nobody,{TOOLS}"
    ends = {"deletion_ldif": deletion_ldif(TOOLS, [group]), "rollback_ldif": deletion_ldif(TOOLS, [group])}
    vault.write("ldap/role/staff-lost", creation_ldif=creation_ldif(TOOLS, [group]), max_ttl="15m", **ends)
    vault.install_tool_policy("ldap", "staff-lost")
    with pytest.raises(CredentialsUnavailable, match="No Such Object") as caught:
        await session.mint(TAG, wanted(role="staff-lost"), 60)
    assert (caught.value.cause, caught.value.owed, slapd.list_users()) == (Cause.BACKEND, [], [])


async def test_owes_what_somebody_else_deleted_for_a_person_to_look_at(session, vault, slapd) -> None:
    """Vault's engine has no end for a user who is not there; the lease stays visible, the login is dead."""
    [lease] = await session.mint(TAG, wanted(), 60)
    slapd.change(f"dn: {lease.username}\nchangetype: delete\n")
    with pytest.raises(EndNotConfirmed, match="No Such Object"):
        await session.end(lease)
    assert not slapd.can_bind(lease.username, lease.secrets[0])
    assert slapd.list_readers() == []
    vault.write(f"sys/leases/revoke-force/{lease.lease_id}")
    await session.end(lease)


@pytest.mark.parametrize(
    ("deletion", "rollback"),
    [(ORPHAN, deletion_ldif(TOOLS)), (deletion_ldif(TOOLS), ""), (deletion_ldif(f"ou=x,{TOOLS}"), ORPHAN)],
)
async def test_refuses_a_role_whose_users_would_stay(session, vault, slapd, deletion, rollback) -> None:
    ldif = {"creation_ldif": creation_ldif(TOOLS), "deletion_ldif": deletion, "rollback_ldif": rollback}
    vault.write("ldap/role/staff-other", max_ttl="15m", **ldif)
    with pytest.raises(CredentialsUnavailable, match="a user could outlive its call") as caught:
        await session.mint(TAG, wanted(role="staff-other"), 60)
    vault.delete("ldap/role/staff-other")
    assert (caught.value.cause, slapd.list_users()) == (Cause.ROLE_UNSAFE, [])


def test_says_nothing_against_its_own_ldif() -> None:
    deletion = deletion_ldif(TOOLS, [READERS])
    ends = {"deletion_ldif": deletion, "rollback_ldif": deletion}
    assert find_ldif_problems({"creation_ldif": creation_ldif(TOOLS, [READERS]), **ends}) == []


@pytest.mark.parametrize(
    "creation",
    [
        "",
        creation_ldif(TOOLS).replace("objectClass: person", "objectClass: person\nobjectClass: top"),
        creation_ldif(TOOLS) + f"\ndn: {READERS}\nchangetype: delete\n",
        creation_ldif(TOOLS, [READERS]).replace("add: member", "replace: member"),
        creation_ldif("ou={{.RoleName}}"),
    ],
)
def test_refuses_a_role_that_makes_something_else(creation) -> None:
    ends = {"deletion_ldif": deletion_ldif(TOOLS), "rollback_ldif": deletion_ldif(TOOLS)}
    assert find_ldif_problems({"creation_ldif": creation, **ends})


async def test_refuses_a_role_whose_users_live_too_long(session, vault) -> None:
    definition = dict(vault.read(f"ldap/role/{GUEST}")["data"])
    vault.write("ldap/role/staff-long", **(definition | {"max_ttl": "24h"}))
    with pytest.raises(CredentialsUnavailable, match="max_ttl must be set"):
        await session.mint(TAG, wanted(role="staff-long"), 60)
    vault.delete("ldap/role/staff-long")


async def test_refuses_a_role_that_vault_does_not_have(session) -> None:
    with pytest.raises(CredentialsUnavailable, match="no LDAP role staff-none") as caught:
        await session.mint(TAG, wanted(role="staff-none"), 60)
    assert caught.value.cause is Cause.ROLE_UNSAFE


async def test_finds_nothing_wrong_with_what_bootstrap_wrote(session) -> None:
    both = [*wanted(), *wanted("ldap_static", REPORTER)]
    assert await session.check(both) == []


@pytest.mark.parametrize(
    "path", [f"ldap/creds/{GUEST}", f"ldap/static-cred/{REPORTER}", "ldap/config", "ldap/library"]
)
async def test_reads_nothing_with_the_session_itself(vault, path) -> None:
    secrets = {"role_id": vault.role_id.reveal(), "secret_id": vault.secret_id.reveal()}
    auth = vault.write("auth/approle/login", **secrets)["auth"]
    with pytest.raises(PartUnavailable, match="permission denied"):
        vault.read(path, Secret(auth["client_token"]))
    vault.write("auth/token/revoke-accessor", accessor=auth["accessor"])


@pytest.mark.parametrize(
    ("policy", "path", "allowed"),
    [
        ("toolcrib-tool-ldap-staff-guest", f"ldap/static-cred/{REPORTER}", False),
        ("toolcrib-tool-ldap-staff-guest", "ldap/creds/staff-other", False),
        ("toolcrib-tool-ldap-staff-guest", f"ldap/role/{GUEST}", False),
        ("toolcrib-tool-ldap_static-staff-reporter", f"ldap/creds/{GUEST}", False),
        ("toolcrib-tool-ldap_static-staff-reporter", f"ldap/static-cred/{REPORTER}", True),
    ],
)
async def test_gives_a_child_its_own_role_and_no_other(vault, policy, path, allowed) -> None:
    child = vault.write("auth/token/create", policies=[policy], no_default_policy=True, ttl="60s")["auth"]
    try:
        vault.read(path, Secret(child["client_token"]))
        assert allowed
    except PartUnavailable as error:
        assert "permission denied" in str(error) and not allowed
    vault.write("auth/token/revoke-accessor", accessor=child["accessor"])
