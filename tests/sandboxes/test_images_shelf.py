"""What is on the engine of our images: a moved name is found and changes nothing, the unused ones go."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sandboxes import image_shelf
from sandboxes.engine import Engine
from sandboxes.image_content import Entry, write_layer
from sandboxes.image_store import StoredImage, inspect, load
from sandboxes.images import build_base, build_bundle, compare_bundle
from sandboxes.rootfs import ImageFailed
from tests.parts.engine import STATE, Obedient

pytestmark = pytest.mark.engine

FILES = {"handler.py": b"pass"}
NOTHING_YOUNG = timedelta(seconds=-60)


@pytest.fixture
def bundle(engine: Engine, base_image: str) -> Iterator[StoredImage]:
    """An image that no other test has."""
    name = f"shelf-{uuid.uuid4().hex[:12]}"
    image = image_shelf.find_image(engine, build_bundle(engine, base_image, name, FILES))
    yield image
    for left in image_shelf.list_images(engine):
        if image.id == left.id or any(image.bundle in tag for tag in left.tags):
            engine.client.remove_image(left.id, force=True)


def derive(engine: Engine, image: StoredImage, changes: str = "", file: bytes = b"") -> str:
    """Make an image from one of ours, as somebody with a Dockerfile would; it inherits every label."""
    client = engine.client
    container = client.create_container_from_config({"Image": image.id, "Cmd": ["x"]}, None)["Id"]
    try:
        if file:
            client.put_archive(container, "/opt/bundle", file)
        made = client.commit(container, changes=changes or None, repository="toolcrib-test/derived")["Id"]
        return str(made)
    finally:
        client.remove_container(container)


def move_name(engine: Engine, image: StoredImage, to: str) -> None:
    engine.client.tag(to, *image.tags[0].split(":"), force=True)


def test_lists_bases_and_bundles(engine: Engine, base_image: str, bundle: StoredImage) -> None:
    found = {image.id: image.kind for image in image_shelf.list_images(engine)}
    assert (found[base_image], found[bundle.id]) == ("base", "bundle")


def test_finds_nothing_wrong_with_what_it_built(engine: Engine, base_image: str, bundle: StoredImage) -> None:
    for image_id in (base_image, bundle.id):
        assert image_shelf.find_problems(engine, image_shelf.find_image(engine, image_id)) == []


def test_says_which_image_it_does_not_know(engine: Engine) -> None:
    with pytest.raises(ImageFailed, match="images list"):
        image_shelf.find_image(engine, "toolcrib/none:0")


async def test_runs_the_registered_image_though_its_name_was_moved(
    engine: Engine, base_image: str, obedient: Obedient, obedient_image: str
) -> None:
    image = image_shelf.find_image(engine, obedient_image)
    engine.client.tag(obedient_image, "toolcrib-test/keeps-it")
    try:
        move_name(engine, image, base_image)
        assert await obedient.answer("answer = 1") == "1"
    finally:
        move_name(engine, image, obedient_image)
        engine.client.remove_image("toolcrib-test/keeps-it", noprune=True)


def test_finds_a_moved_name(engine: Engine, base_image: str, bundle: StoredImage) -> None:
    other = build_bundle(engine, base_image, f"{bundle.bundle}-other", {"handler.py": b"1"})
    move_name(engine, bundle, other)
    (problem,) = image_shelf.find_problems(engine, image_shelf.find_image(engine, bundle.tags[0]))
    assert bundle.tags[0] in problem and "was moved" in problem


def test_builds_again_what_a_moved_name_no_longer_leads_to(
    engine: Engine, base_image: str, bundle: StoredImage
) -> None:
    move_name(engine, bundle, base_image)
    assert build_bundle(engine, base_image, bundle.bundle, FILES) == bundle.id
    found = inspect(engine, bundle.tags[0])
    assert found is not None and found.id == bundle.id


@pytest.mark.parametrize(
    ("changes", "file"),
    [("", b"evil"), ("ENV LD_PRELOAD=/tmp/x.so", b""), ("VOLUME /opt/bundle", b""), ("LABEL x=y", b"")],
)
def test_does_not_take_an_image_made_from_ours_for_ours(
    engine: Engine, base_image: str, bundle: StoredImage, changes: str, file: bytes
) -> None:
    archive = io.BytesIO()
    if file:
        write_layer({"handler.py": Entry(file)}, archive)
    made = derive(engine, bundle, changes, archive.getvalue())
    move_name(engine, bundle, made)
    assert "leads to" in compare_bundle(engine, base_image, bundle.bundle, FILES)[1]
    assert image_shelf.find_problems(engine, image_shelf.find_image(engine, made)) != []
    assert build_bundle(engine, base_image, bundle.bundle, FILES) == bundle.id
    engine.client.remove_image(made, force=True)


def test_does_not_take_a_forged_base_for_the_base(engine: Engine, base_image: str) -> None:
    base = image_shelf.find_image(engine, base_image)
    made = derive(engine, base, "ENV LD_PRELOAD=/tmp/x.so")
    engine.client.tag(base_image, "toolcrib-test/keeps-base")
    try:
        move_name(engine, base, made)
        assert build_base(engine, STATE / "cache") == base_image
        with pytest.raises(ImageFailed, match="no base image of ours"):
            build_bundle(engine, made, "on-forged", FILES)
    finally:
        move_name(engine, base, base_image)
        engine.client.remove_image("toolcrib-test/keeps-base", noprune=True)
        engine.client.remove_image(made, force=True)


def test_compares_an_image_with_a_fresh_build(engine: Engine, base_image: str, bundle: StoredImage) -> None:
    assert compare_bundle(engine, base_image, bundle.bundle, FILES) == (bundle.tags[0], "")
    name, problem = compare_bundle(engine, base_image, bundle.bundle, {"handler.py": b"other"})
    assert (name != bundle.tags[0], problem) == (True, "is not on the engine")


def test_gives_an_image_with_the_layers_of_its_base_when_the_engine_wants_them(
    engine: Engine, base_image: str, tmp_path: Path
) -> None:
    base = inspect(engine, base_image)
    assert base is not None
    with (tmp_path / "layer.tar").open("wb") as file:
        write_layer({"opt/bundle/handler.py": Entry(uuid.uuid4().bytes)}, file)
    labels = {"toolcrib.bundle": "0" * 64, "toolcrib.bundle-name": "whole", "toolcrib.on": base.id}
    labels |= {"toolcrib.content": base.content.base, "toolcrib.added": "0" * 64}
    made = load(engine, "toolcrib-test/whole:1", tmp_path / "layer.tar", labels, base, is_whole=True)
    engine.client.remove_image(made.id, force=True)
    assert (made.kind, made.layers[:-1]) == ("bundle", base.layers)


# --- what goes ----------------------------------------------------------------------------------------------
def fate_of(engine: Engine, image_id: str, used: dict[str, list[str]], older: timedelta) -> str:
    fates = image_shelf.plan_removal(engine, used, older, datetime.now(UTC))
    return next(fate.kept for fate in fates if fate.image.id == image_id)


def test_keeps_what_a_version_uses(engine: Engine, bundle: StoredImage) -> None:
    used = {bundle.id: ["shop/orders 1.0.0"]}
    assert fate_of(engine, bundle.id, used, NOTHING_YOUNG) == "used by shop/orders 1.0.0"


def test_keeps_what_is_young(engine: Engine, bundle: StoredImage) -> None:
    assert fate_of(engine, bundle.id, {}, timedelta(hours=1)) == "is young"


def test_keeps_what_a_container_is_made_of(engine: Engine, bundle: StoredImage) -> None:
    container = engine.client.create_container_from_config({"Image": bundle.id, "Cmd": ["x"]}, None)["Id"]
    try:
        assert "container" in fate_of(engine, bundle.id, {}, NOTHING_YOUNG)
    finally:
        engine.client.remove_container(container)


def test_keeps_the_base_of_what_it_keeps(engine: Engine, base_image: str, bundle: StoredImage) -> None:
    used = {bundle.id: ["x"]}
    assert fate_of(engine, base_image, used, NOTHING_YOUNG) != ""


def test_lets_go_what_nothing_uses(engine: Engine, bundle: StoredImage) -> None:
    assert fate_of(engine, bundle.id, {}, NOTHING_YOUNG) == ""


def test_removes_what_goes_and_nothing_else(engine: Engine, base_image: str, bundle: StoredImage) -> None:
    left = image_shelf.remove(engine, [image_shelf.Fate(bundle, ""), kept(engine, base_image)])
    assert left == []
    assert inspect(engine, bundle.id) is None
    assert inspect(engine, base_image) is not None


def test_takes_only_our_name_from_an_image_that_has_another(engine: Engine, bundle: StoredImage) -> None:
    engine.client.tag(bundle.id, "toolcrib-test/mine", "1")
    image_shelf.remove(engine, [image_shelf.Fate(bundle, "")])
    found = inspect(engine, bundle.id)
    assert found is not None and found.tags == ("toolcrib-test/mine:1",)


def test_says_what_it_could_not_remove(engine: Engine, bundle: StoredImage) -> None:
    container = engine.client.create_container_from_config({"Image": bundle.id, "Cmd": ["x"]}, None)["Id"]
    try:
        ((image, reason),) = image_shelf.remove(engine, [image_shelf.Fate(bundle, "")])
        assert (image.id, "container" in reason) == (bundle.id, True)
    finally:
        engine.client.remove_container(container)


def test_never_removes_an_image_made_from_ours(engine: Engine, bundle: StoredImage) -> None:
    made = derive(engine, bundle, "ENV X=1")
    fates = image_shelf.plan_removal(engine, {}, NOTHING_YOUNG, datetime.now(UTC))
    image_shelf.remove(engine, [image_shelf.Fate(image_shelf.find_image(engine, made), "")])
    assert made not in {fate.image.id for fate in fates}
    assert inspect(engine, made) is not None
    engine.client.remove_image(made, force=True)


def kept(engine: Engine, image_id: str) -> image_shelf.Fate:
    return image_shelf.Fate(image_shelf.find_image(engine, image_id), "stays")
