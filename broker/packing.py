"""A bundle's folder made ready to be registered: compiled, and its image built.

Images are built where the broker has them: on its engine, or, for drivers without one, in a folder.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandboxes.bubblewrap_compiler import compile_folder
from sandboxes.engine import Engine
from sandboxes.folders import Folders
from sandboxes.image_content import LIBRARY_FOLDER
from sandboxes.image_requirements import FILE_NAME, MAX_BYTES, Pin, read_requirements
from sandboxes.image_wheels import fetch_wheels
from sandboxes.images import build_base, build_bundle
from sandboxes.rootfs import OnStep, read_base_pins
from toolcrib.v1 import registry_pb2
from tools.entry import check_entry
from tools.errors import BundleInvalid, breach
from tools.manifest import Manifest, read_manifest
from tools.source import BundleSource, compile_bundle

log = logging.getLogger(__name__)

Place = Engine | Path
"""Where a broker has its images: an engine, or the folder of images of drivers without one."""


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a bundle's image is made of.

    Attributes:
        base_id: The base that its manifest asks for.
        files: What goes to /opt/bundle, by path.
    """

    source: BundleSource
    manifest: Manifest
    base_id: str
    files: Mapping[str, bytes]


def pack(
    folder: Path, place: Place, cache_dir: Path, on_step: OnStep = log.info
) -> registry_pb2.RegisterToolRequest:
    """Compile a bundle and build its image, on the base that its manifest asks for.

    Args:
        folder: Manifest, protos, handler and, where it has some, its locked dependencies.
        place: The broker's: an image is known by its id there.
        cache_dir: Where the parts of base images, and wheels, are kept.
        on_step: Told what is being done.

    Raises:
        BundleInvalid: The bundle is not right.
        ImageFailed: The image cannot be built.
    """
    parts = gather(folder, place, cache_dir, on_step)
    if isinstance(place, Engine):
        image_id = build_bundle(place, parts.base_id, parts.manifest.bundle, parts.files)
    else:
        image_id = open_folders(place, cache_dir).build_bundle(parts.base_id, parts.files)
    return registry_pb2.RegisterToolRequest(
        descriptor_set=parts.source.descriptor_set,
        manifest_yaml=parts.source.manifest_yaml,
        image_id=image_id,
    )


def gather(folder: Path, place: Place, cache_dir: Path, on_step: OnStep = log.info) -> Ingredients:
    """Compile a bundle, fetch its dependencies, and see to its base.

    Args:
        folder: Manifest, protos, handler and, where it has some, its locked dependencies.
        place: Where the base is built unless it is there.
        cache_dir: Where the parts of base images, and wheels, are kept.
        on_step: Told what is being done.

    Raises:
        BundleInvalid: The bundle is not right.
        ImageFailed: The base cannot be built, or the dependencies cannot be had.
    """
    source = compile_bundle(folder)
    manifest = read_manifest(source.manifest_yaml)
    unfit = list(check_entry(manifest, source.files, folder))
    if unfit:
        raise BundleInvalid(unfit)
    pins = read_dependencies(folder)
    base = provide_base(place, cache_dir, on_step, manifest.image.packages)
    wheels = fetch_wheels(pins, cache_dir, on_step, f"bundle {manifest.bundle}")
    library = {f"{LIBRARY_FOLDER}/{name}": entry.data for name, entry in wheels.items()}
    return Ingredients(source, manifest, base, {**source.files, **library})


def provide_base(
    place: Place, cache_dir: Path, on_step: OnStep = log.info, extras: Collection[str] = ()
) -> str:
    """Build the base image, or one with extra programs, unless it is there.

    Returns:
        Its id, "sha256:…".

    Raises:
        ImageFailed: It cannot be built.
    """
    if isinstance(place, Engine):
        return build_base(place, cache_dir, on_step, extras)
    return open_folders(place, cache_dir).build_base(on_step, extras)


def open_folders(image_dir: Path, cache_dir: Path | None = None) -> Folders:
    """Find the images of drivers without an engine.

    Args:
        image_dir: Where they are; `sandboxes.image_dir` of a broker.
        cache_dir: Where the parts of base images are kept; None: with them.
    """
    return Folders(image_dir, compile_folder, cache_dir)


def read_dependencies(folder: Path) -> tuple[Pin, ...]:
    """Read what a bundle locks in `requirements.txt`; none where it has no such file.

    What the base has at the same version is left out: the base's is the one that runs.

    Raises:
        BundleInvalid: It is no lock, or wants what the base has at another version.
    """
    file = folder / FILE_NAME
    if file.is_symlink() or (file.exists() and not file.is_file()):
        problem = breach("FILE_KIND", FILE_NAME, "must be a plain file", "links and devices are not read")
        raise BundleInvalid([problem])
    if not file.exists():
        return ()
    if file.stat().st_size > MAX_BYTES:  # before it is read
        raise BundleInvalid([breach("LOCK_INVALID", FILE_NAME, f"is larger than {MAX_BYTES} bytes")])
    try:
        pins = read_requirements(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise BundleInvalid([breach("NOT_TEXT", FILE_NAME, f"is not UTF-8: {error}")]) from error
    own = {pin.name: pin.version for pin in read_base_pins()}
    problems = [
        breach(
            "LOCK_CLASH",
            FILE_NAME,
            f"{pin.name} is {pin.version}, but the base has it at {own[pin.name]}, and that is the one that "
            "runs",
            "lock that version, or leave it out",
        )
        for pin in pins
        if own.get(pin.name, pin.version) != pin.version
    ]
    if problems:
        raise BundleInvalid(problems)
    return tuple(pin for pin in pins if pin.name not in own)
