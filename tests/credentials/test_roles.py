"""Roles files say what a role may do at its target; what else they say is refused, with the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from credentials.bootstrap.roles import KINDS, RolesInvalid, read_roles
from credentials.engines import DEFAULT_MOUNTS, ENGINES
from credentials.statements import REVOCATION

GOOD = """
[roles.a-db]
target = "orders-db"
grants = ['GRANT SELECT ON notes TO "{{name}}"']
[roles.a-static]
engine = "database_static"
target = "orders-db"
username = "reports"
[roles.a-kv]
engine = "kv"
[roles.a-pki]
engine = "pki"
name = "robot.example.org"
[roles.a-ssh]
engine = "ssh"
principal = "git"
force_command = "git-shell -c receive"
[roles.a-sign]
engine = "transit"
type = "ed25519"
[roles.a-ldap]
engine = "ldap"
parent = "ou=tools,dc=example,dc=org"
[roles.a-person]
engine = "ldap_static"
dn = "cn=robot,ou=people,dc=example,dc=org"
username = "robot"
[roles.a-crm]
engine = "oauth2"
grant = "token_exchange"
token_url = "https://login.example.org/token"
client_id = "toolcrib"
issuer = "https://toolcrib.example.org"
"""


def write(tmp_path: Path, text: str, name: str = "roles.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_reads_a_role_of_each_engine(tmp_path: Path) -> None:
    roles = read_roles([write(tmp_path, GOOD)])
    assert [role.engine for role in roles] == list(KINDS)
    assert set(KINDS) == set(ENGINES)


def test_adds_our_statements_which_a_file_cannot_name(tmp_path: Path) -> None:
    [role, *_] = read_roles([write(tmp_path, GOOD)])
    [item] = role.list_items(DEFAULT_MOUNTS)
    assert item.values["revocation_statements"] == [REVOCATION]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "defines no role"),
        ("roles = 3", "defines no role"),
        ("[roles]\na = 3", "roles.a: must be a table"),
        ("[role.a]\ntarget = 'x'", "role: is not known here"),
        ("[roles.a", "is no TOML"),
        ("[roles.a]\ntarget = 'x'", "roles.a: grants: is required"),
        ("[roles.a]\nengine = 'mysql'", "roles.a.engine: must be one of database"),
        ("[roles.a]\nengine = ['kv']", "roles.a.engine: must be one of database"),
        ("[roles.'../x']\nengine = 'kv'", "is no role name"),
        ('[roles."a\\n"]\nengine = "kv"', "is no role name"),
        (f"[roles.a]\nengine = 'pki'\nname = '{'a' * 65}'", "roles.a: name"),
        ("[roles.a]\ntarget = 'x'\ngrant = []\ngrants = []", "did you mean grants"),
        ("[roles.a]\ntarget = '../config/y'\ngrants = []", "roles.a: target"),
        ("[roles.a]\ntarget = 'x'\ngrants = ['DROP TABLE t']", "is not one GRANT"),
        ("[roles.a]\ntarget = 'x'\ngrants = []\nttl_seconds = 86400", "less than or equal to 3600"),
        ("[roles.a]\nengine = 'kv'\nvalue = 'hunter2hunter2'", "value: is no field"),
        ("[roles.a]\nengine = 'ssh'\nprincipal = 'a,b'\nforce_command = 'x'", "roles.a: principal"),
        ("[roles.a]\nengine = 'ssh'\nprincipal = '*'\nforce_command = 'x'", "roles.a: principal"),
        ("[roles.a]\nengine = 'ssh'\nprincipal = 'a'\nforce_command = ''", "roles.a: force_command"),
        ("[roles.a]\nengine = 'pki'\nname = '*.example.org'", "roles.a: name"),
        ("[roles.a]\nengine = 'transit'\ntype = 'aes256-gcm96'", "roles.a: type"),
        ("[roles.a]\nengine = 'ldap'\nparent = 'cn={{.Username}}'", "roles.a: parent"),
    ],
)
def test_refuses_what_it_does_not_know_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(RolesInvalid, match=r"roles\.toml") as caught:
        read_roles([write(tmp_path, text)])
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RolesInvalid, match="cannot be read"):
        read_roles([tmp_path / "none.toml"])


def test_refuses_two_files_that_define_one_role_differently(tmp_path: Path) -> None:
    files = [
        write(tmp_path, f"[roles.a]\ntarget = '{target}'\ngrants = []", name)
        for target, name in (("x", "one.toml"), ("y", "two.toml"))
    ]
    with pytest.raises(RolesInvalid, match=r"two\.toml: roles\.a: .*one\.toml defines it differently"):
        read_roles(files)
