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
class Ingredients:
    """What a bundle's image is made of.

    Attributes:
        base_id: The base that its manifest asks for, on the engine.
        files: What goes to /opt/bundle, by path.
    """

    source: BundleSource
    manifest: Manifest
    base_id: str
    files: Mapping[str, bytes]


def pack(
    folder: Path, engine: Engine, cache_dir: Path, on_step: OnStep = log.info
) -> registry_pb2.RegisterToolRequest:
    """Compile a bundle and build its image, on the base that its manifest asks for.

    Args:
        folder: Manifest, protos, handler and, where it has some, its locked dependencies.
        engine: The broker's engine: an image is known by its id there.
        cache_dir: Where the parts of base images, and wheels, are kept.
        on_step: Told what is being done.

    Raises:
        BundleInvalid: The bundle is not right.
        ImageFailed: The image cannot be built.
    """
    parts = gather(folder, engine, cache_dir, on_step)
    return registry_pb2.RegisterToolRequest(
        descriptor_set=parts.source.descriptor_set,
        manifest_yaml=parts.source.manifest_yaml,
        image_id=build_bundle(engine, parts.base_id, parts.manifest.bundle, parts.files),
    )


def gather(folder: Path, engine: Engine, cache_dir: Path, on_step: OnStep = log.info) -> Ingredients:
    """Compile a bundle, fetch its dependencies, and see to its base.

    Args:
        folder: Manifest, protos, handler and, where it has some, its locked dependencies.
        engine: Where the base is built unless it is there.
        cache_dir: Where the parts of base images, and wheels, are kept.
        on_step: Told what is being done.

    Raises:
        BundleInvalid: The bundle is not right.
        ImageFailed: The base cannot be built, or the dependencies cannot be had.
    """
    source = compile_bundle(folder)
    manifest = read_manifest(source.manifest_yaml)
    pins = read_dependencies(folder)
    base = build_base(engine, cache_dir, on_step, manifest.image.packages)
    wheels = fetch_wheels(pins, cache_dir, on_step, f"bundle {manifest.bundle}")
    library = {f"{LIBRARY_FOLDER}/{name}": entry.data for name, entry in wheels.items()}
    return Ingredients(source, manifest, base, {**source.files, **library})


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
