"""A secret's new version: calls that begin get it, and what was before is destroyed on demand only."""

from __future__ import annotations

import asyncio

import pytest

from credentials.errors import Cause, PartUnavailable
from credentials.rotation.secret_values import generate_value, rotate_values
from credentials.secret import Secret
from credentials.vault_api import VaultFault

OLD, NEW = "an-old-value-of-24-signs", Secret("a-new-value-of-24-signs!")
MOUNT, NAME = "toolcrib-kv", "mail-key"
PATH = (MOUNT, NAME)


@pytest.fixture(autouse=True)
def _old_version(vault) -> None:
    vault.write(f"{MOUNT}/data/{NAME}", data={"key": OLD, "username": "mailer"})


def read(vault, version: int = 0):
    return vault.read(f"{MOUNT}/data/{NAME}?version={version}")["data"]


async def test_writes_a_version_and_keeps_the_other_keys(api, vault) -> None:
    await rotate_values(api, vault.root_token, PATH, {"key": NEW}, destroy_older=False)
    assert read(vault)["data"] == {"key": NEW.reveal(), "username": "mailer"}


async def test_leaves_the_version_of_before_and_says_so(api, vault) -> None:
    before = read(vault)["metadata"]["version"]
    made = await rotate_values(api, vault.root_token, PATH, {"key": NEW}, destroy_older=False)
    assert read(vault, before)["data"]["key"] == OLD
    assert any("--destroy-older" in line for line in made.remaining)


async def test_destroys_the_versions_of_before_on_demand(api, vault) -> None:
    before = read(vault)["metadata"]["version"]
    await rotate_values(api, vault.root_token, PATH, {"key": NEW}, destroy_older=True)
    with pytest.raises(PartUnavailable):
        read(vault, before)
    assert read(vault)["data"]["key"] == NEW.reveal()


async def test_says_that_the_target_needs_it_too_and_tells_no_value(api, vault) -> None:
    made = await rotate_values(api, vault.root_token, PATH, {"key": NEW}, destroy_older=True)
    assert "change key at the target too" in made.remaining[0]
    assert NEW.reveal() not in repr(made)
    assert OLD not in repr(made)


@pytest.mark.parametrize(
    ("value", "match"), [("short", "shorter than 12"), (OLD, "the new value is the old one")]
)
async def test_refuses_a_value_that_is_no_rotation(api, vault, value, match) -> None:
    with pytest.raises(VaultFault, match=match) as caught:
        await rotate_values(api, vault.root_token, PATH, {"key": Secret(value)}, destroy_older=True)
    assert caught.value.cause is Cause.INVALID
    assert read(vault)["data"]["key"] == OLD


async def test_refuses_a_secret_that_vault_does_not_have(api, vault) -> None:
    with pytest.raises(VaultFault, match="no secret nothing"):
        await rotate_values(api, vault.root_token, (MOUNT, "nothing"), {"key": NEW}, destroy_older=False)


async def test_overwrites_nothing_that_somebody_else_wrote_meanwhile(api, vault) -> None:
    two = [
        rotate_values(api, vault.root_token, PATH, {"key": generate_value()}, destroy_older=False)
        for _ in range(6)
    ]
    results = await asyncio.gather(*two, return_exceptions=True)
    written = [result for result in results if not isinstance(result, VaultFault)]
    refused = [result for result in results if isinstance(result, VaultFault)]
    assert written
    assert all("check-and-set" in str(fault) for fault in refused)
    assert not [result for result in results if isinstance(result, Exception) and result not in refused]


def test_generates_values_of_the_length_asked_for() -> None:
    assert [len(generate_value(length).reveal()) for length in (12, 32, 1024)] == [12, 32, 1024]
    assert generate_value().reveal() != generate_value().reveal()


@pytest.mark.parametrize("length", [0, 11, 1025])
def test_generates_nothing_that_can_be_guessed(length) -> None:
    with pytest.raises(ValueError, match="12 to 1024"):
        generate_value(length)
