"""`toolcrib images`: builds, lists, verifies, prunes; removes nothing when it cannot know what is used."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from broker.image_uses import read_image_uses
from broker.store.options import StoreOptions
from broker.store.records import StoreError
from broker.store.sqlite import open_store
from sandboxes.engine import Engine, Folders, start_engine
from sandboxes.hardening import LABEL_INSTALLATION
from sandboxes.images import build_base, build_bundle
from tests.broker.test_doctor import CONFIG
from tests.contracts.stores import make_event, make_version
from tests.parts.engine import STATE

SHOP = Path(__file__).parents[3] / "tools" / "bundles" / "shop"
CACHE = str(STATE / "cache")


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["images", *map(str, words)])


def test_asks_what_to_build() -> None:
    said = run("build")
    assert (said.exit_code, "--base" in said.stderr) == (2, True)


def test_prunes_nothing_when_it_cannot_know_what_is_used() -> None:
    said = run("prune", "--apply")
    assert said.exit_code == 2
    assert "cannot be known" in said.stderr and "--config" in said.stderr


def test_prunes_nothing_when_the_state_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "toolcrib.toml").write_text(CONFIG)
    said = run("prune", "--apply", "--config", tmp_path / "toolcrib.toml")
    assert (said.exit_code, said.stdout) == (3, "")
    assert "cannot be known" in said.stderr


def test_says_which_file_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("no database")
    with pytest.raises(StoreError, match="cannot be read"):
        read_image_uses(tmp_path / "state.db")


# --- on the engine ------------------------------------------------------------------------------------------
@pytest.fixture
def url(engine: Engine, base_image: str) -> str:
    return engine.base_url


@pytest.mark.engine
def test_builds_a_bundle_and_verifies_it_against_a_fresh_build(url: str) -> None:
    built = run("build", SHOP, "--engine", url, "--cache", CACHE, "-o", "json")
    assert json.loads(built.stdout)["image"].startswith("sha256:")
    said = run("verify", SHOP, "--engine", url, "--cache", CACHE, "-o", "json")
    assert [row["problems"] for row in json.loads(said.stdout)] == [[]]


@pytest.mark.engine
def test_builds_the_base(url: str, base_image: str) -> None:
    built = run("build", "--base", "--engine", url, "--cache", CACHE, "-o", "json")
    assert json.loads(built.stdout)["image"] == base_image


@pytest.mark.engine
def test_lists_images_without_a_broker(url: str, base_image: str) -> None:
    rows = {row["image"]: row for row in json.loads(run("list", "--engine", url, "-o", "json").stdout)}
    assert (rows[base_image]["kind"], rows[base_image]["used"]) == ("base", "unknown")


@pytest.mark.engine
def test_finds_a_moved_name(engine: Engine, url: str, base_image: str) -> None:
    name = f"toolcrib/bundle-moved-{uuid.uuid4().hex[:8]}"
    engine.client.tag(base_image, name, "0123456789abcdef")
    try:
        said = run("verify", f"{name}:0123456789abcdef", "--engine", url)
    finally:
        engine.client.remove_image(f"{name}:0123456789abcdef", noprune=True)
    assert (said.exit_code, "was moved" in said.stderr) == (3, True)


# --- an installation with an engine of its own --------------------------------------------------------------
@dataclass
class Crib:
    """An engine with a base and two bundles, of which one is registered."""

    engine: Engine
    config: Path
    base: str
    used: str
    unused: str

    def prune(self, *words: str) -> Result:
        """Prune what is older than nothing."""
        return run("prune", "--config", self.config, "--older-than", "0", *words)

    def images(self) -> set[str]:
        """Ids of what is there."""
        return {item["Id"] for item in self.engine.client.images()}


@pytest.fixture(scope="module")
def private_engine(engine: Engine) -> Iterator[Engine]:
    """An engine that nobody else has: `engine` says whether there may be one at all."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.fail("these tests start an engine of their own: run them as root, with dockerd installed")
    with tempfile.TemporaryDirectory(prefix="tc-") as name:
        private = start_engine(Folders(Path(name) / "run", Path(name) / "state"))
        try:
            yield private
        finally:
            private.stop()


@pytest.fixture
def crib(private_engine: Engine, tmp_path: Path) -> Crib:
    base = build_base(private_engine, STATE / "cache")
    used, unused = (
        build_bundle(private_engine, base, name, {"handler.py": b""}) for name in ("used", "unused")
    )
    asyncio.run(register(tmp_path / "state.db", used))
    config = tmp_path / "toolcrib.toml"
    config.write_text(CONFIG.replace("unix:///nowhere/docker.sock", private_engine.base_url))
    return Crib(private_engine, config, base, used, unused)


async def register(state: Path, image_id: str) -> None:
    store = await open_store(state, StoreOptions(b"k" * 32, "k"))
    await store.put_version(make_version(tenant="shop", image_id=image_id), make_event("shop"))
    await store.put_version(
        make_version("2.0.0", tenant="rival", image_id=image_id, state="REJECTED"), make_event("rival")
    )
    await store.close()


@pytest.mark.engine
def test_makes_the_same_base_on_every_engine(crib: Crib, base_image: str) -> None:
    assert crib.base == base_image


@pytest.mark.engine
def test_says_what_uses_an_image(crib: Crib) -> None:
    rows = json.loads(run("list", "--config", crib.config, "-o", "json").stdout)
    used = {row["image"]: row["used"] for row in rows}
    assert used[crib.used].startswith("shop/") and "rival" not in used[crib.used]
    assert used[crib.unused] == "no"


@pytest.mark.engine
def test_plans_before_it_removes(crib: Crib) -> None:
    said = crib.prune("-o", "json")
    fates = {row["image"]: row["fate"] for row in json.loads(said.stdout)}
    assert fates[crib.unused] == "would be removed" and "used by shop/" in fates[crib.used]
    assert {crib.base, crib.used, crib.unused} <= crib.images()


@pytest.mark.engine
def test_removes_what_no_version_uses(crib: Crib) -> None:
    said = crib.prune("--apply")
    assert said.exit_code == 0
    assert crib.images() == {crib.base, crib.used}


@pytest.mark.engine
def test_refuses_while_another_installation_has_containers_there(crib: Crib) -> None:
    settings = {"Image": crib.used, "Cmd": ["x"], "Labels": {LABEL_INSTALLATION: "stranger"}}
    container = crib.engine.client.create_container_from_config(settings, None)["Id"]
    try:
        said = crib.prune("--apply")
    finally:
        crib.engine.client.remove_container(container)
    assert (said.exit_code, "stranger" in said.stderr) == (3, True)
    assert crib.unused in crib.images()
