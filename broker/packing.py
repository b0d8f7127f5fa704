"""A bundle's folder made ready to be registered: compiled, and its image built on the engine."""

from __future__ import annotations

import logging
from pathlib import Path

from sandboxes.engine import Engine
from sandboxes.images import build_base, build_bundle
from sandboxes.rootfs import OnStep
from toolcrib.v1 import registry_pb2
from tools.manifest import read_manifest
from tools.source import compile_bundle

log = logging.getLogger(__name__)


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
    source = compile_bundle(folder)
    manifest = read_manifest(source.manifest_yaml)
    base = build_base(engine, cache_dir, on_step, manifest.image.packages)
    return registry_pb2.RegisterToolRequest(
        descriptor_set=source.descriptor_set,
        manifest_yaml=source.manifest_yaml,
        image_id=build_bundle(engine, base, manifest.bundle, source.files),
    )
