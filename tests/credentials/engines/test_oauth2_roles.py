"""What a role of the engine oauth2 may say."""

from __future__ import annotations

from typing import Any

import pytest

from credentials.bootstrap.roles import RolesInvalid, define_role
from credentials.engines import DEFAULT_MOUNTS, ENGINES
from credentials.engines.oauth2.role import RoleInvalid, read_role

GOOD: dict[str, Any] = {
    "grant": "client_credentials",
    "token_url": "https://login.example.org/oauth2/token",
    "client_id": "toolcrib",
}
EXCHANGE = GOOD | {"grant": "token_exchange", "issuer": "https://toolcrib.example.org"}


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/t", "http://localhost/t", "http://[::1]:9/t", "https://a:1/?x=1"]
)
def test_takes_https_and_loopback(url) -> None:
    assert read_role(GOOD | {"token_url": url}).token_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.org/token",
        "http://127.0.0.1.example.org/token",
        "http://127.1/token",
        "https://user@login.example.org/token",
        "https://login.example.org/token#x",
        "https://login.example.org\\@evil/token",
        "https://login.example.org:99999/token",
        "https:///token",
        "ftp://login.example.org/token",
        "//login.example.org/token",
        "https://login.example.org/to ken",
        "https://lögin.example.org/token",
        "http://[::1]login.example.org/token",
        "https://login.example.org:/token",
        "https://login..example.org/token",
        "",
    ],
)
def test_refuses_a_place_where_a_secret_must_not_be_sent(url) -> None:
    with pytest.raises(RoleInvalid, match="token_url"):
        read_role(GOOD | {"token_url": url})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"revocation_url": "https://other.example.org/revoke"}, "of the origin of token_url"),
        ({"revocation_url": "https://login.example.org:444/revoke"}, "of the origin of token_url"),
        ({"issuer": "https://toolcrib.example.org"}, "issuer: is required for the grant"),
        ({"grant": "token_exchange"}, "issuer: is required for the grant"),
        ({"grant": "password"}, "grant: is not valid"),
        ({"audiance": "crm"}, "audiance: is not known"),
        ({"client_id": "two\nlines"}, "client_id: is not valid"),
        ({"scope": 'a "b"'}, "scope: is not valid"),
        ({"scope": "a  b"}, "scope: is not valid"),
        ({"assumed_seconds": "7200"}, "assumed_seconds: is not valid"),
        ({"client_secret": "hunter2hunter2"}, "client_secret: is not known"),
    ],
)
def test_refuses_what_it_does_not_understand(change, words) -> None:
    with pytest.raises(RoleInvalid, match=words) as caught:
        read_role(GOOD | change)
    assert "hunter2" not in str(caught.value)


def test_keeps_assertions_about_subjects_apart_from_the_clients_own() -> None:
    same = EXCHANGE | {"client_auth": "private_key_jwt", "client_id": EXCHANGE["issuer"]}
    with pytest.raises(RoleInvalid, match="must not be client_id"):
        read_role(same)


@pytest.mark.parametrize("metadata", [None, {}, [], "x"])
def test_refuses_a_secret_without_a_role(metadata) -> None:
    with pytest.raises(RoleInvalid, match="toolcrib vault bootstrap"):
        read_role(metadata)


def test_says_in_vault_what_the_file_says() -> None:
    [said, key] = define_role("crm", {"engine": "oauth2", "scope": "read", **EXCHANGE}).list_items(
        DEFAULT_MOUNTS
    )
    assert said.path == "toolcrib-kv/metadata/oauth2/crm"
    assert read_role(said.values["custom_metadata"]).scope == "read"
    assert (key.path, key.values["type"], key.is_fixed) == (
        "toolcrib-sign/keys/oauth2_crm",
        "ecdsa-p256",
        True,
    )


def test_makes_a_key_only_where_something_is_signed() -> None:
    assert len(define_role("crm", {"engine": "oauth2", **GOOD}).list_items(DEFAULT_MOUNTS)) == 1
    by_key = GOOD | {"client_auth": "private_key_jwt"}
    assert len(define_role("crm", {"engine": "oauth2", **by_key}).list_items(DEFAULT_MOUNTS)) == 2


@pytest.mark.parametrize(
    "change", [{"client_secret": "x" * 20}, {"key": "aes256-gcm96"}, {"key": "ecdsa-p521"}]
)
def test_refuses_a_file_with_a_secret_or_a_key_that_does_not_sign(change) -> None:
    with pytest.raises(RolesInvalid):
        define_role("crm", {"engine": "oauth2", **GOOD, **change})


def test_has_places_that_no_other_engines_role_can_name() -> None:
    policy = ENGINES["oauth2"].child_policy(DEFAULT_MOUNTS, "crm")
    assert '"toolcrib-kv/data/oauth2/crm"' in policy and '"toolcrib-sign/sign/oauth2_crm"' in policy
    for name in ("oauth2/crm", "oauth2_crm"):
        with pytest.raises(RolesInvalid, match="is no role name"):
            define_role(name, {"engine": "kv"})
