"""mint gives a call its own logins, narrow and labelled, or none at all."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from credentials.errors import Cause, CredentialsUnavailable, PartUnavailable
from credentials.secret import Secret
from credentials.vault import CallTag, CredentialWanted, VaultSession
from tests.credentials.conftest import BROKEN, GRANTS, READ, TAG, WRITE, wanted


async def test_mints_a_login_that_works(session, log_in) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    connection = await log_in(lease)
    assert await connection.fetchval("SELECT note FROM notes") == "hello"


async def test_mints_a_login_that_can_do_no_more_than_its_role(session, log_in) -> None:
    [lease] = await session.mint(TAG, wanted(READ), 60)
    connection = await log_in(lease)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("INSERT INTO notes VALUES ('x')")


async def test_mints_a_login_that_cannot_enter_another_database(session, log_in) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await log_in(lease, database="postgres")


async def test_mints_one_login_for_each_credential_in_order(session) -> None:
    both = [CredentialWanted("a", "database", READ), CredentialWanted("b", "database", WRITE)]
    leases = await session.mint(TAG, both, 60)
    assert [lease.credential for lease in leases] == ["a", "b"]
    assert leases[0].username != leases[1].username
    assert leases[0].accessor != leases[1].accessor


async def test_mints_nothing_when_nothing_is_wanted(session, vault) -> None:
    assert await session.mint(TAG, [], 60) == []
    assert vault.count_tokens() == 0


async def test_labels_the_child_with_the_call(session, vault) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    child = next(token for token in vault.list_tokens() if token["accessor"] == lease.accessor)
    assert child["meta"] == {
        "call_id": "call-1",
        "tenant": "acme",
        "environment": "staging",
        "digest": "5e3c",
    }


async def test_gives_the_child_one_policy_and_a_short_life(session, vault) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    child = next(token for token in vault.list_tokens() if token["accessor"] == lease.accessor)
    assert child["policies"] == [f"toolcrib-tool-database-{READ}"]
    assert (child["num_uses"], child["orphan"], child["renewable"]) == (1, False, False)
    assert 0 < child["ttl"] <= 60


async def test_shows_the_digest_and_no_secret_in_vaults_audit(session, vault) -> None:
    tag = CallTag("call-2", "acme", "staging", "digest-of-call-2")
    [lease] = await session.mint(tag, wanted(), 60)
    audit = vault.audit_log.read_text()
    assert "digest-of-call-2" in audit
    assert lease.secrets[0].reveal() not in audit
    assert all(json.loads(line) for line in audit.splitlines())


async def test_hides_the_password_of_a_lease(session) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    assert lease.secrets[0].reveal() not in f"{lease!r} {lease.owed()!r}"


async def test_refuses_a_role_that_vault_does_not_have(session) -> None:
    with pytest.raises(CredentialsUnavailable, match="no database role notes-none") as caught:
        await session.mint(TAG, wanted("notes-none"), 60)
    assert caught.value.cause is Cause.ROLE_UNSAFE


async def test_refuses_a_role_with_vaults_default_statements(session, vault) -> None:
    creation = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'"
    vault.write("database/roles/notes-default", db_name="orders-db", creation_statements=[creation])
    with pytest.raises(CredentialsUnavailable, match="a login could outlive its call") as caught:
        await session.mint(TAG, wanted("notes-default"), 60)
    assert caught.value.cause is Cause.ROLE_UNSAFE


async def test_refuses_a_role_whose_logins_would_not_end_by_themselves(session, vault) -> None:
    """Vault's own default is 32 days: so long a login would live on where broker and Vault both died."""
    vault.install_role("notes-endless", "orders-db", GRANTS[READ])
    assert await session.check(wanted("notes-endless")) == []
    vault.write("database/roles/notes-endless", default_ttl=0, max_ttl=0)
    found = await session.check(wanted("notes-endless"))
    assert "its max_ttl must be set, to 3600 s at most" in found[0].problem


async def test_names_the_policy_that_is_missing(session, vault) -> None:
    vault.install_role("notes-bare", "orders-db", ['GRANT SELECT ON notes TO "{{name}}"'])
    vault.delete("sys/policies/acl/toolcrib-tool-database-notes-bare")
    with pytest.raises(
        CredentialsUnavailable, match="write the policy toolcrib-tool-database-notes-bare"
    ) as caught:
        await session.mint(TAG, wanted("notes-bare"), 60)
    assert (caught.value.cause, caught.value.owed) == (Cause.DENIED, [])


@pytest.mark.parametrize(
    ("engine", "role"), [("kv", "x"), ("database", "../x"), ("database", "X"), ("database", "")]
)
async def test_refuses_an_engine_or_role_name_that_it_does_not_know(session, engine, role) -> None:
    with pytest.raises(CredentialsUnavailable, match='credential "notes"'):
        await session.mint(TAG, [CredentialWanted("notes", engine, role)], 60)


async def test_leaves_nothing_when_the_target_refuses_the_grants(session, vault, notes) -> None:
    with pytest.raises(CredentialsUnavailable, match="no_such_table") as caught:
        await session.mint(TAG, wanted(BROKEN), 60)
    assert (caught.value.cause, caught.value.owed) == (Cause.BACKEND, [])
    assert (vault.count_leases(), vault.count_tokens(), notes.count_v_roles()) == (0, 0, 0)


async def test_ends_the_first_login_when_the_second_fails(session, vault, notes) -> None:
    with pytest.raises(CredentialsUnavailable):
        await session.mint(TAG, wanted(READ) + wanted(BROKEN), 60)
    assert (vault.count_leases(), vault.count_tokens(), notes.count_v_roles()) == (0, 0, 0)
    assert session.live_leases() == []


async def test_ends_what_a_cancelled_mint_makes(vault, notes) -> None:
    session = VaultSession(vault.address, vault.login)
    await session.open()
    minting = asyncio.create_task(session.mint(TAG, wanted(), 60))
    await asyncio.sleep(0.005)
    minting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await minting
    await session.close()
    assert (vault.count_leases(), notes.count_v_roles()) == (0, 0)


async def test_mints_for_many_calls_at_once(session, vault) -> None:
    minted = await asyncio.gather(*(session.mint(TAG, wanted(), 60) for _ in range(24)))
    assert len({leases[0].username for leases in minted}) == 24
    await asyncio.gather(*(session.end(leases[0]) for leases in minted))
    assert vault.count_leases() == 0


async def test_cannot_read_a_credential_with_the_session_itself(vault) -> None:
    auth = vault.write(
        "auth/approle/login", role_id=vault.role_id.reveal(), secret_id=vault.secret_id.reveal()
    )["auth"]
    token = Secret(auth["client_token"])
    with pytest.raises(PartUnavailable, match="permission denied"):
        vault.read(f"database/creds/{READ}", token)
    vault.write("auth/token/revoke-accessor", accessor=auth["accessor"])
