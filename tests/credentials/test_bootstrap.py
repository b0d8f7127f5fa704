"""Bootstrap writes what is needed and nothing else, changes back what differs, names what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from credentials.bootstrap.blueprint import LoginRole, Wish
from credentials.bootstrap.plan import NotTaken, Plan, apply_plan, make_plan
from credentials.bootstrap.roles import RoleDefinition, define_role
from credentials.dev_vault import DevVault, run_apart
from credentials.secret import Secret
from credentials.transport import HvacTransport, Peer
from credentials.vault import CredentialWanted, VaultSession
from credentials.vault_api import VaultApi
from tests.credentials.conftest import TAG
from tests.parts.vault import TARGET

GRANT = 'GRANT SELECT ON notes TO "{{name}}"'
ROLES = [
    define_role("b-db", {"target": TARGET, "grants": [GRANT]}),
    define_role("b-kv", {"engine": "kv"}),
    define_role("b-pki", {"engine": "pki", "name": "robot.example.org"}),
    define_role("b-ssh", {"engine": "ssh", "principal": "git", "force_command": "git-shell"}),
    define_role("b-sign", {"engine": "transit", "type": "ed25519"}),
]
USED = frozenset(role.engine for role in ROLES)
LOGIN = LoginRole(cidrs=("127.0.0.1/32",))
WISH = Wish(definitions=tuple(ROLES), engines=USED, tenants=("acme",), login=LOGIN)


@pytest.fixture(scope="module")
def bare(tmp_path_factory, notes) -> Iterator[DevVault]:
    """A Vault of this module's, with a target and a secret; each test puts its changes right again."""
    with DevVault(tmp_path_factory.mktemp("bare")) as server:
        server.connect_database(TARGET, notes)
        server.write("toolcrib-kv/data/b-kv", data={"token": "0123456789abcdef"})
        apply(server)
        yield server
        assert plan(server).changes == ()


def plan(vault: DevVault, wish: Wish = WISH, token: Secret | None = None) -> Plan:
    """Make a plan as `toolcrib vault bootstrap --plan` does."""
    return run_apart(_with_api(vault, lambda api: make_plan(api, token or vault.root_token, wish)))


def apply(vault: DevVault, wish: Wish = WISH) -> Plan:
    """Make a plan and apply it."""
    made = plan(vault, wish)
    run_apart(_with_api(vault, lambda api: apply_plan(api, vault.root_token, made)))
    return made


async def _with_api(vault: DevVault, work) -> Any:
    transport = HvacTransport(Peer(vault.address))
    try:
        return await work(VaultApi(transport))
    finally:
        await transport.close()


def subjects(made: Plan) -> list[str]:
    return [change.item.subject for change in made.changes]


def problems(made: Plan) -> dict[str, str]:
    return {problem.subject: problem.problem for problem in made.problems}


# --- what it writes ---
def test_has_nothing_to_do_the_second_time(bare) -> None:
    again = apply(bare)
    assert (again.changes, again.problems) == ((), ())


def test_writes_all_that_a_new_role_needs(bare) -> None:
    role = define_role("b-new", {"target": TARGET, "grants": [GRANT]})
    made = apply(bare, replace(WISH, definitions=(role,)))
    assert subjects(made) == ["policy toolcrib-tool-database-b-new", "database role b-new"]
    assert bare.read("database/roles/b-new")["data"]["db_name"] == TARGET


def test_writes_nothing_when_it_only_plans(bare) -> None:
    made = plan(bare, replace(WISH, tenants=("acme", "newcomer")))
    assert subjects(made) == ["data key of tenant newcomer"]
    assert subjects(plan(bare, replace(WISH, tenants=("acme", "newcomer")))) == subjects(made)


async def test_makes_roles_that_every_engine_finds_fit(bare) -> None:
    session = VaultSession(bare.address, bare.login)
    await session.open()
    wanted = [CredentialWanted(role.role, role.engine, role.role) for role in ROLES]
    findings = await session.check(wanted)
    leases = await session.mint(TAG, wanted, 60)
    await session.close()
    assert (findings, len(leases)) == ([], len(ROLES))


@pytest.mark.parametrize(
    ("path", "changes", "subject"),
    [
        ("auth/approle/role/toolcrib-broker", {"token_period": 0}, "login role toolcrib-broker"),
        (
            "auth/approle/role/toolcrib-broker",
            {"token_policies": ["toolcrib-broker", "default"]},
            "login role toolcrib-broker",
        ),
        ("auth/token/roles/toolcrib-call", {"orphan": True}, "token role toolcrib-call"),
        ("auth/token/roles/toolcrib-call", {"allowed_policies": "root"}, "token role toolcrib-call"),
        ("sys/policies/acl/toolcrib-broker", {"policy": 'path "*" {}'}, "policy toolcrib-broker"),
        ("database/roles/b-db", {"db_name": TARGET, "revocation_statements": []}, "database role b-db"),
        (
            "toolcrib-ssh/roles/b-ssh",
            {"key_type": "ca", "allow_user_certificates": True, "allowed_users": "*"},
            "ssh role b-ssh",
        ),
    ],
)
def test_changes_back_what_somebody_changed(bare, path: str, changes: Mapping[str, Any], subject) -> None:
    bare.write(path, **changes)
    made = apply(bare)
    assert subjects(made) == [subject]
    assert plan(bare).changes == ()


def test_leaves_alone_what_is_not_its_own(bare) -> None:
    bare.write("sys/policies/acl/somebody", policy='path "x" { capabilities = ["read"] }')
    bare.write("auth/approle/role/toolcrib-broker", secret_id_ttl=7_776_000)
    apply(bare)
    assert "somebody" in bare.read("sys/policies/acl?list=true")["data"]["keys"]
    assert bare.read("auth/approle/role/toolcrib-broker")["data"]["secret_id_ttl"] == 7_776_000


@pytest.mark.parametrize(
    ("path", "broken", "theirs"),
    [
        ("toolcrib-ssh/roles/b-ssh", {"allowed_extensions": "permit-pty"}, {"key_id_format": "call-{{x}}"}),
        ("toolcrib-pki/roles/b-pki", {"server_flag": True}, {"organization": ["Example"]}),
        ("auth/token/roles/toolcrib-call", {"orphan": True}, {"token_bound_cidrs": ["127.0.0.1"]}),
        ("database/roles/b-db", {"max_ttl": 86_400}, {"credential_config": {"password_policy": "long"}}),
    ],
)
def test_keeps_what_somebody_added_to_what_it_changes_back(bare, path: str, broken, theirs) -> None:
    before = bare.read(path)["data"]
    bare.write(path, **{**before, **broken, **theirs})
    apply(bare)
    after = bare.read(path)["data"]
    assert {name: after[name] for name in (*broken, *theirs)} == {**{n: before[n] for n in broken}, **theirs}
    bare.write(path, **before)


def test_keeps_the_addresses_to_which_somebody_bound_a_certificate(bare) -> None:
    path = "toolcrib-ssh/roles/b-ssh"
    before = bare.read(path)["data"]
    narrowed = {"force-command": "git-shell", "source-address": "10.0.0.0/8"}
    bare.write(path, **{**before, "default_critical_options": narrowed})
    assert plan(bare).changes == ()
    bare.write(path, **{**before, "default_critical_options": narrowed | {"force-command": "sh"}})
    apply(bare)
    assert bare.read(path)["data"]["default_critical_options"] == narrowed
    bare.write(path, **before)


def test_keeps_the_brokers_rights_for_a_bundle_that_was_bootstrapped_before(bare) -> None:
    made = plan(bare, Wish(tenants=("acme",), login=LOGIN))
    assert "policy toolcrib-broker" not in subjects(made)


def test_adds_to_the_audit_tuning_of_others(bare) -> None:
    path = "sys/auth/token/tune"
    bare.write(path, audit_non_hmac_request_keys=["display_name"])
    assert subjects(apply(bare)) == ["audit tuning of auth/token"]
    kept = bare.read(path)["data"]["audit_non_hmac_request_keys"]
    assert set(kept) == {"display_name", "accessor"}


async def test_is_no_success_when_vault_holds_something_else_afterwards(bare) -> None:
    class Forgetful(HvacTransport):
        async def ask(self, method, path, token, body=None, *, repeatable=True):
            return {} if method == "post" else await super().ask(method, path, token, body)

    transport = Forgetful(Peer(bare.address))
    api, wish = VaultApi(transport), replace(WISH, tenants=("acme", "lost"))
    made = await make_plan(api, bare.root_token, wish)
    with pytest.raises(NotTaken, match="data key of tenant lost.*nothing is there"):
        await apply_plan(api, bare.root_token, made)
    await transport.close()


# --- what it cannot do ---
def test_never_makes_a_key_anew(bare) -> None:
    changed = define_role("b-sign", {"engine": "transit", "type": "rsa-2048"})
    made = plan(bare, replace(WISH, definitions=(changed,)))
    assert problems(made)["transit key b-sign"] == "type is 'ed25519' and should be 'rsa-2048'"
    assert made.changes == ()


def test_takes_no_mount_for_another_engine(bare) -> None:
    made = plan(bare, replace(WISH, mounts={**WISH.mounts, "kv": "pki"}))
    said = [problem.problem for problem in made.problems if problem.subject == "engine kv at pki/"]
    assert "type is 'pki' and should be 'kv'" in said


def test_writes_nothing_below_a_mount_of_another_engine(bare) -> None:
    """A role's definition would become a secret there, perhaps in the place of somebody's."""
    made = plan(bare, replace(WISH, mounts={**WISH.mounts, "ssh": "toolcrib-kv"}))
    assert "type is 'kv' and should be 'ssh'" in [problem.problem for problem in made.problems]
    assert [one.item.path for one in made.changes if one.item.path.startswith("toolcrib-kv/")] == []


@pytest.mark.parametrize(
    ("role", "subject", "words"),
    [
        (
            define_role("b-x", {"target": "nowhere", "grants": []}),
            "database connection nowhere",
            "does not know",
        ),
        (define_role("b-secret", {"engine": "kv"}), "secret b-secret", "does not have it"),
        (
            define_role("b-ldap", {"engine": "ldap", "parent": "ou=tools,dc=example"}),
            "engine ldap",
            "does not have it",
        ),
    ],
)
def test_names_what_the_operator_has_to_do(bare, role: RoleDefinition, subject: str, words: str) -> None:
    made = plan(bare, replace(WISH, definitions=(role,)))
    assert words in problems(made)[subject]
    assert all(problem.remedy for problem in made.problems)


def test_names_a_role_that_the_connection_does_not_allow(bare) -> None:
    bare.write(f"database/config/{TARGET}", allowed_roles=["other-*"], verify_connection=False)
    said = problems(plan(bare))[f"database connection {TARGET}"]
    bare.write(f"database/config/{TARGET}", allowed_roles=["*"], verify_connection=False)
    assert said == "it does not allow the roles b-db"


def test_names_a_role_that_a_tool_needs_and_nobody_defines(bare) -> None:
    made = plan(bare, replace(WISH, roles=frozenset({("database", "b-nobody")})))
    assert "no roles file defines it" in problems(made)["database role b-nobody"]


def test_accepts_a_role_that_somebody_wrote_as_it_has_to_be(bare) -> None:
    needed = replace(WISH, definitions=(), roles=frozenset({("database", "b-db"), ("ssh", "b-ssh")}))
    assert plan(bare, needed).problems == ()


@pytest.mark.parametrize("method", ["jwt", "kubernetes", "cert"])
def test_says_what_to_set_for_another_login(bare, method: str) -> None:
    made = plan(bare, replace(WISH, login=LoginRole(method=method, mount=method)))
    [found] = [one for one in made.problems if one.subject.startswith("login role")]
    assert f"vault write auth/{method}/" in found.remedy
    assert "token_no_default_policy=true token_period=30" in found.remedy
    assert made.changes == ()
