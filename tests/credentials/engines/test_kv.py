"""A secret that somebody put into Vault: strings, long enough, and no user names among the secrets."""

from __future__ import annotations

import pytest

from credentials.dev_engines import put_secret
from credentials.errors import Cause, CredentialsUnavailable
from credentials.lease import CallTag, CredentialWanted, KeyValues
from credentials.vault import VaultSession
from credentials.vetting import vet
from tests.credentials.engines.conftest import TAG

ROLE = "kv-odd"
WANTED = [CredentialWanted("api", "kv", ROLE)]
LONG = "a value that is long enough"


@pytest.fixture
async def session(engines_vault, vault_session) -> VaultSession:
    engines_vault.bootstrap(roles=[("kv", ROLE)])
    return vault_session


async def mint(session) -> KeyValues:
    [lease] = await session.mint(TAG, WANTED, 60)
    await session.end(lease)
    return lease.payload


async def test_gives_the_newest_version(session, engines_vault) -> None:
    put_secret(engines_vault, ROLE, {"key": LONG})
    before = await mint(session)
    put_secret(engines_vault, ROLE, {"key": LONG[::-1]})
    after = await mint(session)
    assert after.version == before.version + 1
    assert [payload.values["key"].reveal() for payload in (before, after)] == [LONG, LONG[::-1]]


@pytest.mark.parametrize("key", ["username", "user", "login"])
async def test_counts_a_user_name_as_no_secret(session, engines_vault, key) -> None:
    put_secret(engines_vault, ROLE, {key: "bob", "password": LONG})
    payload = await mint(session)
    assert [secret.reveal() for secret in payload.secrets] == [LONG]
    assert (payload.username, payload.values[key].reveal()) == ("bob", "bob")


@pytest.mark.parametrize("value", [12345678901234, None, True, {"deep": LONG}, [LONG]])
async def test_refuses_a_value_that_is_no_string(session, engines_vault, value) -> None:
    put_secret(engines_vault, ROLE, {"key": value})
    with pytest.raises(CredentialsUnavailable, match='the value of "key" is no string') as caught:
        await mint(session)
    assert (caught.value.cause, caught.value.owed) == (Cause.ROLE_UNSAFE, [])


async def test_refuses_a_short_value_and_does_not_tell_it(session, engines_vault) -> None:
    put_secret(engines_vault, ROLE, {"good": LONG, "pin": "elevenchars"})
    with pytest.raises(CredentialsUnavailable, match='"pin" is shorter than 12 characters') as caught:
        await mint(session)
    assert "elevenchars" not in str(caught.value)
    assert LONG not in str(caught.value)


async def test_gives_a_secret_of_the_largest_size(session, engines_vault) -> None:
    put_secret(engines_vault, ROLE, {"key": "x" * 65_536})
    assert len((await mint(session)).values["key"].reveal()) == 65_536


@pytest.mark.parametrize("values", [{}, {f"k{n}": LONG for n in range(65)}, {"key": "x" * 65_537}])
async def test_refuses_nothing_and_too_much(session, engines_vault, values) -> None:
    put_secret(engines_vault, ROLE, values)
    with pytest.raises(CredentialsUnavailable, match="1 to 64 keys|longer than 65536"):
        await mint(session)


async def test_refuses_a_secret_whose_newest_version_is_deleted(session, engines_vault) -> None:
    put_secret(engines_vault, ROLE, {"key": LONG})
    engines_vault.delete(f"toolcrib-kv/data/{ROLE}")
    with pytest.raises(CredentialsUnavailable, match="is deleted; put it there: vault kv put"):
        await mint(session)


async def test_gives_a_secret_that_will_go_later(session, engines_vault) -> None:
    engines_vault.write(f"toolcrib-kv/metadata/{ROLE}", delete_version_after="1h")
    put_secret(engines_vault, ROLE, {"key": LONG})
    assert (await mint(session)).values["key"].reveal() == LONG
    engines_vault.write(f"toolcrib-kv/metadata/{ROLE}", delete_version_after="0s")


async def test_finds_a_short_secret_before_registration(session, engines_vault) -> None:
    put_secret(engines_vault, ROLE, {"pin": "1234"})
    tag = CallTag("vetting", "acme", "staging", "")
    problems = await vet(session, tag, [*WANTED, CredentialWanted("db", "database", "no-such-role")])
    assert list(problems) == ["api"]
    assert '"pin" is shorter than 12 characters' in problems["api"]


async def test_finds_nothing_wrong_with_a_good_secret_and_leaves_nothing(session, engines_vault) -> None:
    put_secret(engines_vault, ROLE, {"key": LONG})
    assert await vet(session, TAG, WANTED) == {}
    assert engines_vault.count_tokens() == 0


async def test_does_not_judge_while_vault_does_not_answer(session, engines_vault) -> None:
    closed = VaultSession(engines_vault.address, engines_vault.login)
    with pytest.raises(CredentialsUnavailable):
        await vet(closed, TAG, WANTED)
    await closed.close()
