"""`toolcrib serve` as a real process: what it refuses to start on, what it does, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result
from grpc_health.v1 import health_pb2, health_pb2_grpc

from broker.cli import main
from broker.store.inspection import look_into
from sandboxes.docker_driver import DockerDriver
from tests.e2e import grants
from tests.e2e.stack import MISCHIEF, Crib
from tests.parts.crib import CACHE_DIR, DOWN

TOOLCRIB = Path(sys.executable).parent / "toolcrib"
READ = "mischief.v1.Mischief/Read"


def write_settings(crib: Crib, folder: Path, *changes: tuple[str, str]) -> Path:
    """Write a production's toolcrib.toml for the parts that `dev` started, with a state of its own."""
    text = (crib.stack.state_dir / "toolcrib.toml").read_text()
    made = crib.stack.state_dir
    for before, after in (
        ("development = true", "development = false"),
        ('run_dir = "run"', f'run_dir = "{folder / "run"}"'),
        ('path = "state.db"', f'path = "{folder / "state.db"}"\nepoch_seconds = 1.0'),
        *((f'"{name}"', f'"{made / name}"') for name in ("server.pem", "server.key", "ca.pem")),
        *((f'"{name}"', f'"{made / name}"') for name in ("broker.key", "role_id", "secret_id")),
        *changes,
    ):
        assert before in text
        text = text.replace(before, after)
    (folder / "toolcrib.toml").write_text(text)
    return folder / "toolcrib.toml"


class Served:
    """A `toolcrib serve` process, and command lines against it."""

    def __init__(self, crib: Crib, folder: Path) -> None:
        self.crib, self.folder = crib, folder
        self.log = folder / "stderr"
        self.config = write_settings(crib, folder)
        with self.log.open("wb") as log:
            command = [str(TOOLCRIB), "serve", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        self.address = self._wait_for(r"listening on (\S+)")

    def _wait_for(self, pattern: str) -> str:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log.read_text())
            if found:
                return found[1]
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def profile(self, name: str, role: str) -> Path:
        """Write a profile of the same person that leads here."""
        known = self.crib.profile(name, role)
        place = known.cert_path.parent / f"serve-{self.address.rpartition(':')[2]}.toml"
        if not place.exists():  # another process may be reading it
            replace(known, address=self.address).write(place)
        return place

    def run(self, *arguments: str | Path, name: str = "refund-desk", role: str = "agent") -> Result:
        environment = {"TOOLCRIB_PROFILE": str(self.profile(name, role))}
        return CliRunner().invoke(main, [str(item) for item in arguments], env=environment)

    def set_up(self) -> None:
        """Register, review, promote and grant the misbehaving tool, all by command line."""
        engine = self.crib.stack.engine.base_url
        cedar = self.folder / "mischief.cedar"
        cedar.write_text(grants.MISCHIEF)
        for person, *command in (
            (("ada", "author"), "tools", "register", MISCHIEF, "--engine", engine, "--cache", CACHE_DIR),
            (("rob", "reviewer"), "tools", "review", "mischief", "1.0.0", "--accept"),
            (("rob", "reviewer"), "tools", "promote", "mischief", "1.0.0"),
            (("rob", "reviewer"), "grants", "apply", cedar, "--yes"),
        ):
            result = self.run(*command, name=person[0], role=person[1])
            assert result.exit_code == 0, result.output

    def wait_for_state(self, state: str) -> None:
        deadline = time.monotonic() + 20
        while not json.loads(self.run("calls", "list", "--state", state, "-o", "json").stdout):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def served(crib: Crib, tmp_path: Path) -> Iterator[Served]:
    served = Served(crib, tmp_path)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.end()


def ask_health(served: Served) -> int:
    with replace(served.crib.profile("refund-desk"), address=served.address).connect() as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status


def test_leaves_no_core(served: Served):
    limits = Path(f"/proc/{served.process.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_answers_health_and_ends_when_told(served: Served, number: signal.Signals):
    assert ask_health(served) == health_pb2.HealthCheckResponse.SERVING
    assert served.end(number) == 0
    with pytest.raises(grpc.RpcError):
        ask_health(served)


def test_drains_a_running_call_and_leaves_nothing(served: Served):
    served.set_up()
    results: list[subprocess.CompletedProcess[str]] = []
    command = (
        "call",
        READ,
        '{"how": "sleep", "seconds": 2}',
        "--profile",
        served.profile("refund-desk", "agent"),
    )
    caller = threading.Thread(target=lambda: results.append(invoke(*command)))
    caller.start()
    served.wait_for_state("DISPATCHED")
    code = served.end()
    caller.join(20)
    assert (code, results[0].returncode) == (0, 0), results[0].stderr
    view = look_into(served.folder / "state.db")
    assert (view.live_epoch, view.unfinished_calls, view.owed_leases) == (0, 0, 0)
    assert find_containers(served, view.installation) == []
    assert [path for path in (served.folder / "run").rglob("*") if path.is_socket()] == []


def invoke(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own: CliRunner is for one thread."""
    command = [str(TOOLCRIB), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def find_containers(served: Served, installation: str) -> list[str]:
    async def find() -> list[str]:
        driver = DockerDriver(served.crib.stack.engine, installation, 0)
        try:
            return await driver.leftovers()
        finally:
            await driver.close()

    return served.crib.run(find())


def test_finds_and_mends_what_a_killed_broker_left(served: Served):
    served.set_up()
    command = (
        "call",
        READ,
        '{"how": "sleep", "seconds": 2}',
        "--profile",
        served.profile("refund-desk", "agent"),
    )
    caller = threading.Thread(target=lambda: invoke(*command))
    caller.start()
    served.wait_for_state("DISPATCHED")
    served.process.kill()
    served.process.wait()
    caller.join(20)
    found = wait_for_problems(served)  # not before the killed broker's epoch is over
    assert {"calls", "leases", "containers"} <= found
    again = Served(served.crib, served.folder)
    try:
        deadline = time.monotonic() + 10  # owed leases are ended behind the scenes
        while find_problems(again) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert find_problems(again) == set()
    finally:
        assert again.end() == 0


def wait_for_problems(served: Served) -> set[str]:
    deadline = time.monotonic() + 10
    while not (found := find_problems(served)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def find_problems(served: Served) -> set[str]:
    result = CliRunner().invoke(main, ["doctor", "-o", "json", "--config", str(served.config)])
    problems = {item["subject"] for item in json.loads(result.stdout) if item["level"] == "problem"}
    return problems - {f"issuer {DOWN}"}  # which never answers


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (("development = false", "development = true"), 2, "does not run what `dev` made"),
        (("[server]\n", "[server]\nlissten = 1\n"), 2, 'did you mean "listen"?'),
        (("unix://", "unix:///nowhere"), 3, "no Docker Engine answers"),
        (('role_id"', 'no_such_id"'), 2, "no_such_id: cannot be read"),
    ],
)
def test_refuses_to_start(crib: Crib, tmp_path: Path, change: tuple[str, str], code: int, said: str):
    config = write_settings(crib, tmp_path, change)
    done = invoke("serve", "--config", config)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_refuses_a_state_that_another_broker_has(served: Served):
    done = invoke("serve", "--config", served.config)
    assert done.returncode == 3
    assert "another broker has it" in done.stderr
