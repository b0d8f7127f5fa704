"""A review of what stands in Vault says what differs, what is too broad and what is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from credentials.bootstrap.review import review_as_administrator, review_as_broker
from credentials.dev_vault import DevVault
from credentials.engines import ENGINES
from credentials.role_check import Finding
from credentials.secret import Secret
from credentials.transport import HvacTransport, Peer
from credentials.vault_api import VaultApi
from tests.credentials.test_bootstrap import ROLES, WISH, apply
from tests.parts.vault import TARGET

EVERY_ENGINE = replace(WISH, engines=frozenset(ENGINES) - {"ldap", "ldap_static"})
BROKER_ROLE = "auth/approle/role/toolcrib-broker"


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory, notes) -> Iterator[DevVault]:
    """A Vault in which nothing is wrong."""
    with DevVault(tmp_path_factory.mktemp("reviewed")) as server:
        server.connect_database(TARGET, notes)
        server.write("toolcrib-kv/data/b-kv", data={"token": "0123456789abcdef"})
        apply(server, EVERY_ENGINE)
        yield server


class Reviewer:
    """Looks as the broker, with a session of its own each time, or as an administrator."""

    def __init__(self, vault: DevVault, api: VaultApi) -> None:
        self._vault, self._api = vault, api

    async def as_broker(self, wish=EVERY_ENGINE) -> list[Finding]:
        token = await self._vault.login.log_in(self._api)
        try:
            return await review_as_broker(self._api, token.value, wish)
        finally:
            self._vault.write("auth/token/revoke", token=token.value.reveal())

    async def as_administrator(self, wish=EVERY_ENGINE, token: Secret | None = None) -> list[Finding]:
        return await review_as_administrator(self._api, token or self._vault.root_token, wish)


@pytest.fixture
async def reviewer(reviewed: DevVault) -> AsyncIterator[Reviewer]:
    """After each test what it broke is written again."""
    transport = HvacTransport(Peer(reviewed.address))
    yield Reviewer(reviewed, VaultApi(transport))
    await transport.close()
    apply(reviewed, EVERY_ENGINE)


def texts(findings: list[Finding]) -> str:
    return " | ".join(f"{finding.subject}: {finding.problem}" for finding in findings)


async def test_finds_nothing_where_nothing_is_wrong(reviewer: Reviewer) -> None:
    assert await reviewer.as_broker() == []
    assert await reviewer.as_administrator() == []


# --- as the broker ---
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token_no_default_policy": False}, "the policies default, toolcrib-broker"),
        ({"token_period": 0, "token_ttl": 300}, "it has no period"),
        ({"token_num_uses": 50}, "it ends by its number of uses"),
    ],
)
async def test_finds_a_session_that_is_not_as_it_has_to_be(reviewer, reviewed, changes, words) -> None:
    reviewed.write(BROKER_ROLE, **changes)
    found = texts(await reviewer.as_broker())
    reviewed.write(BROKER_ROLE, token_ttl=0)
    assert words in found


async def test_shows_what_a_broad_policy_has_more(reviewer, reviewed) -> None:
    policy = reviewed.read("sys/policies/acl/toolcrib-broker")["data"]["policy"]
    extra = 'path "database/creds/*" { capabilities = ["read"] }'
    reviewed.write("sys/policies/acl/toolcrib-broker", policy=f"{policy}\n{extra}")
    [found] = await reviewer.as_broker()
    assert "too broad" in found.problem and extra in found.problem


async def test_shows_what_a_policy_lacks(reviewer, reviewed) -> None:
    policy = reviewed.read("sys/policies/acl/toolcrib-broker")["data"]["policy"]
    line = 'path "auth/token/revoke-self" { capabilities = ["update"] }'
    assert line in policy
    reviewed.write("sys/policies/acl/toolcrib-broker", policy=policy.replace(line, ""))
    [found] = await reviewer.as_broker()
    assert f"it lacks: {line}" in found.problem


async def test_warns_of_engines_that_no_tool_wants(reviewer) -> None:
    database_only = replace(EVERY_ENGINE, engines=frozenset(), definitions=(ROLES[0],))
    [found] = await reviewer.as_broker(database_only)
    assert found.is_warning and "kv" in found.problem


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.engine)
async def test_finds_a_tools_policy_that_gives_more_than_its_role(reviewer, reviewed, role) -> None:
    name = f"sys/policies/acl/toolcrib-tool-{role.engine}-{role.role}"
    reviewed.write(name, policy='path "*" { capabilities = ["read"] }')
    [found] = await reviewer.as_broker()
    assert "not exactly the right" in found.problem


async def test_finds_an_engine_that_the_server_lacks(reviewer) -> None:
    wish = replace(EVERY_ENGINE, roles=frozenset({("ldap", "people")}))
    assert "Vault's engine ldap: Vault has no engine at ldap/" in texts(await reviewer.as_broker(wish))


async def test_finds_an_engine_of_another_kind(reviewer, reviewed) -> None:
    reviewed.write("sys/mounts/old-kv", type="kv")
    mounts = {**EVERY_ENGINE.mounts, "kv": "old-kv"}
    policy = reviewed.read("sys/policies/acl/toolcrib-broker")["data"]["policy"]
    changed = policy.replace("toolcrib-kv/", "old-kv/")
    reviewed.write("sys/policies/acl/toolcrib-broker", policy=changed)
    assert "version 1 of kv" in texts(await reviewer.as_broker(replace(EVERY_ENGINE, mounts=mounts)))


async def test_finds_a_tenant_without_a_key(reviewer) -> None:
    [found] = await reviewer.as_broker(replace(EVERY_ENGINE, tenants=("acme", "newcomer")))
    assert found.subject == "data key of tenant newcomer"
    assert "vault write -f transit/keys/toolcrib-newcomer" in found.remedy


async def test_finds_a_key_that_can_be_taken_out(reviewer, reviewed) -> None:
    reviewed.write("transit/keys/toolcrib-leaky", type="aes256-gcm96", exportable=True)
    found = texts(await reviewer.as_broker(replace(EVERY_ENGINE, tenants=("leaky",))))
    assert found == "data key of tenant leaky: exportable is True and should be False"


# --- as an administrator ---
async def test_finds_a_secret_id_that_is_good_for_ever_and_from_everywhere(reviewer, reviewed) -> None:
    reviewed.write(BROKER_ROLE, token_bound_cidrs=[])
    anywhere = replace(EVERY_ENGINE, login=replace(EVERY_ENGINE.login, cidrs=()))
    assert "logs in for ever and from everywhere" in texts(await reviewer.as_administrator(anywhere))


async def test_finds_policies_that_nobody_needs_any_more(reviewer, reviewed) -> None:
    reviewed.install_tool_policy("database", "long-gone")
    [found] = await reviewer.as_administrator()
    reviewed.delete("sys/policies/acl/toolcrib-tool-database-long-gone")
    assert found.is_warning
    assert found.remedy.endswith("vault policy delete toolcrib-tool-database-long-gone")


async def test_says_when_a_token_may_not_see_the_audit_devices(reviewer, reviewed) -> None:
    policy = (
        'path "*" { capabilities = ["read", "list", "sudo"] } path "sys/audit" { capabilities = ["deny"] }'
    )
    reviewed.write("sys/policies/acl/reader", policy=policy)
    made = reviewed.write("auth/token/create", policies=["reader"])["auth"]
    [found] = await reviewer.as_administrator(token=Secret(made["client_token"]))
    assert found.is_warning and "may not see the audit devices" in found.problem


async def test_names_each_change_that_bootstrap_would_make(reviewer, reviewed) -> None:
    reviewed.write("auth/token/roles/toolcrib-call", orphan=True)
    reviewed.delete("sys/policies/acl/toolcrib-tool-ssh-b-ssh")
    found = texts(await reviewer.as_administrator())
    assert "token role toolcrib-call: orphan is True and should be False" in found
    assert "policy toolcrib-tool-ssh-b-ssh: it is missing" in found
