"""Development without Docker, on real OpenBao and PostgreSQL: bubblewrap runs it, and no engine is asked."""

from __future__ import annotations

import json
import re
import shutil
import socket
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from broker.dev import DevOptions
from broker.model import CallRecord
from sandboxes.cgroups import find_cgroups
from sandboxes.folders import Folders
from tests.e2e import grants
from tests.e2e.stack import ROOT, SHOP, Crib, CribThread
from tests.e2e.test_dev import Dev
from tests.e2e.test_reasons import register, review
from tests.parts import without
from tests.parts.crib import CACHE_DIR, wait_until_clean
from toolcrib.v1 import registry_pb2
from tools.source import compile_bundle

LOOKUP, REFUND = "shop.v1.Orders/LookupOrder", "shop.v1.Orders/IssueRefund"
DEMO_GRANTS = ROOT / "deploy" / "demo" / "grants"
COLD = "[sandboxes.pool]\nmax_idle = 0\n"  # so that no sandbox of the pool is taken for a leftover


class Door:
    """The socket that DOCKER_HOST names; nobody answers there, and who came is known."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/docker.sock"
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / "docker.sock"))
        self._listening.listen()
        self._listening.setblocking(False)

    def was_knocked_at(self) -> bool:
        try:
            self._listening.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._listening.close()


@pytest.fixture(scope="module")
def door(bubblewrap_folders: Folders) -> Iterator[Door]:
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    with tempfile.TemporaryDirectory(prefix="tc-") as name, pytest.MonkeyPatch.context() as patch:
        door = Door(Path(name))
        patch.setenv("DOCKER_HOST", door.url)
        yield door
        door.close()


@pytest.fixture(scope="module")
def running(door: Door, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crib]:
    options = DevOptions(tenants=("shop",), without_docker=True, settings_extra=COLD)
    with CribThread(tmp_path_factory.mktemp("bare") / "state", CACHE_DIR, options) as crib:
        yield crib


@pytest.fixture
def crib(running: Crib, door: Door) -> Iterator[Crib]:
    """A Toolcrib without Docker and grants; afterwards nothing is left, and no engine was asked."""
    running.grant("")
    running.rest()
    yield running
    assert wait_until_clean(running) == {}
    assert not door.was_knocked_at()


def last_call(crib: Crib) -> CallRecord:
    return crib.run(crib.stack.broker.store.list_calls("shop", page_size=1)).items[0]


def count_refunds(crib: Crib) -> int:
    return int(crib.stack.postgres.query("SELECT count(*) FROM refunds")[0][0])


def register_by_command(crib: Crib, folder: Path, *where: str | Path) -> Result:
    profile = crib.profile("ada", "author").cert_path.parent
    command = ["tools", "register", folder, "--cache", CACHE_DIR, "--profile", profile, "-o", "json", *where]
    return CliRunner().invoke(main, [str(word) for word in command])


def test_reads_an_order_with_a_login_of_its_own_in_a_bubblewrap(crib: Crib):
    crib.grant(grants.READ)
    with crib.caller() as agent:
        reply = agent.call(LOOKUP, {"order_id": "A-1042"})
    assert reply.result["order"]["orderId"] == "A-1042", reply
    call = last_call(crib)
    assert [lease.credential for lease in call.leases] == ["orders_read"]
    assert [sandbox.container_id.startswith("bwrap-") for sandbox in call.sandboxes] == [True]


def test_a_write_takes_effect_once(crib: Crib):
    crib.grant(grants.REFUND)
    before, key = count_refunds(crib), uuid.uuid4().hex
    request = {"order_id": "A-1042", "amount": {"minor_units": 500, "currency": "EUR"}}
    with crib.caller() as agent:
        first, second = (agent.call(REFUND, request, key=key) for _ in range(2))
    assert (first.code, second.code) == ("OK", "OK"), first
    assert (first.replayed, second.replayed) == (False, True)
    assert count_refunds(crib) == before + 1


def test_a_version_whose_image_is_not_there_is_unavailable(crib: Crib):
    crib.grant(grants.READ)
    source = compile_bundle(SHOP)
    text = source.manifest_yaml.replace("version: 1.0.0", "version: 1.6.0")
    review(crib, register(crib, source.descriptor_set, text).result["response"].version, "rob")
    with crib.caller() as agent:
        reply = agent.call(LOOKUP, {"order_id": "A-1042"}, version="1.6.0")
    assert (reply.reason, "build it again" in reply.message) == ("SANDBOX_UNAVAILABLE", True), reply


@pytest.mark.parametrize(("number", "option"), [("1.7.0", "--config"), ("1.8.0", "--image-dir")])
def test_a_version_that_was_built_for_it_runs(crib: Crib, tmp_path: Path, number: str, option: str):
    crib.grant(grants.READ)
    folder = shutil.copytree(SHOP, tmp_path / "shop")
    (folder / "tool.yaml").write_text(SHOP.joinpath("tool.yaml").read_text().replace("1.0.0", number, 1))
    where = crib.stack.state_dir / "toolcrib.toml" if option == "--config" else CACHE_DIR
    result = register_by_command(crib, folder, option, where)
    assert result.exit_code == 0, result.output
    digest = json.loads(result.stdout)["digest"]
    review(crib, registry_pb2.Version(bundle="shop", version=number, digest=digest), "rob")
    with crib.caller() as agent:
        assert agent.call(LOOKUP, {"order_id": "A-1042"}, version=number).code == "OK"


def test_the_command_wants_one_place_for_the_image(crib: Crib):
    result = register_by_command(crib, SHOP, "--image-dir", CACHE_DIR, "--engine", "unix:///nowhere")
    assert (result.exit_code, "say one of them" in result.output) == (2, True)


def test_the_command_says_that_no_driver_serves_the_class(crib: Crib, tmp_path: Path):
    config = (crib.stack.state_dir / "toolcrib.toml").read_text()
    other = crib.stack.state_dir / "strong.toml"
    other.write_text(config.replace('container = "bubblewrap"', 'strong = "docker-runsc"'))
    result = register_by_command(crib, SHOP, "--config", other)
    assert (result.exit_code, "no driver serves the class" in result.output) == (3, True)


@pytest.fixture
def dev(door: Door, tmp_path: Path) -> Iterator[Dev]:
    (tmp_path / "cache").symlink_to(CACHE_DIR)
    dev = Dev(tmp_path, "--without-docker")
    yield dev
    if dev.process.poll() is None:
        dev.end()


def run_as(dev: Dev, client: str, *words: str) -> Result:
    profile = dev.state_dir / "clients" / f"shop-{client}"
    return CliRunner().invoke(main, [*words, "--profile", str(profile)])


def find_installation(dev: Dev) -> str:
    with closing(sqlite3.connect(f"file:{dev.state_dir}/state.db?mode=ro", uri=True)) as connection:
        return str(connection.execute("SELECT id FROM installation").fetchone()[0])


def test_the_command_starts_it_says_that_it_is_weaker_and_takes_everything_away(dev: Dev, door: Door):
    dev.wait_for("Ctrl-C")
    assert len(re.findall(r"WARNING: without Docker, [\w ,]+\. They are WEAKER", dev.said.read_text())) == 2
    call = ["call", LOOKUP, json.dumps({"order_id": "A-1042"})]
    assert "NOT_GRANTED" in run_as(dev, "agent-refund-desk", *call).output  # default deny, here as well
    assert run_as(dev, "reviewer-rob", "grants", "apply", str(DEMO_GRANTS), "--yes").exit_code == 0
    answers = [run_as(dev, "agent-refund-desk", *call) for _ in range(3)]  # cold, then warm
    assert [answer.exit_code for answer in answers] == [0, 0, 0], answers[0].output
    installation = find_installation(dev)
    assert (dev.end(), dev.left_processes(), find_cgroups().find(installation)) == (0, [], [])
    assert not door.was_knocked_at()


def test_an_engine_and_none_are_not_wanted_at_once():
    result = CliRunner().invoke(main, ["dev", "--without-docker", "--engine", "unix:///nowhere"])
    assert (result.exit_code, "say one of them" in result.output) == (2, True)
