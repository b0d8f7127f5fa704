"""A bundle's folder made ready to be registered: compiled, and its image built on the engine."""

from __future__ import annotations

from pathlib import Path

from sandboxes.engine import Engine
from sandboxes.images import build_bundle
from toolcrib.v1 import registry_pb2
from tools.manifest import read_manifest
from tools.source import compile_bundle


def pack(folder: Path, engine: Engine, base_image: str) -> registry_pb2.RegisterToolRequest:
    """Compile a bundle and build its image.

    Args:
        folder: Manifest, protos and handler.
        engine: The broker's engine: an image is known by its id there.
        base_image: Id of the base image.

    Raises:
        BundleInvalid: The bundle is not right.
        ImageFailed: The image cannot be built.
    """
    source = compile_bundle(folder)
    bundle = read_manifest(source.manifest_yaml).bundle
    return registry_pb2.RegisterToolRequest(
        descriptor_set=source.descriptor_set,
        manifest_yaml=source.manifest_yaml,
        image_id=build_bundle(engine, base_image, bundle, source.files),
    )
