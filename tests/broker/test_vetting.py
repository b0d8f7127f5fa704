"""A bundle is vetted against a real Vault before it is registered."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from broker.errors import Refused
from broker.reconciliation.our_record import CallEnded, CallOpened, LeaseEnded, read_record
from broker.store.memory import MemoryStore
from broker.store.records import AuditEvent, StoreError
from broker.vetting import Vetting
from credentials.bootstrap.roles import define_role
from credentials.dev_engines import put_client, put_secret
from credentials.engines import DEFAULT_MOUNTS
from credentials.logins import AppRole
from credentials.secret import Secret
from credentials.vault import VaultSession
from tests.parts.token_server import Client, TokenServer
from tests.parts.vault import TARGET
from tools.errors import Violation
from tools.manifest import CredentialWanted


@pytest.fixture
def vetting(vault_session: VaultSession) -> Vetting:
    return Vetting(vault_session, DEFAULT_MOUNTS, MemoryStore().append_audit, ["container"])


async def vet(vetting: Vetting, **credentials: CredentialWanted) -> list[Violation]:
    manifest = SimpleNamespace(isolation="container", credentials=credentials)
    version: Any = SimpleNamespace(bundle="shop", version="1.0.0", digest="d1", manifest=manifest)
    return await vetting.find_violations("acme", version)


def database(role: str) -> CredentialWanted:
    return CredentialWanted(engine="database", role=role, target="orders-db")


def secret(role: str) -> CredentialWanted:
    return CredentialWanted(engine="kv", role=role)


@pytest.fixture
def roles(dev_vault):
    dev_vault.install_role("vet-fine", TARGET, [])
    for role in ("vet-good", "vet-short", "vet-none"):
        dev_vault.install_tool_policy("kv", role)
    put_secret(dev_vault, "vet-good", {"token": "0123456789abcdef"})
    put_secret(dev_vault, "vet-short", {"token": "hunter2"})


async def test_finds_nothing_wrong_with_what_vault_can_give(vetting, roles) -> None:
    assert await vet(vetting, orders=database("vet-fine"), partner=secret("vet-good")) == []


async def test_names_each_credential_that_vault_cannot_give(vetting, roles) -> None:
    found = await vet(vetting, orders=database("vet-fine"), a=database("vet-lost"), b=secret("vet-none"))
    assert {violation.field for violation in found} == {
        "tool.yaml: credentials.a",
        "tool.yaml: credentials.b",
    }


async def test_refuses_a_short_secret_and_tells_nothing_of_it(vetting, roles) -> None:
    [found] = await vet(vetting, partner=secret("vet-short"))
    assert found.field == "tool.yaml: credentials.partner"
    assert "shorter than 12 characters" in found.description and "hunter2" not in found.description


async def test_records_its_reading_of_a_secret_as_vaults_audit_does(vault_session, roles, dev_vault) -> None:
    store = MemoryStore()
    await vet(
        Vetting(vault_session, DEFAULT_MOUNTS, store.append_audit, ["container"]), partner=secret("vet-good")
    )
    records = [record async for record in store.audit_records()]
    assert [type(read_record(record)[1]) for record in records] == [CallOpened, CallEnded, LeaseEnded]
    assert json.loads(records[0].payload)["call_id"] in dev_vault.audit_log.read_text()
    assert dev_vault.count_tokens() == 0


async def test_reads_nothing_that_it_cannot_record(vault_session, roles, dev_vault) -> None:
    async def refuse(_: AuditEvent) -> None:
        raise StoreError("the disk is full")

    reads = dev_vault.audit_log.read_text().count("/data/vet-good")
    with pytest.raises(StoreError):
        await vet(Vetting(vault_session, DEFAULT_MOUNTS, refuse, ["container"]), partner=secret("vet-good"))
    assert dev_vault.audit_log.read_text().count("/data/vet-good") == reads


async def test_names_a_client_that_its_authorization_server_does_not_take(vetting, dev_vault) -> None:
    with TokenServer() as server:
        server.clients["crm"] = Client("what-the-server-knows")
        fields = {"grant": "client_credentials", "token_url": server.token_url, "client_id": "crm"}
        dev_vault.bootstrap(definitions=[define_role("vet-crm", {"engine": "oauth2", **fields})])
        put_client(dev_vault, "vet-crm", server.token_url, "what-vault-holds")
        [found] = await vet(vetting, crm=CredentialWanted(engine="oauth2", role="vet-crm", target="crm"))
    assert found.field == "tool.yaml: credentials.crm"
    assert "invalid_client" in found.description and "what-" not in found.description


async def test_asks_nothing_for_a_bundle_without_credentials() -> None:
    closed = VaultSession("http://127.0.0.1:1", AppRole(Secret("role"), Secret("secret")))
    assert await vet(Vetting(closed, DEFAULT_MOUNTS, MemoryStore().append_audit, ["container"])) == []
    await closed.close()


async def test_refuses_what_it_cannot_ask_about(dev_vault) -> None:
    closed = VaultSession(dev_vault.address, dev_vault.login)  # not opened: there is no session
    with pytest.raises(Refused) as caught:
        await vet(
            Vetting(closed, DEFAULT_MOUNTS, MemoryStore().append_audit, ["container"]),
            orders=database("vet-fine"),
        )
    await closed.close()
    assert caught.value.reason_name == "CREDENTIALS_UNAVAILABLE"
    assert caught.value.retry_after_seconds is not None


async def test_refuses_a_class_that_no_driver_serves() -> None:
    closed = VaultSession("http://127.0.0.1:1", AppRole(Secret("role"), Secret("secret")))
    (found,) = await vet(Vetting(closed, DEFAULT_MOUNTS, MemoryStore().append_audit, ["strong"]))
    await closed.close()
    assert found.field == "tool.yaml: isolation"
    assert 'no driver serves the class "container" here' in found.description
