"""A server that runs as our child and cannot outlive us.

The kernel sends the child a signal when the thread that started it ends; so every child is started from one
thread that lives as long as the process. `setpriv` (util-linux) sets this up, and the uid, before it becomes
the server itself: nothing of ours runs between fork and exec.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from credentials.errors import PartUnavailable

HOST = "127.0.0.1"
"""Where development servers listen, and nowhere else."""

_starter = ThreadPoolExecutor(1, thread_name_prefix="starter")


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started.

    Attributes:
        log: Gets its stdout and stderr; only we can read it.
        death_signal: What the kernel sends it when we die.
        uid: User to become; None: ours.
        search_folders: Let it pass folders that are closed to its user, to where its program and data lie.
    """

    command: Sequence[str]
    folder: Path
    log: Path
    death_signal: signal.Signals = signal.SIGKILL
    uid: int | None = None
    search_folders: bool = False


def start(launch: Launch) -> subprocess.Popen[bytes]:
    """Start a server in the foreground, in a session of its own.

    Raises:
        PartUnavailable: `setpriv` or the program is missing.
    """
    return _starter.submit(_start, launch).result()


def run(launch: Launch) -> None:
    """Run a program to its end.

    Raises:
        PartUnavailable: It fails; the message ends with its last lines.
    """
    if start(launch).wait() != 0:
        raise PartUnavailable(f"{Path(launch.command[0]).name} failed: {read_end(launch.log)}")


def stop(process: subprocess.Popen[bytes], polite: signal.Signals, timeout_seconds: float = 5.0) -> None:
    """End a child by its pid and wait until it is gone; harder when it does not go by itself."""
    if process.poll() is None:
        process.send_signal(polite)
        try:
            process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def read_end(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else "no log"


def find_free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def attempts(timeout_seconds: float) -> Iterator[None]:
    """Yield every 20 ms until the time is up."""
    end = time.monotonic() + timeout_seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.02)


def is_root() -> bool:
    """Tell whether we may become another user."""
    return os.geteuid() == 0


def _start(launch: Launch) -> subprocess.Popen[bytes]:
    setpriv = shutil.which("setpriv", path="/usr/bin:/bin:/usr/local/bin")
    if setpriv is None:
        raise PartUnavailable("setpriv is missing: install util-linux")
    options = ["--pdeathsig", launch.death_signal.name.removeprefix("SIG")]
    if launch.uid is not None:
        options += ["--reuid", str(launch.uid), "--regid", str(launch.uid), "--clear-groups"]
    if launch.search_folders:
        options += ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
        # access(2) forgets capabilities of a user that is not root, and initdb asks it; unless told not to.
        options += ["--securebits", "+no_setuid_fixup"]
    descriptor = os.open(launch.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [setpriv, *options, "--", *launch.command],
            cwd=launch.folder,
            env=_environment(launch.folder),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


def _environment(folder: Path) -> Mapping[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C", "TZ": "UTC"}
