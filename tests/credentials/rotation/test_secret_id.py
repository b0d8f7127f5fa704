"""The broker's secret id: the new one logs in before the old one ends; the file always holds a good one."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from credentials.errors import PartUnavailable
from credentials.rotation.private_file import replace_private_file
from credentials.rotation.secret_id import (
    BrokerLogin,
    FileNotWritten,
    list_secret_ids,
    rotate_secret_id,
)
from credentials.secret import Secret
from credentials.transport import HvacTransport, Peer
from credentials.vault_api import VaultApi, VaultFault


class Crash(BaseException):
    """What a killed process looks like to the lines after it."""


class CrashingTransport(HvacTransport):
    """Ends everything before or after its n-th request."""

    def __init__(self, peer: Peer, number: int, *, after: bool) -> None:
        super().__init__(peer)
        self._left, self._after = number, after

    async def ask(
        self,
        method: str,
        path: str,
        token: Secret | None,
        body: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = True,
    ) -> dict[str, Any]:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Crash
        answer = await super().ask(method, path, token, body, repeatable=repeatable)
        if self._left == 0:
            raise Crash
        return answer


def logs_in(vault, secret_id: str) -> bool:
    """Log in as the broker does, and end that session again."""
    values = {"role_id": vault.role_id.reveal(), "secret_id": secret_id.strip()}
    try:
        auth = vault.write("auth/approle/login", **values)["auth"]
    except PartUnavailable:
        return False
    vault.write("auth/token/revoke-accessor", accessor=auth["accessor"])
    return True


async def test_writes_one_that_logs_in_and_ends_the_others(api, vault, login) -> None:
    before = login.file.read_text()
    assert logs_in(vault, before)
    await rotate_secret_id(api, vault.root_token, login)
    assert (logs_in(vault, login.file.read_text()), logs_in(vault, before)) == (True, False)
    assert len(await list_secret_ids(api, vault.root_token, login)) == 1


async def test_writes_a_file_for_its_owner_alone(api, vault, login) -> None:
    login.file.chmod(0o644)
    await rotate_secret_id(api, vault.root_token, login)
    assert stat.S_IMODE(login.file.stat().st_mode) == 0o600
    assert [path.name for path in login.file.parent.iterdir()] == [login.file.name]


async def test_says_what_it_did_and_no_secret(api, vault, login) -> None:
    made = await rotate_secret_id(api, vault.root_token, login)
    assert "logs in" in made.done[0]
    assert login.file.read_text().strip() not in repr(made)


async def test_leaves_no_session_of_the_proof(api, vault, login) -> None:
    before = vault.count_sessions()
    await rotate_secret_id(api, vault.root_token, login)
    assert vault.count_sessions() == before


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(1, 7))
async def test_leaves_a_file_that_logs_in_wherever_it_is_killed(vault, login, number, after) -> None:
    transport = CrashingTransport(Peer(vault.address), number, after=after)
    with pytest.raises(Crash):
        await rotate_secret_id(VaultApi(transport), vault.root_token, login)
    await transport.close()
    assert logs_in(vault, login.file.read_text())


async def test_ends_later_what_a_killed_one_left(api, vault, login) -> None:
    transport = CrashingTransport(Peer(vault.address), 2, after=True)
    with pytest.raises(Crash):
        await rotate_secret_id(VaultApi(transport), vault.root_token, login)
    await transport.close()
    await rotate_secret_id(api, vault.root_token, login)
    assert len(await list_secret_ids(api, vault.root_token, login)) == 1


async def test_keeps_the_old_one_when_the_new_one_does_not_log_in(api, vault, login) -> None:
    role = "auth/approle/role/toolcrib-broker"
    vault.write(role, secret_id_bound_cidrs=["192.0.2.0/24"])
    known = len(await list_secret_ids(api, vault.root_token, login))
    with pytest.raises(VaultFault, match="does not log in from here, and was destroyed"):
        await rotate_secret_id(api, vault.root_token, login)
    vault.write(role, secret_id_bound_cidrs=[])
    assert logs_in(vault, login.file.read_text())
    assert len(await list_secret_ids(api, vault.root_token, login)) == known


async def test_keeps_the_old_one_when_the_file_cannot_be_written(api, vault, login, tmp_path) -> None:
    nowhere = BrokerLogin(login.role_id, tmp_path / "no-such-folder" / "secret_id")
    with pytest.raises(FileNotWritten, match="the new secret id was destroyed"):
        await rotate_secret_id(api, vault.root_token, nowhere)
    assert logs_in(vault, login.file.read_text())


async def test_refuses_a_role_that_vault_does_not_have(api, vault, login) -> None:
    other = BrokerLogin(login.role_id, login.file, role="nobody")
    with pytest.raises(VaultFault, match="nobody"):
        await rotate_secret_id(api, vault.root_token, other)


def test_replaces_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    replace_private_file(tmp_path / "link", Secret("new"))
    assert ((tmp_path / "real").read_text(), (tmp_path / "link").is_symlink()) == ("new\n", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_leaves_the_file_to_the_user_that_the_broker_runs_as(tmp_path: Path) -> None:
    file = tmp_path / "secret_id"
    file.write_text("old")
    os.chown(file, 65_432, 65_432)
    replace_private_file(file, Secret("new"))
    assert (file.stat().st_uid, file.stat().st_gid) == (65_432, 65_432)
