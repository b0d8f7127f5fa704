"""The supervisor keeps the session alive while the broker lives, and ends it at once when the broker dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from credentials.errors import CredentialsUnavailable
from credentials.supervisor.confinement import UNPRIVILEGED_UID
from credentials.supervisor.keeper import Supervisor
from credentials.vault import SessionTuning, VaultSession
from tests.credentials.conftest import TAG, wanted
from tests.credentials.lone_broker import Orders, start_lone_broker

PERIOD_SECONDS = 3  # of own_vault's sessions
KILLED_ENDS_SECONDS = 1.0
OUR_STDERR = str(Path("/proc/self/fd/2").readlink()).split(":")[0]


class Kept:
    """A session with a supervisor, and what was told of them."""

    def __init__(self, address: str, login, **tuning) -> None:
        self.keeper: Supervisor
        self.died: list[str] = []
        self.lost = 0
        made = SessionTuning(timeout_seconds=1.0, keeper=self._make, on_lost=self._lose, **tuning)
        self.session = VaultSession(address, login, made)

    def _make(self, api) -> Supervisor:
        self.keeper = Supervisor(api, 0.3, self.died.append)
        return self.keeper

    def _lose(self) -> None:
        self.lost += 1

    @property
    def pid(self) -> int:
        assert self.keeper.pid is not None
        return self.keeper.pid


@pytest.fixture
async def kept(own_vault) -> AsyncIterator[Kept]:
    """A session at the test's own Vault."""
    made = Kept(own_vault.address, own_vault.login)
    await made.session.open()
    yield made
    await made.session.close()


async def test_keeps_the_session_longer_than_its_period(kept, own_vault) -> None:
    [lease] = await kept.session.mint(TAG, wanted(), 60)
    await asyncio.sleep(PERIOD_SECONDS + 1)
    assert own_vault.list_leases() == [lease.lease_id]
    assert (kept.lost, kept.died) == (0, [])


async def test_ends_the_session_when_the_broker_is_killed(own_vault, notes) -> None:
    with start_lone_broker(own_vault, Orders(mints=3)) as broker:
        assert (own_vault.count_sessions(), own_vault.count_leases()) == (1, 3)
        broker.kill()
        await _wait_for(lambda: own_vault.count_sessions() == 0, KILLED_ENDS_SECONDS)
        await _wait_for(lambda: own_vault.count_leases() == notes.count_v_roles() == 0)
        await _wait_for(lambda: not _is_alive(broker.supervisor))


async def test_ends_the_session_when_a_child_of_the_killed_broker_keeps_its_socket_open(own_vault) -> None:
    with start_lone_broker(own_vault, Orders(forks=True)) as broker:
        broker.kill()
        await _wait_for(lambda: own_vault.count_sessions() == 0, KILLED_ENDS_SECONDS)
        assert _is_alive(broker.child)


async def test_ends_the_session_of_a_broker_that_was_stopped_and_then_killed(own_vault) -> None:
    with start_lone_broker(own_vault) as broker:
        broker.signal(signal.SIGSTOP)
        broker.kill()
        await _wait_for(lambda: own_vault.count_sessions() == 0, KILLED_ENDS_SECONDS)


async def test_keeps_the_session_of_a_broker_that_is_stopped_and_wakes(own_vault) -> None:
    with start_lone_broker(own_vault) as broker:
        broker.signal(signal.SIGSTOP)
        await asyncio.sleep(PERIOD_SECONDS + 1)
        assert own_vault.count_sessions() == 1
        broker.signal(signal.SIGCONT)
        assert broker.close() == 0
        assert own_vault.count_sessions() == 0


async def test_leaves_it_to_the_period_when_both_are_killed(own_vault, notes) -> None:
    with start_lone_broker(own_vault, Orders(mints=1)) as broker:
        os.kill(broker.supervisor, signal.SIGSTOP)  # or it would be replaced
        broker.kill()
        os.kill(broker.supervisor, signal.SIGKILL)
        assert own_vault.count_sessions() == 1
        await _wait_for(lambda: own_vault.count_sessions() == 0, PERIOD_SECONDS + 2)
        await _wait_for(lambda: own_vault.count_leases() == notes.count_v_roles() == 0)


async def test_is_gone_when_the_session_was_closed(own_vault) -> None:
    with start_lone_broker(own_vault) as broker:
        assert broker.close() == 0
        assert (own_vault.count_sessions(), _is_alive(broker.supervisor)) == (0, False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
async def test_is_deaf_to_what_is_sent_to_everybody(kept, number) -> None:
    pid = kept.pid
    os.kill(pid, number)
    await asyncio.sleep(0.2)
    assert (kept.pid, kept.died) == (pid, [])


async def test_is_not_of_the_brokers_process_group(kept) -> None:
    assert os.getpgid(kept.pid) == os.getsid(kept.pid) == kept.pid != os.getpgid(0)


async def test_holds_nothing_but_its_socket_and_the_token(kept) -> None:
    folder = Path(f"/proc/{kept.pid}")
    opened = {entry.name: str(entry.readlink()).split(":")[0] for entry in (folder / "fd").iterdir()}
    assert (opened.pop("0"), opened.pop("1"), opened.pop("2")) == ("socket", "/dev/null", OUR_STDERR)
    assert list(opened.values()) == ["anon_inode"]  # the pidfd
    assert (folder / "environ").read_bytes() == b""
    assert kept.session._session.token.reveal() not in (folder / "cmdline").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
async def test_has_no_right_and_cannot_be_read_by_its_user(kept) -> None:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{kept.pid}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == {str(UNPRIVILEGED_UID)} and not status["Groups"].strip()
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert Path(f"/proc/{kept.pid}/mem").stat().st_uid == 0  # not dumpable
    assert "0                    0" in _limit(kept.pid, "Max core file size")


def test_needs_the_standard_library_only() -> None:
    code = "import credentials.supervisor.__main__, sys; print(*sys.modules)"
    command = [sys.executable, "-P", "-c", code]
    loaded = {name.split(".")[0] for name in subprocess.check_output(command, cwd="/", text=True).split()}
    foreign = {
        "aiohttp",
        "asyncio",
        "hvac",
        "pydantic",
        "requests",
        "urllib3",
        "broker",
        "sandboxes",
        "tools",
    }
    assert loaded & foreign == set()


async def test_is_replaced_when_it_dies_and_the_session_lives(kept, own_vault) -> None:
    [lease] = await kept.session.mint(TAG, wanted(), 60)
    first = kept.pid
    os.kill(first, signal.SIGKILL)
    await _wait_for(lambda: kept.keeper.pid not in (None, first))
    await asyncio.sleep(PERIOD_SECONDS + 1)
    assert own_vault.list_leases() == [lease.lease_id]
    assert (kept.lost, kept.died, kept.keeper.restarts) == (0, ["it died"], 1)


async def test_is_replaced_when_it_lives_and_does_nothing(own_vault) -> None:
    kept = Kept(own_vault.address, own_vault.login)
    await kept.session.open()
    first = kept.pid
    os.kill(first, signal.SIGSTOP)
    await _wait_for(lambda: kept.keeper.pid not in (None, first), 20)
    assert not _is_alive(first)
    await kept.session.close()


async def test_tells_at_once_that_the_session_is_lost(kept, own_vault) -> None:
    _end_sessions(own_vault)
    kept.session._session.look()
    await _wait_for(lambda: kept.lost == 1, 1.0)


async def test_tells_within_a_beat_that_the_session_is_lost(kept, own_vault) -> None:
    _end_sessions(own_vault)
    await _wait_for(lambda: kept.lost == 1, 1.0)


async def test_keeps_the_session_that_follows_a_lost_one(kept, own_vault) -> None:
    pid = kept.pid
    _end_sessions(own_vault)
    await _wait_for(lambda: kept.lost == 1 and kept.session.is_open)
    await asyncio.sleep(PERIOD_SECONDS + 1)
    assert (own_vault.count_sessions(), kept.lost, kept.pid) == (1, 1, pid)


async def test_ends_the_session_when_vault_stalls_as_the_broker_dies(own_vault) -> None:
    with start_lone_broker(own_vault) as broker:
        os.kill(own_vault.pid, signal.SIGSTOP)
        await asyncio.sleep(0.5)  # a renewal is under way
        broker.kill()
        await asyncio.sleep(1)
        os.kill(own_vault.pid, signal.SIGCONT)
        await _wait_for(lambda: own_vault.count_sessions() == 0, 2.0)


async def test_ends_the_session_when_vault_was_sealed_as_it_was_closed(own_vault) -> None:
    kept = Kept(own_vault.address, own_vault.login)
    await kept.session.open()
    pid = kept.pid
    own_vault.seal()
    await kept.session.close()
    own_vault.unseal()
    await _wait_for(lambda: own_vault.count_sessions() == 0, 2.0)
    await _wait_for(lambda: not _is_alive(pid))


async def test_ends_itself_when_vault_is_gone_for_good(own_vault) -> None:
    with start_lone_broker(own_vault) as broker:
        own_vault.stop()
        broker.kill()
        await _wait_for(lambda: not _is_alive(broker.supervisor), PERIOD_SECONDS + 3)


async def test_lets_no_session_be_opened_that_it_cannot_keep(own_vault, monkeypatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    kept = Kept(own_vault.address, own_vault.login)
    with pytest.raises(CredentialsUnavailable, match="the supervisor of the session does not start"):
        await kept.session.open()
    assert own_vault.count_sessions() == 0
    await kept.session.close()


async def test_lets_no_session_be_opened_at_a_vault_that_it_would_not_know(own_vault, tmp_path) -> None:
    kept = Kept(own_vault.address.replace("http:", "https:"), own_vault.login, ca_file=tmp_path / "none.pem")
    with pytest.raises((CredentialsUnavailable, OSError)):
        await kept.session.open()
    await kept.session.close()


def _limit(pid: int, name: str) -> str:
    return next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if name in line)


def _end_sessions(vault) -> None:
    for token in vault.list_tokens():
        if "toolcrib-broker" in token["policies"]:
            vault.write("auth/token/revoke-accessor", accessor=token["accessor"])


def _is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def _wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    late = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < late, "it did not come"
        await asyncio.sleep(0.02)
