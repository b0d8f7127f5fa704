"""What is sealed for a tenant opens for it alone, only with its key, and never again once that is erased."""

from __future__ import annotations

import asyncio
import base64
import secrets
import shutil
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit import Verified, verify
from broker.cipher import HEADER_BYTES, SPARE_SECONDS, KeyUnavailable, SealBroken, TenantCipher
from broker.model import CallState
from broker.store.cipher import ERASED_LOG, KeyErased
from broker.store.options import StoreOptions
from broker.store.protocol import Store
from broker.store.sqlite import open_store
from credentials.dev_vault import DevVault
from credentials.errors import Cause, CredentialsUnavailable, DataKeyGone, PartUnavailable
from credentials.secret import Secret
from credentials.transit import DataKey, Transit, transit_key_name
from credentials.vault import VaultSession
from tests.contracts.stores import event_of, make_call, run

HERE, THERE = b"result of c1", b"result of c2"


class MemoryShelf:
    """Keeps wrapped keys as the store does: the first one wins."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def tenant_key(self, tenant: str) -> bytes | None:
        await asyncio.sleep(0)
        return self.kept.get(tenant)

    async def put_tenant_key(self, tenant: str, wrapped: bytes) -> bytes:
        await asyncio.sleep(0)
        return self.kept.setdefault(tenant, wrapped)


@dataclass
class MemoryWrapper:
    """Wraps keys as transit does, and counts; can be away, and can lose a tenant's key."""

    keys: dict[bytes, Secret] = field(default_factory=dict)
    away: bool = False
    asked: int = 0

    async def make_data_key(self, tenant: str) -> DataKey:
        await self._answer()
        made = DataKey(Secret(base64.b64encode(secrets.token_bytes(32)).decode()), secrets.token_bytes(60))
        self.keys[made.wrapped] = made.key
        return made

    async def unwrap(self, tenant: str, wrapped: bytes) -> Secret:
        await self._answer()
        if wrapped not in self.keys:
            raise DataKeyGone("encryption key not found")
        return self.keys[wrapped]

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        self.asked += 1
        if self.away:
            raise CredentialsUnavailable("Vault does not answer", Cause.UNREACHABLE)


class Bench:
    """A cipher with a shelf and a wrapper in memory, and a clock to turn."""

    def __init__(self, max_keys: int = 8) -> None:
        self.now = 0.0
        self.shelf, self.wrapper = MemoryShelf(), MemoryWrapper()
        self.max_keys = max_keys
        self.cipher = self.start_again()

    def start_again(self) -> TenantCipher:
        """Make a cipher that remembers nothing: another process."""
        cipher = TenantCipher(max_age_seconds=60, max_keys=self.max_keys, monotonic=lambda: self.now)
        cipher.connect(self.shelf, self.wrapper)
        return cipher


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_opens_what_it_sealed_also_in_another_process(bench: Bench):
    sealed = await bench.cipher.seal("shop", HERE, b"42 EUR")
    assert b"42 EUR" not in sealed
    assert await bench.start_again().open("shop", HERE, sealed) == b"42 EUR"


async def test_never_seals_the_same_way_twice(bench: Bench):
    assert await bench.cipher.seal("shop", HERE, b"x") != await bench.cipher.seal("shop", HERE, b"x")


async def test_opens_only_where_it_belongs(bench: Bench):
    sealed = await bench.cipher.seal("shop", HERE, b"42 EUR")
    with pytest.raises(SealBroken):
        await bench.cipher.open("shop", THERE, sealed)


async def test_opens_for_no_other_tenant_with_the_same_key(bench: Bench):
    sealed = await bench.cipher.seal("shop", HERE, b"42 EUR")
    bench.shelf.kept["rival"] = bench.shelf.kept["shop"]
    with pytest.raises(SealBroken):
        await bench.cipher.open("rival", HERE, sealed)


async def test_does_not_mistake_a_tenants_name_for_context(bench: Bench):
    sealed = await bench.cipher.seal("ab", b"c", b"42 EUR")
    bench.shelf.kept["a"] = bench.shelf.kept["ab"]
    with pytest.raises(SealBroken):
        await bench.cipher.open("a", b"bc", sealed)


@given(data=st.data())
async def test_finds_every_changed_bit(data):
    bench = Bench()
    sealed = bytearray(await bench.cipher.seal("shop", HERE, b"42 EUR"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((SealBroken, KeyErased)):  # a changed key id names a key that there is not
        await bench.cipher.open("shop", HERE, bytes(sealed))


@pytest.mark.parametrize("sealed", [b"", b"in clear", b"\x01" * HEADER_BYTES, b"\x02" * 80])
async def test_reads_nothing_that_is_not_sealed(bench: Bench, sealed: bytes):
    with pytest.raises(SealBroken):
        await bench.cipher.open("shop", HERE, sealed)


# --- keys in memory ---
async def test_asks_once_for_many_that_wait(bench: Bench):
    await asyncio.gather(*(bench.cipher.seal("shop", HERE, b"x") for _ in range(50)))
    assert bench.wrapper.asked == 1


async def test_leaves_the_key_to_the_others_when_the_first_is_cancelled(bench: Bench):
    first, second = (asyncio.create_task(bench.cipher.seal("shop", HERE, b"x")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second
    assert bench.wrapper.asked == 1


async def test_uses_the_key_that_another_process_was_quicker_to_keep(bench: Bench):
    other = bench.start_again()
    sealed = await asyncio.gather(bench.cipher.seal("shop", HERE, b"1"), other.seal("shop", HERE, b"2"))
    assert [await bench.start_again().open("shop", HERE, item) for item in sealed] == [b"1", b"2"]


async def test_asks_again_when_a_key_is_old(bench: Bench):
    await bench.cipher.seal("shop", HERE, b"x")
    bench.now += 60
    await bench.cipher.seal("shop", HERE, b"x")
    assert bench.wrapper.asked == 2


async def test_holds_no_more_keys_than_it_may():
    bench = Bench(max_keys=2)
    for tenant in ("a", "b", "c", "a"):
        await bench.cipher.seal(tenant, HERE, b"x")
    assert bench.wrapper.asked == 4


# --- Vault away ---
async def test_seals_nothing_without_a_key(bench: Bench):
    bench.wrapper.away = True
    with pytest.raises(KeyUnavailable, match="Vault does not answer"):
        await bench.cipher.seal("shop", HERE, b"x")
    assert bench.shelf.kept == {}


async def test_seals_nothing_before_there_is_a_session():
    with pytest.raises(KeyUnavailable, match="still starting"):
        await TenantCipher().seal("shop", HERE, b"x")


async def test_can_end_a_call_while_vault_is_away(bench: Bench):
    sealed = await bench.cipher.seal("shop", HERE, b"x")
    bench.wrapper.away = True
    bench.now += 60 + SPARE_SECONDS - 1
    assert await bench.cipher.open("shop", HERE, sealed) == b"x"
    bench.now += 1
    with pytest.raises(KeyUnavailable):
        await bench.cipher.open("shop", HERE, sealed)


async def test_tries_again_after_a_failure(bench: Bench):
    bench.wrapper.away = True
    with pytest.raises(KeyUnavailable):
        await bench.cipher.seal("shop", HERE, b"x")
    bench.wrapper.away = False
    assert await bench.cipher.seal("shop", HERE, b"x")


# --- erased ---
async def test_never_opens_again_what_an_erased_key_sealed(bench: Bench):
    sealed = await bench.cipher.seal("shop", HERE, b"x")
    bench.shelf.kept.clear()
    bench.cipher.forget("shop")
    with pytest.raises(KeyErased):
        await bench.cipher.open("shop", HERE, sealed)
    later = await bench.cipher.seal("shop", HERE, b"later")
    with pytest.raises(KeyErased):
        await bench.cipher.open("shop", HERE, sealed)
    assert await bench.cipher.open("shop", HERE, later) == b"later"


async def test_does_not_keep_a_key_that_is_erased_while_it_is_fetched(bench: Bench):
    await bench.cipher.seal("shop", HERE, b"x")
    bench.now += 60
    fetching = asyncio.create_task(bench.cipher.seal("shop", HERE, b"x"))
    await asyncio.sleep(0)
    bench.cipher.forget("shop")
    bench.shelf.kept.clear()
    await fetching
    await bench.cipher.seal("shop", HERE, b"x")
    assert bench.wrapper.asked == 3


async def test_reads_as_erased_and_refuses_to_write_when_vault_lost_the_key(bench: Bench):
    sealed = await bench.cipher.seal("shop", HERE, b"x")
    bench.wrapper.keys.clear()
    bench.now += 60
    with pytest.raises(KeyErased, match="was deleted"):
        await bench.cipher.open("shop", HERE, sealed)
    with pytest.raises(KeyUnavailable, match="toolcrib tenants erase shop"):
        await bench.cipher.seal("shop", HERE, b"x")


# --- with the real Vault ---
async def test_opens_with_the_real_vault_until_the_tenants_key_there_is_deleted(
    dev_vault: DevVault, vault_session: VaultSession
):
    tenant, shelf = f"t-{uuid.uuid4().hex[:8]}", MemoryShelf()
    dev_vault.install_tenant_key(tenant)
    first, second, third = TenantCipher(), TenantCipher(), TenantCipher()
    for cipher in (first, second, third):
        cipher.connect(shelf, Transit(vault_session))
    sealed = await first.seal(tenant, HERE, b"42 EUR")
    assert await second.open(tenant, HERE, sealed) == b"42 EUR"
    dev_vault.delete_tenant_key(tenant)
    with pytest.raises(KeyErased):
        await third.open(tenant, HERE, sealed)


# --- a store, its backup and the real Vault: what an erasure covers ---
REQUEST, RESULT, LOG = b"pay 42 EUR to Ada", b"paid 42 EUR to Ada", "Ada was paid"
OPTIONS = StoreOptions(b"k" * 32, "k1", epoch_seconds=0.3)


@dataclass
class Estate:
    """A tenant with one call in a store on disk, a backup of that store, and the tenant's key in Vault."""

    tenant: str
    folder: Path
    vault: DevVault
    transit: Transit

    @asynccontextmanager
    async def open(self, name: str = "state.db") -> AsyncIterator[Store]:
        """Open a store with a cipher that remembers nothing."""
        cipher = TenantCipher()
        options = replace(OPTIONS, cipher=cipher)
        store = await open_store(self.folder / name, options, wait_seconds=1)
        cipher.connect(store, self.transit)
        try:
            yield store
        finally:
            await store.close()

    async def fill(self) -> None:
        """Leave a call that SUCCEEDED, and a copy of the state beside it."""
        call = replace(make_call("c1", key="k", request=REQUEST), tenant=self.tenant)
        async with self.open() as store:
            done = replace(await run(store, call), state=CallState.SUCCEEDED, result=RESULT, tool_log=LOG)
            await store.complete(done, event_of(done))
        shutil.copy(self.folder / "state.db", self.folder / "copy.db")

    async def read(self, name: str = "state.db") -> tuple[bytes | None, bytes | None, str]:
        """Read the call's contents with all that the broker has."""
        async with self.open(name) as store:
            found = await store.get_call(self.tenant, "c1")
            assert found is not None
            return found.request, found.result, found.tool_log

    async def erase(self) -> None:
        """Do what `toolcrib tenants erase` does."""
        async with self.open() as store:
            await store.erase_tenant(self.tenant, event_of(replace(make_call("c1"), tenant=self.tenant)))

    def steal(self, name: str) -> str:
        """Unwrap the data key in a file with Vault's root token: what an attacker with both would do."""
        with closing(sqlite3.connect(self.folder / name)) as connection:
            [(wrapped,)] = connection.execute("SELECT wrapped FROM tenant_keys").fetchall()
        path = f"transit/decrypt/{transit_key_name(self.tenant)}"
        return str(self.vault.write(path, ciphertext=wrapped.decode())["data"]["plaintext"])


@pytest.fixture
async def estate(tmp_path: Path, dev_vault: DevVault, vault_session: VaultSession) -> Estate:
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    dev_vault.install_tenant_key(tenant)
    made = Estate(tenant, tmp_path, dev_vault, Transit(vault_session))
    await made.fill()
    return made


async def test_keeps_nothing_of_a_call_in_clear_on_the_disk(estate: Estate):
    kept = b"".join(path.read_bytes() for path in estate.folder.iterdir())
    assert [text for text in (REQUEST, RESULT, LOG.encode()) if text in kept] == []
    assert await estate.read() == (REQUEST, RESULT, LOG)


async def test_reads_nothing_of_an_erased_tenant_and_still_verifies_the_audit(estate: Estate):
    await estate.erase()
    assert await estate.read() == (None, None, ERASED_LOG)
    async with estate.open() as store:
        assert isinstance(await verify(store.audit_records(), {"k1": OPTIONS.audit_key}), Verified)


async def test_leaves_a_backup_readable_until_the_key_in_vault_is_deleted(estate: Estate):
    await estate.erase()
    assert await estate.read("copy.db") == (REQUEST, RESULT, LOG)  # the store's own erasure reaches no copy
    assert estate.steal("copy.db")
    estate.vault.delete_tenant_key(estate.tenant)
    assert await estate.read("copy.db") == (None, None, ERASED_LOG)
    with pytest.raises(PartUnavailable, match="encryption key not found"):
        estate.steal("copy.db")


async def test_stays_erased_when_the_tenant_comes_back(estate: Estate):
    await estate.erase()
    estate.vault.delete_tenant_key(estate.tenant)
    estate.vault.install_tenant_key(estate.tenant)
    async with estate.open() as store:
        call = replace(make_call("c2", key="k2", request=REQUEST), tenant=estate.tenant)
        await run(store, call)
    assert await estate.read() == (None, None, ERASED_LOG)
    with pytest.raises(PartUnavailable, match="authentication failed"):
        estate.steal("copy.db")
