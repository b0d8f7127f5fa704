"""A bundle's folder made ready to be registered: compiled, and its image built on the engine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandboxes.engine import Engine
from sandboxes.image_content import LIBRARY_FOLDER
from sandboxes.image_requirements import FILE_NAME, Pin, read_requirements
from sandboxes.image_wheels import fetch_wheels
from sandboxes.images import build_base, build_bundle
from sandboxes.rootfs import OnStep, read_base_pins
from toolcrib.v1 import registry_pb2
from tools.errors import BundleInvalid, Violation
from tools.manifest import Manifest, read_manifest
from tools.source import BundleSource, compile_bundle

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Packed:
    """A bundle whose image is on the engine.

    Attributes:
        image_id: "sha256:…".
    """

    source: BundleSource
    manifest: Manifest
    image_id: str


def pack(
    folder: Path, engine: Engine, cache_dir: Path, on_step: OnStep = log.info
) -> registry_pb2.RegisterToolRequest:
    """Compile a bundle and build its image, on the base that its manifest asks for.

    Args:
        folder: Manifest, protos and handler.
        engine: The broker's engine: an image is known by its id there.
        cache_dir: Where the parts of base images are kept.
        on_step: Told what is being done.

    Raises:
        BundleInvalid: The bundle is not right.
        ImageFailed: The image cannot be built.
    """
    packed = build_image(folder, engine, cache_dir, on_step)
    return registry_pb2.RegisterToolRequest(
        descriptor_set=packed.source.descriptor_set,
        manifest_yaml=packed.source.manifest_yaml,
        image_id=packed.image_id,
    )


def build_image(
    folder: Path, engine: Engine, cache_dir: Path, on_step: OnStep = log.info, *, afresh: bool = False
) -> Packed:
    """Build the image of a bundle with its locked dependencies, unless it is there.

    Args:
        folder: Manifest, protos and handler.
        engine: Where it is built.
        cache_dir: Where the parts of base images, and wheels, are kept.
        on_step: Told what is being done.
        afresh: Build it though it is there.

    Raises:
        BundleInvalid: The bundle is not right.
        ImageFailed: The image cannot be built.
    """
    source = compile_bundle(folder)
    manifest = read_manifest(source.manifest_yaml)
    pins = read_dependencies(folder)
    base = build_base(engine, cache_dir, on_step, manifest.image.packages)
    files = {**source.files, **_read_library(pins, cache_dir, on_step, manifest.bundle)}
    image_id = build_bundle(engine, base, manifest.bundle, files, afresh=afresh)
    return Packed(source, manifest, image_id)


def read_dependencies(folder: Path) -> tuple[Pin, ...]:
    """Read what a bundle locks in `requirements.txt`; none where it has no such file.

    What the base has at the same version is left out: the base's is the one that runs.

    Raises:
        BundleInvalid: It is no lock, or wants what the base has at another version.
    """
    file = folder / FILE_NAME
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise BundleInvalid([Violation(FILE_NAME, "must be a plain file: links and devices are not read")])
    if not file.exists():
        return ()
    try:
        pins = read_requirements(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise BundleInvalid([Violation(FILE_NAME, f"is not UTF-8: {error}")]) from error
    own = {pin.name: pin.version for pin in read_base_pins()}
    problems = [
        Violation(
            FILE_NAME,
            f"{pin.name} is {pin.version}, but the base has it at {own[pin.name]}, and that is the one that "
            "runs: lock that version, or leave it out",
        )
        for pin in pins
        if own.get(pin.name, pin.version) != pin.version
    ]
    if problems:
        raise BundleInvalid(problems)
    return tuple(pin for pin in pins if pin.name not in own)


def _read_library(
    pins: tuple[Pin, ...], cache_dir: Path, on_step: OnStep, bundle: str
) -> Mapping[str, bytes]:
    wheels = fetch_wheels(pins, cache_dir, on_step, f"bundle {bundle}")
    return {f"{LIBRARY_FOLDER}/{name}": entry.data for name, entry in wheels.items()}
