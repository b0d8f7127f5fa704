"""A tenant's data key is made and unwrapped by Vault, and by nobody once the tenant's key there is gone."""

from __future__ import annotations

import base64
import uuid

import pytest

from credentials.dev_vault import DevVault
from credentials.errors import Cause, CredentialsUnavailable, DataKeyGone, PartUnavailable
from credentials.transit import DataKey, Transit, transit_key_name
from credentials.vault import VaultSession
from tests.parts.stopped import stopped


@pytest.fixture
def tenant(dev_vault: DevVault) -> str:
    """A tenant that nothing else uses, with its key in Vault."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    dev_vault.install_tenant_key(name)
    return name


@pytest.fixture
def transit(vault_session: VaultSession) -> Transit:
    return Transit(vault_session)


async def test_unwraps_the_key_that_it_made(transit: Transit, tenant: str):
    made = await transit.make_data_key(tenant)
    assert await transit.unwrap(tenant, made.wrapped) == made.key
    assert len(base64.b64decode(made.key.reveal())) == 32


async def test_makes_another_key_each_time(transit: Transit, tenant: str):
    assert (await transit.make_data_key(tenant)).key != (await transit.make_data_key(tenant)).key


async def test_hides_the_key_in_its_repr(transit: Transit, tenant: str):
    made = await transit.make_data_key(tenant)
    assert made.key.reveal() not in repr(made)
    assert made.key.reveal().encode() not in made.wrapped


async def test_says_that_the_tenant_has_no_key(transit: Transit):
    with pytest.raises(CredentialsUnavailable, match="vault write -f transit/keys/toolcrib-nobody") as caught:
        await transit.make_data_key("nobody")
    assert caught.value.cause is Cause.UNKNOWN


async def test_opens_no_other_tenants_key(transit: Transit, tenant: str, dev_vault: DevVault):
    dev_vault.install_tenant_key("other")
    made = await transit.make_data_key(tenant)
    with pytest.raises(DataKeyGone):
        await transit.unwrap("other", made.wrapped)


async def test_is_gone_when_the_transit_key_was_deleted(transit: Transit, tenant: str, dev_vault: DevVault):
    made = await transit.make_data_key(tenant)
    dev_vault.delete_tenant_key(tenant)
    with pytest.raises(DataKeyGone, match="encryption key not found"):
        await transit.unwrap(tenant, made.wrapped)


async def test_stays_gone_under_a_new_key_of_the_same_name(
    transit: Transit, tenant: str, dev_vault: DevVault
):
    made = await transit.make_data_key(tenant)
    dev_vault.delete_tenant_key(tenant)
    dev_vault.install_tenant_key(tenant)
    with pytest.raises(DataKeyGone):
        await transit.unwrap(tenant, made.wrapped)
    with pytest.raises(PartUnavailable, match="authentication failed"):  # nor for Vault's root
        dev_vault.write(f"transit/decrypt/{transit_key_name(tenant)}", ciphertext=made.wrapped.decode())


async def test_unwraps_after_the_transit_key_was_rotated(transit: Transit, tenant: str, dev_vault: DevVault):
    made = await transit.make_data_key(tenant)
    dev_vault.write(f"transit/keys/{transit_key_name(tenant)}/rotate")
    assert await transit.unwrap(tenant, made.wrapped) == made.key


async def test_keeps_apart_a_sealed_vault_and_a_lost_key(own_session: VaultSession, own_vault: DevVault):
    own_vault.install_tenant_key("shop")
    transit = Transit(own_session)
    made: DataKey = await transit.make_data_key("shop")
    own_vault.seal()
    with pytest.raises(CredentialsUnavailable) as caught:
        await transit.unwrap("shop", made.wrapped)
    own_vault.unseal()
    assert caught.value.cause is Cause.SEALED
    assert await transit.unwrap("shop", made.wrapped) == made.key


async def test_gives_up_on_a_vault_that_does_not_answer(own_session: VaultSession, own_vault: DevVault):
    own_vault.install_tenant_key("shop")
    with stopped(own_vault.pid), pytest.raises(CredentialsUnavailable, match="within 1 s") as caught:
        await Transit(own_session).make_data_key("shop")
    assert caught.value.cause is Cause.TIMEOUT


@pytest.mark.parametrize("name", ["", "../sys", "a/b", "Shop", "-shop", "a" * 64])
async def test_asks_vault_for_no_path_that_is_no_tenant(transit: Transit, name: str):
    with pytest.raises(ValueError, match="is no tenant name"):
        await transit.make_data_key(name)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "transit/keys/toolcrib-made"),
        ("delete", "transit/keys/{name}"),
        ("post", "transit/keys/{name}/config"),
        ("post", "transit/keys/{name}/rotate"),
        ("get", "transit/export/encryption-key/{name}"),
        ("get", "transit/backup/{name}"),
        ("post", "transit/datakey/plaintext/of-somebody-else"),
    ],
)
async def test_lets_the_broker_do_nothing_else_with_a_key(
    vault_session: VaultSession, tenant: str, method: str, path: str
):
    path = path.format(name=transit_key_name(tenant))
    with pytest.raises(CredentialsUnavailable) as caught:
        await vault_session.ask("test", lambda api, token: api.ask(method, path, token, {}))
    assert caught.value.cause is Cause.DENIED
