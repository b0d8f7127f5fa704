"""One running Toolcrib for the end-to-end tests; after each test nothing of a call may be left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.app import Hooks
from broker.dev import DevOptions
from sandboxes.engine import Engine
from tests.e2e.stack import MISCHIEF, SHOP, Crib, CribThread
from tests.parts import REAL_PARTS, without
from tests.parts.issuer import LocalIssuer

CACHE_DIR = Path(__file__).parent.parent.parent / ".toolcrib" / "cache"

DOWN = "http://127.0.0.1:9"
"""Nobody listens there."""
OPTIONS = DevOptions(
    bundles=(SHOP, MISCHIEF),
    tenants=("shop", "rival", "tight"),
    retention_seconds=86_400,
    platform_operators=("pia",),
    tenant_extra={"tight": "max_concurrent_calls = 1\nmax_request_bytes = 200\n"},
)


class Switchboard:
    """What tests may turn while the broker runs: its clock, and what happens at a stage boundary."""

    def __init__(self) -> None:
        self.offset = timedelta()
        self.failures: dict[str, Exception] = {}

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.offset

    async def boundary(self, stage: str, _call_id: str) -> None:
        if stage in self.failures:
            raise self.failures[stage]


SWITCHBOARD = Switchboard()


@pytest.fixture(scope="session")
def token_issuer() -> Iterator[LocalIssuer]:
    """The issuer whose tokens the running Toolcrib takes; its "desk-1" is our refund-desk."""
    with LocalIssuer() as issuer:
        yield issuer


def describe_issuers(issuer: str) -> str:
    """Write [identity]: one issuer that is up, and one that never was."""
    common = 'audiences = ["toolcrib"]\ntenant = "shop"\nagent_prefix = "{}"\n'
    return f"""
[identity]
listen = "127.0.0.1:0"
[[identity.issuers]]
issuer = "{issuer}"
discovery = true
agents = {{ "desk-1" = "refund-desk" }}
{common.format("id-")}
[[identity.issuers]]
issuer = "{DOWN}"
jwks_url = "{DOWN}/keys"
{common.format("down-")}
"""


@pytest.fixture(scope="session")
def running_crib(
    tmp_path_factory: pytest.TempPathFactory, engine: Engine, token_issuer: LocalIssuer
) -> Iterator[Crib]:
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    hooks = Hooks(boundary=SWITCHBOARD.boundary, clock=SWITCHBOARD.clock)
    folder = tmp_path_factory.mktemp("crib") / "state"
    tokens = describe_issuers(token_issuer.mint.issuer)
    options = replace(OPTIONS, engine_url=engine.base_url, settings_extra=tokens)
    with CribThread(folder, CACHE_DIR, options, hooks) as crib:
        REAL_PARTS.append(f"OpenBao {crib.stack.vault.version}, PostgreSQL {crib.stack.postgres.version}")
        yield crib


@pytest.fixture
def crib(running_crib: Crib) -> Iterator[Crib]:
    """The running Toolcrib, without grants; checks afterwards that no call left anything."""
    running_crib.grant("")
    running_crib.rest()
    yield running_crib
    SWITCHBOARD.offset = timedelta()
    SWITCHBOARD.failures.clear()
    assert wait_until_clean(running_crib) == {}


@pytest.fixture
def switchboard() -> Switchboard:
    return SWITCHBOARD


def wait_until_clean(crib: Crib, seconds: float = 15.0) -> dict[str, object]:
    """Give what ends after the answer its two seconds, and some for a busy machine."""
    deadline = time.monotonic() + seconds
    while (found := crib.leftovers()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
