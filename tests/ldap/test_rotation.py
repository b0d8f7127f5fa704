"""Vault's password in the directory is rotated while 20 calls a second go on: none of them fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from credentials.secret import Secret
from tests.e2e.caller import Reply
from tests.e2e.rehearsal import Rehearsal, rehearse
from tests.ldap.conftest import REPORTER, make_play
from tests.ldap.slapd import STATIC_DN, VAULT_DN, DevSlapd

WHO, WHO_IS_REPORTER = "directory.v1.Directory/WhoAmI", "directory.v1.Directory/WhoIsReporter"
PER_SECOND, SECONDS = 20, 6.0


@pytest.fixture
async def rehearsal(vault, slapd: DevSlapd) -> AsyncIterator[Rehearsal]:
    async with rehearse(vault, make_play(slapd)) as running:
        yield running
        reset_password(vault, slapd)


def reset_password(vault, slapd: DevSlapd) -> None:
    """Give Vault the password of before again, in the directory and in Vault."""
    password = slapd.vault_password.reveal()
    slapd.change(f"dn: {VAULT_DN}\nchangetype: modify\nreplace: userPassword\nuserPassword: {password}\n")
    slapd.introduce(vault)


def rotate(rehearsal: Rehearsal, *words: str) -> Result:
    """Run the command as the administrator does."""
    options = ["--config", str(rehearsal.config), "--token-file", str(rehearsal.folder / "token"), "--yes"]
    return CliRunner().invoke(main, ["credentials", "rotate", *words, *options])


async def rotate_under_load(rehearsal: Rehearsal, times: int, *words: str) -> Sequence[Reply]:
    """Rotate again and again while calls go on; returns the replies to the calls."""
    load = asyncio.create_task(rehearsal.press(WHO, {}, per_second=PER_SECOND, seconds=SECONDS))
    for _ in range(times):
        await asyncio.sleep(SECONDS / (times + 1))
        done = await asyncio.to_thread(rotate, rehearsal, *words)
        assert done.exit_code == 0, done.output
    return await load


async def test_fails_no_call_while_the_password_is_rotated(rehearsal, slapd) -> None:
    before = slapd.vault_password
    assert slapd.can_bind(VAULT_DN, before)
    replies = await rotate_under_load(rehearsal, 12, "ldap")
    failed = [f"{reply.reason}: {reply.message}" for reply in replies if reply.code != "OK"]
    assert (len(replies), failed) == (PER_SECOND * SECONDS, [])
    assert not slapd.can_bind(VAULT_DN, before)
    assert len({reply.result["name"] for reply in replies}) == len(replies)


async def test_says_what_it_did(rehearsal) -> None:
    said = await asyncio.to_thread(rotate, rehearsal, "ldap")
    assert f"{VAULT_DN} has a new password, which nobody but Vault knows" in said.output


async def test_rotates_the_user_that_calls_share(rehearsal, vault, slapd) -> None:
    captured = Secret(vault.read(f"ldap/static-cred/{REPORTER}")["data"]["password"])
    assert slapd.can_bind(STATIC_DN, captured)
    said = await asyncio.to_thread(rotate, rehearsal, "static", "ldap_static", REPORTER)
    assert said.exit_code == 0, said.output
    assert not slapd.can_bind(STATIC_DN, captured)
    assert (await rehearsal.call(WHO_IS_REPORTER, {})).result == {"name": f"dn:{STATIC_DN}"}
