"""A process that has a session as the broker has it, with its supervisor, and may be killed. For tests only.

It reads one line of JSON, opens the session, mints, says what it has, and waits. When its stdin ends it
closes the session in order.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from credentials.dev_vault import DevVault
from credentials.logins import AppRole
from credentials.secret import Secret
from credentials.supervisor.keeper import Supervisor
from credentials.vault import CallTag, CredentialWanted, SessionTuning, VaultSession

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Orders:
    """What it is to do.

    Attributes:
        mints: How many leases it has.
        forks: It has a child that inherits everything that it has open, and does nothing.
    """

    renew_seconds: float = 0.3
    timeout_seconds: float = 1.0
    mints: int = 0
    role: str = "notes-read"
    forks: bool = False


class LoneBroker:
    """The process as a test sees it.

    Attributes:
        supervisor: The process id of its supervisor.
        logins: User name and password of each lease.
    """

    def __init__(self, process: subprocess.Popen[str], said: dict[str, Any]) -> None:
        self._process = process
        self.supervisor: int = said["supervisor"]
        self.child: int = said["child"]
        self.logins: list[tuple[str, str]] = [(name, password) for name, password in said["logins"]]

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def close(self) -> int:
        """Let it close its session in order."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(20)


@contextmanager
def start_lone_broker(vault: DevVault, orders: Orders = Orders()) -> Iterator[LoneBroker]:
    """Start one; what is left of it is killed at the end."""
    command = [sys.executable, "-P", "-m", "tests.credentials.lone_broker"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=environment, start_new_session=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        login = {"role_id": vault.role_id.reveal(), "secret_id": vault.secret_id.reveal()}
        process.stdin.write(json.dumps({"address": vault.address, **login, **asdict(orders)}) + "\n")
        process.stdin.flush()
        broker = LoneBroker(process, json.loads(process.stdout.readline()))
        try:
            yield broker
        finally:
            process.kill()
            for pid in (broker.child, broker.supervisor):
                if pid:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


async def run(told: dict[str, Any]) -> None:
    """Do what was ordered, until stdin ends."""
    tuning = SessionTuning(
        timeout_seconds=told["timeout_seconds"],
        keeper=lambda api: Supervisor(api, told["renew_seconds"]),
    )
    login = AppRole(Secret(told["role_id"]), Secret(told["secret_id"]))
    session = VaultSession(told["address"], login, tuning)
    await session.open()
    keeper = session._session._keeper
    assert isinstance(keeper, Supervisor)
    wanted = [CredentialWanted("notes", "database", told["role"])]
    minted = await asyncio.gather(
        *(
            session.mint(CallTag(f"call-{n}", "acme", "dev", "5e3c"), wanted, 600)
            for n in range(told["mints"])
        )
    )
    logins = [(lease.username, lease.secrets[0].reveal()) for [lease] in minted]
    child = _fork() if told["forks"] else 0
    print(json.dumps({"supervisor": keeper.pid, "child": child, "logins": logins}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await session.close()


def _fork() -> int:
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    return child


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.stdin.readline())))
