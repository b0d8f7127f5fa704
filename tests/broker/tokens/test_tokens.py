"""Who sends a token is what its issuer signed, mapped to a name of our own, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from broker.errors import Refused
from broker.model import Brake, BrakeKind, Role
from broker.request import Peer
from broker.stages.authenticate import Authenticator
from tests.broker.test_authenticate import make_peer as make_certificate_peer
from tests.broker.tokens.conftest import ISSUER, NOW, Desk, make_identity, make_peer
from tests.parts.issuer import (
    CLIENT_ID,
    OBJECT_ID,
    OKTA_CLIENT,
    TENANT_ID,
    entra_claims,
    make_key,
    okta_claims,
    publish,
)


def refuse(desk: Desk, *tokens: str) -> Refused:
    with pytest.raises(Refused) as refusal:
        desk.authenticate(make_peer(*tokens))
    return refusal.value


def test_makes_the_agent_of_the_claim_behind_the_prefix(desk):
    caller = desk.ask(desk.token(sub="desk-1"))
    assert (caller.tenant, caller.role, caller.name, caller.subject) == ("shop", Role.AGENT, "id-desk-1", "")
    assert (caller.identity, caller.certificate) == (f"oidc:{ISSUER}#desk-1", "")


def test_makes_the_actor_the_agent_and_the_owner_the_user(desk):
    caller = desk.ask(desk.token(sub="maria@x.org", act={"sub": "desk-1"}))
    assert (caller.name, caller.subject) == ("id-desk-1", "maria@x.org")


async def test_gives_a_value_the_name_that_the_operator_wrote_down(tmp_path):
    desk = Desk(tmp_path, agents={"0oaMIXED": "refund-desk"}, agent_prefix="")
    async with desk.tokens:
        assert desk.ask(desk.token(sub="0oaMIXED")).name == "refund-desk"
        assert "not one of the agents" in refuse(desk, desk.token(sub="0oamixed")).message


@pytest.mark.parametrize("sub", ["Desk", "desk 1", "dësk", "desk/../x", "d" * 80, "d\u0435sk", "desk\u200b"])
def test_refuses_a_name_that_would_have_to_be_changed(desk, sub):
    assert refuse(desk, desk.token(sub=sub)).reason_name == "TOKEN_INVALID"
    assert desk.ask(desk.token(sub="desk")).name == "id-desk"


async def test_reads_the_tenant_of_a_claim_by_the_operators_list(tmp_path):
    desk = Desk(tmp_path, tenant=None, tenant_claim="org", tenants={"Acme Inc": "shop"})
    async with desk.tokens:
        assert desk.ask(desk.token(org="Acme Inc")).tenant == "shop"
        for org in ("acme inc", "shop", None, ["Acme Inc"], 1):
            assert refuse(desk, desk.token(org=org)).reason_name == "TOKEN_INVALID"


async def test_takes_the_type_of_token_that_is_asked_for_only(tmp_path):
    desk = Desk(tmp_path, token_type="at+jwt")
    async with desk.tokens:
        for typ in ("at+jwt", "application/AT+JWT"):
            desk.ask(desk.mint.sign(desk.claims(), header={"typ": typ}))
        for typ in ("JWT", "id+jwt", ""):
            assert "typ" in refuse(desk, desk.mint.sign(desk.claims(), header={"typ": typ})).message


async def test_gives_the_user_the_prefix_of_the_issuer(tmp_path):
    desk = Desk(tmp_path, subject_prefix="id.", subject_claim="user")
    async with desk.tokens:
        assert desk.ask(desk.token(user="maria")).subject == "id.maria"


def test_forgets_a_token_when_it_ends(desk):
    token = desk.token(exp=int(NOW.timestamp()) + 60)
    desk.ask(token)
    desk.now += timedelta(seconds=60 + 29)
    desk.ask(token)
    desk.now += timedelta(seconds=1)
    assert "expired" in refuse(desk, token).message


def test_refuses_a_blocked_agent_although_its_token_was_checked_before(desk):
    token = desk.token()
    desk.ask(token)
    desk.brakes.put(Brake("b1", BrakeKind.AGENT, "shop", "id-desk-1", "stolen", "", NOW))
    assert refuse(desk, token).reason_name == "CALLER_BLOCKED"


def test_uses_a_new_key_at_once_and_an_old_one_no_more(desk):
    old = desk.token()
    desk.ask(old)
    desk.mint.rotate("k1", "k2")
    desk.publish()
    desk.ask(desk.mint.sign(desk.claims(), key="k2"))
    assert "does not have" in refuse(desk, old).message


def test_keeps_its_keys_while_the_file_is_broken_and_then_takes_no_token(desk):
    desk.publish("{")
    token = desk.token()
    desk.ticks += 3_599
    desk.ask(token)
    desk.ticks += 2
    refusal = refuse(desk, token)
    assert (refusal.reason_name, refusal.retry_after_seconds) == ("TOKEN_KEYS_UNAVAILABLE", 5.0)


def test_refuses_two_tokens_and_other_schemes(desk):
    token = desk.token()
    assert "must come once" in refuse(desk, token, token).message
    for value in (f"Basic {token}", token, "Bearer", "", f"Bearer  {token}", f"Bearer {token} x"):
        with pytest.raises(Refused):
            desk.authenticate(Peer(b"", (value,)))
    assert desk.authenticate(Peer(b"", (f"bearer {token}",))).name == "id-desk-1"


def test_refuses_a_token_beside_a_certificate(desk):
    peer = make_certificate_peer("spiffe://example.org/tenant/shop/agent/a")
    assert desk.authenticate(peer).name == "a"
    both = Peer(peer.unverified_pem, make_peer(desk.token()).unverified_authorization)
    with pytest.raises(Refused, match="one identity"):
        desk.authenticate(both)


def test_refuses_a_certificate_with_a_name_that_is_for_tokens(desk):
    with pytest.raises(Refused, match="for an issuer of tokens"):
        desk.authenticate(make_certificate_peer("spiffe://example.org/tenant/shop/agent/id-desk-1"))
    desk.authenticate(make_certificate_peer("spiffe://example.org/tenant/shop/reviewer/id-desk-1"))


def test_takes_no_token_where_there_is_no_issuer(desk):
    closed = Authenticator("example.org", ["shop"], lambda: NOW, desk.brakes)
    with pytest.raises(Refused, match="no token"):
        closed(make_peer(desk.token()))


def test_shows_no_token_in_what_is_logged_of_a_peer(desk):
    token = desk.token()
    assert token not in repr(make_peer(token))
    assert token not in str(refuse(desk, token[:-6] + "AAAAAA"))


async def test_reads_an_okta_token_of_a_user(tmp_path):
    issuer = "https://acme.okta.com/oauth2/default"
    desk = Desk(
        tmp_path, issuer=issuer, provider="okta", audiences=["api://toolcrib"], agent_prefix="",
        agents={OKTA_CLIENT: "okta-desk"},
    )  # fmt: skip
    desk.mint.algorithm, desk.mint.keys = "RS256", {"k1": make_key("RS256")}
    desk.publish()
    async with desk.tokens:
        caller = desk.ask(desk.mint.sign(okta_claims(issuer, NOW.timestamp())))
        own = desk.ask(desk.mint.sign(okta_claims(issuer, NOW.timestamp(), sub=OKTA_CLIENT)))
    assert (caller.name, caller.subject) == ("okta-desk", "maria@example.org")
    assert (own.name, own.subject) == ("okta-desk", "")


async def test_reads_an_entra_token_of_an_application_and_of_a_user(tmp_path):
    issuer = f"https://login.microsoftonline.com/{TENANT_ID}/v2.0"
    audience = entra_claims(issuer, 0)["aud"]
    desk = Desk(tmp_path, issuer=issuer, provider="entra", audiences=[audience], agent_prefix="entra-")
    desk.mint.algorithm, desk.mint.keys = "RS256", {"k1": make_key("RS256")}
    desk.publish()
    async with desk.tokens:
        caller = desk.ask(desk.mint.sign(entra_claims(issuer, NOW.timestamp()), header={"x5t": "k1"}))
        user = desk.ask(desk.mint.sign(entra_claims(issuer, NOW.timestamp(), scp="Tools.Call")))
    assert (caller.name, caller.subject) == (f"entra-{CLIENT_ID}", "")
    assert user.subject == OBJECT_ID


async def test_does_not_use_a_key_that_entra_publishes_for_another_issuer(tmp_path):
    desk = Desk(tmp_path)
    foreign = make_key()
    desk.mint.extra = [
        publish(foreign, kid="k2", alg="ES256", issuer="https://login.microsoftonline.com/other/v2.0"),
        publish(
            make_key(), kid="k3", alg="ES256", issuer="https://login.microsoftonline.com/{tenantid}/v2.0"
        ),
    ]
    desk.publish()
    async with desk.tokens:
        desk.mint.keys["k2"] = foreign
        desk.ask(desk.token())
        assert "does not have" in refuse(desk, desk.mint.sign(desk.claims(), key="k2")).message


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"issuer": "http://id.example.org"}, "https://"),
    ({"issuer": "https://id.example.org#x"}, "fragment"),
    ({"issuer": "https://me@id.example.org"}, "without user"),
    ({"audiences": []}, "audiences"),
    ({"audiences": [""]}, "empty"),
    ({"algorithms": ["HS256"]}, "algorithms"),
    ({"algorithms": ["none"]}, "algorithms"),
    ({"algorithms": []}, "algorithms"),
    ({"discovery": None}, "where its keys are"),
    ({"jwks_url": "https://x.org/keys"}, "where its keys are"),
    ({"discovery": None, "jwks_url": "http://x.org/keys"}, "https://"),
    ({"discovery": None, "jwks_url": "http://127.0.0.1.x.org/keys"}, "https://"),
    ({"tenant": None}, "whose agents"),
    ({"tenant_claim": "org"}, "whose agents"),
    ({"tenant": None, "tenant_claim": "org"}, "whose agents"),
    ({"agent_prefix": ""}, "agent_prefix"),
    ({"agent_prefix": "id"}, "agent_prefix"),
    ({"agent_prefix": "toolcrib-"}, "own"),
    ({"agents": {"a": "x", "b": "x"}}, "one name"),
    ({"agents": {"a": "id-x"}}, "another value"),
    ({"agents": {"a": "Not a name"}}, "agents"),
    ({"role": "operator"}, "role"),
    ({"provider": "okta"}, "Okta"),
    ({"provider": "entra", "issuer": "https://login.microsoftonline.com/common/v2.0"}, "Entra"),
    ({"leeway_seconds": 3600}, "leeway_seconds"),
]


@pytest.mark.parametrize(("change", "told"), WRONG)
def test_refuses_settings_that_would_let_others_in(change, told):
    make_identity(discovery=True)
    with pytest.raises(ValidationError, match=told):
        make_identity(**{"discovery": True, **change})


@pytest.mark.parametrize(
    "other",
    [
        {"issuer": ISSUER},
        {"agent_prefix": "id-"},
        {"agent_prefix": "id-two-"},
        {"agent_prefix": "", "agents": {"x": "id-desk"}},
    ],
)
def test_refuses_two_issuers_that_could_name_one_agent(other):
    one = make_identity(discovery=True).issuers[0].model_dump(exclude_defaults=True)
    two = {**one, "issuer": "https://other.example.org", "agent_prefix": "two-"}
    make_identity_of(one, two)
    make_identity_of(one, {**two, "agent_prefix": "id-", "tenant": "rival"})
    with pytest.raises(ValidationError):
        make_identity_of(one, {**two, **other})


def make_identity_of(*issuers: dict[str, Any]) -> None:
    make_identity(discovery=True).model_validate({"listen": "x:1", "issuers": list(issuers)})


def test_names_the_nearest_key_of_an_issuer(tmp_path: Path):
    from broker.settings import SettingsInvalid, read_settings
    from tests.broker.test_settings import GOOD

    text = '[identity]\nlisten = "x:0"\n[[identity.issuers]]\nissuer = "https://x.org"\naudience = ["a"]\n'
    (tmp_path / "toolcrib.toml").write_text(GOOD.replace("[state]", text + "[state]"))
    with pytest.raises(SettingsInvalid, match='did you mean "audiences"'):
        read_settings(tmp_path / "toolcrib.toml")
