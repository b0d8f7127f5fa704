"""The Docker Engine that runs the sandboxes: one that answers, or one of our own.

`find_engine` takes the engine at a given address or at the usual socket. Where there is none and we may start
one (root, `dockerd` installed), it starts a private engine without any network: its images stay in a state
folder, everything else is in the run folder and goes away with `stop`. It has the runtime `runsc` where that
program is installed.

    EngineMissing        no engine, and none can be started; says what to install
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests

from sandboxes.engine_socket import EngineAdapter
from sandboxes.outcome import EngineUnfit, SandboxError
from sandboxes.processes import end_process, is_program, kill_processes
from sandboxes.runsc import RUNTIME, find_runsc

DEFAULT_URL = "unix:///var/run/docker.sock"
TIMEOUT_SECONDS = 10.0
START_SECONDS = 40.0
POOL_SIZE = 24

API_VERSION = "1.41"  # Docker Engine 20.10
_MAX_SOCKET_PATH = 107  # bytes in sockaddr_un.sun_path, less the final zero
_SHIM = "containerd-shim-runc-v2"
_REMEDY = "install it (Debian: apt-get install docker.io) and start it, or run as root"

logger = logging.getLogger(__name__)


class EngineMissing(SandboxError):
    """There is no Docker Engine to be had."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says about itself.

    Attributes:
        runtimes: Their names, "runc" and perhaps "runsc" among them.
        cgroup_driver: "cgroupfs" or "systemd": who makes the control groups.
        user_namespaces: Whether root in a container is another user outside (userns-remap).
        problems: What it lacks for our hardening, each with the remedy; empty when it is fit.
    """

    version: str
    api_version: str
    runtimes: tuple[str, ...]
    default_runtime: str
    cgroup_version: str
    cgroup_driver: str
    user_namespaces: bool
    architecture: str
    problems: tuple[str, ...]

    def describe(self) -> str:
        """One line for people."""
        return f"Docker Engine {self.version} ({self.default_runtime})"


class Engine:
    """One Docker Engine, reached over its unix socket. Thread-safe; every call has a time limit."""

    def __init__(self, base_url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Name an engine; nothing is sent yet.

        Args:
            base_url: "unix:///path/of/docker.sock".
            timeout_seconds: The most that one call may take.

        Raises:
            EngineMissing: The address is no unix socket: an engine elsewhere would not see our sockets.
        """
        if not base_url.startswith("unix://"):
            raise EngineMissing(f"engine.url {base_url!r}: name the engine's unix socket, unix://…")
        self.base_url, self.timeout_seconds = base_url, timeout_seconds
        self.socket_path = Path("/" + base_url.removeprefix("unix://").lstrip("/"))
        self.client = docker.APIClient(f"unix://{self.socket_path}", API_VERSION, timeout_seconds)
        self.client.mount("http+docker://", EngineAdapter(self.socket_path, timeout_seconds, POOL_SIZE))

    def info(self) -> EngineInfo:
        """Ask the engine what it is.

        Raises:
            EngineMissing: It does not answer.
        """
        try:
            version, info = self.client.version(api_version=False), self.client.info()
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise EngineMissing(f"no Docker Engine answers at {self.base_url}: {_REMEDY}") from error
        return EngineInfo(
            version=version["Version"],
            api_version=version["ApiVersion"],
            runtimes=tuple(sorted(info.get("Runtimes", {}))),
            default_runtime=info.get("DefaultRuntime", "?"),
            cgroup_version=str(info.get("CgroupVersion", "1")),
            cgroup_driver=str(info.get("CgroupDriver", "?")),
            user_namespaces=_has_option(info, "userns"),
            architecture=info.get("Architecture", "?"),
            problems=tuple(_find_problems(version, info)),
        )

    def check(self) -> EngineInfo:
        """Make sure that the engine can keep our promises.

        Raises:
            EngineMissing: It does not answer.
            EngineUnfit: It lacks something; the message says what and how to mend it.
        """
        info = self.info()
        if info.problems:
            raise EngineUnfit("; ".join(info.problems))
        return info

    def answers(self) -> bool:
        """Tell whether the engine is there."""
        if not self.socket_path.exists():
            return False
        try:
            return bool(self.client.ping())
        except (docker.errors.DockerException, requests.RequestException):
            return False

    def close(self) -> None:
        """Let go of the connections; the engine goes on."""
        self.client.close()

    def stop(self) -> None:
        """Let go of an engine that others run; a private one ends here."""
        self.close()


class PrivateEngine(Engine):
    """An engine that we started, and its containerd."""

    def __init__(self, folders: Folders, process: subprocess.Popen[bytes], lock: int) -> None:
        super().__init__(f"unix://{folders.socket}")
        self._folders, self._process, self._lock = folders, process, lock

    def stop(self) -> None:
        """End the engine with every process that it started, and clear its run folder."""
        self.close()
        containerd = _read_pid(self._folders.containerd_pid_file)
        _end_child(self._process)
        if containerd is not None and is_program(containerd, "containerd"):
            end_process(containerd)
        _end_shims(self._folders)
        _unmount(self._folders)
        _remove_run_files(self._folders)
        os.close(self._lock)


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a private engine keeps its things."""

    run: Path
    state: Path

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.run / "docker.sock"

    @property
    def execution(self) -> Path:
        """Run-time state of its containers."""
        return self.run / "exec"

    @property
    def containerd_pid_file(self) -> Path:
        """Process id of the containerd that it manages."""
        return self.execution / "containerd" / "containerd.pid"

    @property
    def pid_file(self) -> Path:
        """Process id of the engine; in the state folder, so that the next start finds a stray one."""
        return self.state / "dockerd.pid"

    @property
    def configuration(self) -> Path:
        """Its daemon.json; an operator's own in /etc is not ours to read."""
        return self.run / "daemon.json"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.state / "dockerd.log"


def find_engine(run_dir: Path, base_url: str | None, cache_dir: Path | None = None) -> Engine:
    """Find an engine that answers, or start a private one.

    Args:
        run_dir: For the socket of a private engine; a short path.
        base_url: Where to look; None for the usual socket. A given address is never replaced by another.
        cache_dir: For a private engine's images, in "engine" under it; by default beside run_dir.

    Raises:
        EngineMissing: There is none and none can be started; the message says what to do.
    """
    engine = Engine(base_url or DEFAULT_URL)
    if engine.answers():
        return engine
    engine.close()
    if base_url is not None and base_url != DEFAULT_URL:
        raise EngineMissing(f"no Docker Engine answers at {base_url}: start it, or correct engine.url")
    return start_engine(Folders(run_dir, (cache_dir or run_dir.parent) / "engine"))


def start_engine(folders: Folders, runsc: Mapping[str, Any] | None = None) -> PrivateEngine:
    """Start a private engine.

    Args:
        folders: Where it keeps its things.
        runsc: How daemon.json describes that runtime; None for what is installed here.

    Raises:
        EngineMissing: It is not installed, we are not root, another process uses the folders, or it ended.
    """
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        raise EngineMissing(f"no Docker Engine answers and `dockerd` cannot be started: {_REMEDY}")
    if len(str(folders.socket)) > _MAX_SOCKET_PATH:
        raise EngineMissing(f"{folders.socket}: too long for a unix socket; choose a shorter run_dir")
    for folder in (folders.run, folders.state):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = _lock(folders)
    try:
        _end_stray(folders)
        process = _spawn(folders, runsc or find_runsc())
    except BaseException:
        os.close(lock)
        raise
    engine = PrivateEngine(folders, process, lock)
    try:
        _wait_for(engine, process, folders)
    except BaseException:
        engine.stop()
        raise
    return engine


def _find_problems(version: dict[str, Any], info: dict[str, Any]) -> list[str]:
    remedies = {
        "MemoryLimit": "memory limits: enable the memory cgroup controller",
        "PidsLimit": "process limits: enable the pids cgroup controller",
        "CpuCfsQuota": "cpu limits: enable CONFIG_CFS_BANDWIDTH",
    }
    problems = [f"the engine has no {text}" for key, text in remedies.items() if not info.get(key)]
    if not _has_option(info, "seccomp"):
        problems.append("the engine has no seccomp: install an engine and kernel with CONFIG_SECCOMP_FILTER")
    if _numbers(version["ApiVersion"]) < _numbers(API_VERSION):
        problems.append(f"the engine is too old ({version['Version']}): install 20.10 or newer")
    return problems


def _has_option(info: dict[str, Any], name: str) -> bool:
    """Tell whether a security option is on: the engine says "name=seccomp,profile=…"."""
    options = info.get("SecurityOptions") or ()
    return any(f"name={name}" in str(option).split(",") for option in options)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _lock(folders: Folders) -> int:
    lock = os.open(folders.state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        message = f"{folders.state}: another process runs its engine there; stop it or choose another folder"
        raise EngineMissing(message) from error
    return lock


def _spawn(folders: Folders, runsc: Mapping[str, Any] | None) -> subprocess.Popen[bytes]:
    folders.configuration.write_text(json.dumps({"runtimes": {RUNTIME: runsc}} if runsc else {}))
    command = [
        "dockerd",
        f"--config-file={folders.configuration}",
        f"--host=unix://{folders.socket}",
        f"--data-root={folders.state / 'data'}",
        f"--exec-root={folders.execution}",
        f"--pidfile={folders.pid_file}",
        # No network for any container, and no change to the host's.
        *("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
        *("--userland-proxy=false", "--no-new-privileges", "--log-level=warn"),
    ]
    with folders.log.open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _wait_for(engine: PrivateEngine, process: subprocess.Popen[bytes], folders: Folders) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if engine.answers():
            return
        time.sleep(0.05)
    last_words = folders.log.read_text(errors="replace")[-600:].strip()
    raise EngineMissing(f"`dockerd` does not start ({folders.log}); its last words: {last_words}")


def _end_stray(folders: Folders) -> None:
    """End an engine of ours whose starter died; the lock says that nobody uses it."""
    pid = _read_pid(folders.pid_file)
    if pid is None or not is_program(pid, "dockerd", str(folders.state / "data")):
        folders.pid_file.unlink(missing_ok=True)
        return
    logger.warning("ending the engine that an earlier run left behind (pid %d)", pid)
    end_process(pid)
    folders.pid_file.unlink(missing_ok=True)


def _end_shims(folders: Folders) -> None:
    """End the containers of an engine that was killed, and what holds them: nobody will talk to it again."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and is_program(int(entry.name), _SHIM, str(folders.execution)):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "-id" in words:
                kill_processes(words[words.index("-id") + 1])
            end_process(int(entry.name))


def _unmount(folders: Folders) -> None:
    """Take away the mounts of an engine that could not do it itself, the innermost first."""
    ours = (f"{folders.state / 'data'}", f"{folders.execution}/")
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed([place for place in places if place.startswith(ours)]):
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


def _read_pid(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _end_child(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _remove_run_files(folders: Folders) -> None:
    """Remove what the engine left in the run folder; it unmounts on its own end."""
    folders.pid_file.unlink(missing_ok=True)
    folders.socket.unlink(missing_ok=True)
    folders.configuration.unlink(missing_ok=True)
    shutil.rmtree(folders.execution, ignore_errors=True)
    with contextlib.suppress(OSError):
        folders.run.rmdir()
