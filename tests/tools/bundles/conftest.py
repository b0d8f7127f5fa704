"""Fixtures of the bundles' tests: the shop's database with its seed data, and its handler."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from credentials.dev_postgres import DevPostgres
from tests.tools.bundles.shop import PASSWORD, SHOP, Shop, open_relay
from tools.bundles.shop.dev.seed import seed_sql
from tools.source import compile_bundle


@pytest.fixture(scope="module")
def shop_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevPostgres]:
    """A PostgreSQL with the shop's schema, its data, and a login for each role of the bundle."""
    with DevPostgres(tmp_path_factory.mktemp("shop"), database="shop") as postgres:
        postgres.run_script((SHOP / "dev" / "schema.sql").read_text())
        postgres.run_script(seed_sql())
        roles = tomllib.loads((SHOP / "dev" / "roles.toml").read_text())["roles"]
        for name, role in roles.items():
            postgres.run_script(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{PASSWORD}'")
            postgres.run_script(f'GRANT CONNECT ON DATABASE shop TO "{name}"')
            for grant in role["grants"]:
                postgres.run_script(grant.replace("{{name}}", name))
        yield postgres


@pytest.fixture(scope="module")
def shop_bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Any]]:
    """The folder as it lies in the bundle's image, and the message classes."""
    source = compile_bundle(SHOP)
    folder = tmp_path_factory.mktemp("bundle")
    for name, content in source.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(source.descriptor_set).file
    for file in files:
        pool.Add(file)
    return folder, message_factory.GetMessageClassesForFiles([file.name for file in files], pool)


@pytest.fixture
async def shop(
    shop_postgres: DevPostgres, shop_bundle: tuple[Path, Mapping[str, Any]], tmp_path: Path
) -> AsyncIterator[Shop]:
    """The shop with its seed data; what a test adds to it is taken out again."""
    folder, messages = shop_bundle
    async with open_relay(tmp_path, shop_postgres.port) as relay:
        yield Shop(folder, messages, relay, shop_postgres)
    shop_postgres.run_script(
        "DELETE FROM refund_drafts; DELETE FROM refunds WHERE idempotency_key NOT LIKE 'seed:%';"
        "UPDATE orders SET state = 'PAID' WHERE order_id = 'A-1042';"
    )
