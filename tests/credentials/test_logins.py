"""Each way to log in opens a session that is kept alive, reads its files anew, and refuses what is none."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from credentials.bootstrap.blueprint import LoginRole
from credentials.dev_configuration import Tls
from credentials.dev_vault import DevVault
from credentials.errors import Cause, CredentialsUnavailable
from credentials.logins import AppRole, ClientCertificate, Jwt, Login, LoginInvalid, StaticToken, Token
from credentials.secret import Secret
from credentials.supervisor.keeper import Supervisor
from credentials.vault import SessionTuning, VaultSession
from tests.credentials.certificates import Authority
from tests.credentials.cluster import Cluster, run_cluster

PERIOD_SECONDS = 3
METHODS = ("approle", "jwt", "kubernetes", "cert", "token")


class Signer:
    """An identity provider: it signs tokens that say who somebody is."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = self._key.public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.public_key = public.public_bytes(serialization.Encoding.PEM, form).decode()

    def sign(self, claims: Mapping[str, object]) -> str:
        parts = [_encode(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
        signature = self._key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
        return ".".join((*parts, _encode(signature)))


@dataclass(frozen=True, slots=True)
class House:
    """A Vault with every method, and what each needs, in files."""

    vault: DevVault
    authority: Authority
    signer: Signer
    cluster: Cluster
    folder: Path

    def write(self, name: str, text: str) -> Path:
        (self.folder / name).write_text(text + "\n")
        return self.folder / name

    def identity_token(self) -> str:
        return self.signer.sign({"sub": "broker", "aud": "vault", "exp": int(time.time()) + 60})

    def account_token(self) -> str:
        account = {"kubernetes.io/serviceaccount/namespace": "tools", "jti": str(time.time_ns())}
        account |= {"kubernetes.io/serviceaccount/service-account.name": "broker"}
        account |= {"kubernetes.io/serviceaccount/service-account.uid": "1"}
        token = self.signer.sign(account)
        self.cluster.accounts[token] = ("tools", "broker")
        return token

    def login(self, method: str) -> Login:
        vault = self.vault
        if method == "approle":
            role_id = self.write("role_id", vault.role_id.reveal())
            return AppRole(role_id, self.write("secret_id", vault.secret_id.reveal()))
        if method == "jwt":
            return Jwt("broker", self.write("jwt", self.identity_token()))
        if method == "kubernetes":
            return Jwt("broker", self.write("account", self.account_token()), "kubernetes")
        if method == "cert":
            return ClientCertificate(*self.authority.issue("broker"), "broker")
        return StaticToken(self.write("token", vault.root_token.reveal()), PERIOD_SECONDS)

    def session(self, login: Login, **tuning) -> VaultSession:
        shown = (login.certificate, login.private_key) if isinstance(login, ClientCertificate) else None
        made = SessionTuning(
            ca_file=self.authority.certificate,
            certificate=shown,
            keeper=lambda api: Supervisor(api, 0.5),
            **tuning,
        )
        return VaultSession(self.vault.address, login, made)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, dev_vault: DevVault) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    authority, signer = Authority(folder), Signer()
    tls = Tls(*authority.issue("server"), authority.certificate)
    reviewer = signer.sign({"sub": "reviewer"})
    with (
        DevVault(folder, PERIOD_SECONDS, tls=tls) as vault,
        run_cluster(tls.certificate, tls.private_key, reviewer) as cluster,
    ):
        made = House(vault, authority, signer, cluster, folder)
        _install_methods(made)
        yield made
        assert vault.count_sessions() == 0, "a session is left over"


def _install_methods(house: House) -> None:
    vault, ca = house.vault, house.authority.certificate.read_text()
    for method in ("jwt", "kubernetes", "cert"):
        vault.write(f"sys/auth/{method}", type=method)
    vault.write("auth/jwt/config", jwt_validation_pubkeys=[house.signer.public_key])
    vault.write(
        "auth/kubernetes/config",
        kubernetes_host=house.cluster.address,
        kubernetes_ca_cert=ca,
        token_reviewer_jwt=house.cluster.reviewer,
        disable_local_ca_jwt=True,
    )
    who: dict[str, dict[str, object]] = {
        "jwt": {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"]},
        "kubernetes": {"bound_service_account_names": "broker", "bound_service_account_namespaces": "tools"},
        "cert": {"certificate": ca, "allowed_common_names": ["broker", "broker-2"]},
    }
    for method, bound in who.items():
        role = LoginRole(method, method, "broker", PERIOD_SECONDS)
        vault.write(role.path, **bound, **role.token_fields())


@pytest.mark.parametrize("method", METHODS)
async def test_opens_a_session_and_ends_it(house: House, method: str) -> None:
    session = house.session(house.login(method))
    await session.open()
    [token] = [token for token in house.vault.list_tokens() if token["policies"] == ["toolcrib-broker"]]
    assert (token["period"], token["type"]) == (PERIOD_SECONDS, "service")
    await session.close()
    assert house.vault.count_sessions() == 0


@pytest.mark.parametrize("method", ["cert", "token"])
async def test_is_kept_alive_by_its_supervisor(house: House, method: str) -> None:
    session = house.session(house.login(method))
    await session.open()
    await asyncio.sleep(PERIOD_SECONDS + 1)
    assert (house.vault.count_sessions(), session.lost) == (1, False)
    await session.close()


async def test_leaves_the_static_token_alone(house: House) -> None:
    session = house.session(house.login("token"))
    await session.open()
    await session.close()
    assert house.vault.read("auth/token/lookup-self")["data"]["policies"] == ["root"]


async def test_takes_up_a_rotated_secret_id(house: House) -> None:
    session = house.session(house.login("approle"))
    await session.open()
    role = "auth/approle/role/toolcrib-broker"
    made = house.vault.write(f"{role}/secret-id")["data"]
    house.write("secret_id", made["secret_id"])
    house.vault.write(f"{role}/secret-id/destroy", secret_id=house.vault.secret_id.reveal())
    await _lose_and_find_again(house, session)
    house.vault.secret_id = Secret(made["secret_id"])
    await session.close()


@pytest.mark.parametrize("method", ["jwt", "kubernetes"])
async def test_takes_up_a_new_token(house: House, method: str) -> None:
    login = house.login(method)
    session = house.session(login)
    await session.open()
    assert isinstance(login, Jwt) and isinstance(login.token, Path)
    fresh = house.identity_token() if method == "jwt" else house.account_token()
    house.cluster.accounts.pop(login.token.read_text().strip(), None)
    login.token.write_text(fresh)
    await _lose_and_find_again(house, session)
    await session.close()


async def test_takes_up_a_new_certificate_and_has_it_kept_with_it(house: House) -> None:
    login = house.login("cert")
    session = house.session(login)
    await session.open()
    assert isinstance(login, ClientCertificate)
    for new, old in zip(
        house.authority.issue("broker-2"), (login.certificate, login.private_key), strict=True
    ):
        new.replace(old)
    await _lose_and_find_again(house, session)
    await asyncio.sleep(PERIOD_SECONDS + 1)
    assert (house.vault.count_sessions(), session.lost) == (1, False)
    await session.close()


async def test_refuses_a_certificate_of_another_ca(house: House, tmp_path: Path) -> None:
    login = ClientCertificate(*Authority(tmp_path, "other").issue("broker"), "broker")
    await _expect_refusal(house, login, "invalid certificate")


async def test_refuses_an_account_that_the_cluster_does_not_know(house: House) -> None:
    login = house.login("kubernetes")
    house.cluster.accounts.clear()
    await _expect_refusal(house, login, "permission denied")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"token_period": 0, "token_ttl": "60s"}, "it has no period"),
        ({"token_type": "batch", "token_period": 0, "token_ttl": "60s"}, "it cannot be renewed"),
        ({"token_num_uses": 100}, "a few times only"),
    ],
)
async def test_refuses_a_token_that_is_no_session(
    house: House, changes: dict[str, object], said: str
) -> None:
    role = LoginRole("jwt", "jwt", "broker", PERIOD_SECONDS)
    house.vault.write(role.path, role_type="jwt", user_claim="sub", **changes)
    await _expect_refusal(house, house.login("jwt"), said)
    house.vault.write(role.path, role_type="jwt", user_claim="sub", token_ttl=0, **role.token_fields())


async def test_refuses_roots_token_as_a_session(house: House) -> None:
    class Root(StaticToken):
        async def log_in(self, api) -> Token:
            made = await api.ask("post", "auth/token/create", house.vault.root_token, {"ttl": "60s"})
            return Token(Secret(made["auth"]["client_token"]), 60)

    await _expect_refusal(house, Root(house.vault.root_token), "it is root's")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"token_no_default_policy": False}, "more policies than toolcrib-broker: default"),
        ({"token_explicit_max_ttl": "600s"}, "its token_explicit_max_ttl ends it after 600 s"),
        ({"token_period": "900s"}, "its period is 900 s"),
    ],
)
async def test_warns_of_a_session_that_could_be_better(house: House, caplog, changes, said) -> None:
    role = LoginRole("jwt", "jwt", "broker", PERIOD_SECONDS)
    fields = {"role_type": "jwt", "user_claim": "sub", **role.token_fields()}
    house.vault.write(role.path, **(fields | changes))
    caplog.set_level(logging.WARNING, "credentials")  # the command line silences it, in this process too
    session = house.session(house.login("jwt"))
    await session.open()
    await session.close()
    house.vault.write(role.path, **fields)
    assert said in caplog.text


@pytest.mark.parametrize("method", ["approle", "jwt", "cert", "token"])
def test_names_a_file_that_cannot_be_read(house: House, tmp_path: Path, method: str) -> None:
    here, none = house.write("there", "something"), tmp_path / "not-there"
    logins: dict[str, Login] = {
        "approle": AppRole(here, none),
        "jwt": Jwt("broker", none),
        "cert": ClientCertificate(here, none, "broker"),
        "token": StaticToken(none),
    }
    with pytest.raises(LoginInvalid, match="not-there: cannot be read"):
        logins[method].examine()


def test_names_a_file_that_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(LoginInvalid, match="empty: is empty"):
        Jwt("broker", tmp_path / "empty").examine()


async def test_does_not_open_where_the_file_is_gone(house: House, tmp_path: Path) -> None:
    await _expect_refusal(house, Jwt("broker", tmp_path / "gone"), "gone: cannot be read")


async def _expect_refusal(house: House, login: Login, said: str) -> None:
    session = house.session(login)
    with pytest.raises(CredentialsUnavailable, match=said) as caught:
        await session.open()
    assert caught.value.cause in (Cause.INVALID, Cause.DENIED)
    assert house.vault.count_sessions() == 0
    await session.close()


async def _lose_and_find_again(house: House, session: VaultSession) -> None:
    opened = session._session.token
    [token] = [token for token in house.vault.list_tokens() if "toolcrib-broker" in token["policies"]]
    house.vault.write("auth/token/revoke-accessor", accessor=token["accessor"])
    await _wait_for(lambda: session.is_open and session._session.token != opened)
    assert house.vault.count_sessions() == 1


async def _wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


def _encode(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()
