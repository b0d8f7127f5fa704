"""Our images on an engine: found without trusting a name, put there with an id that anybody can recompute.

An image is loaded from an archive that we write: its configuration holds labels and layers and nothing else,
with no time in it, so that its id, which is the digest of the configuration, is the same wherever the same
content is built. (`docker commit` and `docker import` put a time and a container's id into it.)

Rules:
    * a name leads to an image only if that image says the key itself, consists of exactly the layers that its
      labels name, and has no other setting: labels are inherited, so an image made from ours says the key,
      too, but has a layer or a setting more;
    * the engine checks the digests of layers when it loads them, and we check the image afterwards;
    * an image of ours has one layer for a base, two for a bundle.

Labels: `toolcrib.base` or `toolcrib.bundle` the content key; `toolcrib.content` and `toolcrib.added` what the
base and what the bundle in it sum up to; `toolcrib.layer` the digest of the last layer; `toolcrib.on` the id
of a bundle's base; `toolcrib.bundle-name`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

import docker.errors
import requests

from sandboxes.engine import Engine
from sandboxes.image_content import Content, as_file, sum_up
from sandboxes.image_wheels import ImageFailed

PREFIX = "toolcrib/"
BASE_REPOSITORY = "toolcrib/base"
LABEL_BASE = "toolcrib.base"
LABEL_BUNDLE = "toolcrib.bundle"
LABEL_BUNDLE_NAME = "toolcrib.bundle-name"
LABEL_CONTENT = "toolcrib.content"
LABEL_ADDED = "toolcrib.added"
LABEL_LAYER = "toolcrib.layer"
LABEL_ON = "toolcrib.on"

_BASE_LABELS = frozenset({LABEL_BASE, LABEL_CONTENT, LABEL_ADDED, LABEL_LAYER})
_BUNDLE_LABELS = frozenset(
    {LABEL_BUNDLE, LABEL_BUNDLE_NAME, LABEL_ON, LABEL_CONTENT, LABEL_ADDED, LABEL_LAYER}
)
_NO_TIME = "1970-01-01T00:00:00Z"
_TAG_DIGITS = 16
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image as the engine has it.

    Attributes:
        id: "sha256:…".
        tags: Its names, "repository:tag".
        layers: Digests of its layers, the lowest first.
        architecture: As the engine calls it, "amd64".
        is_plain: True when its configuration has labels and nothing else.
        size_bytes: With all layers.
        since: When it was last given a name here; None when the engine does not know.
    """

    id: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    layers: tuple[str, ...]
    architecture: str
    is_plain: bool
    size_bytes: int
    since: datetime | None

    @property
    def kind(self) -> str:
        """What it is: "base" or "bundle" where `find_flaw` finds nothing, else "foreign"."""
        if self.find_flaw() is not None:
            return "foreign"
        return "base" if LABEL_BASE in self.labels else "bundle"

    @property
    def key(self) -> str:
        """The content key that it says; "" for none."""
        return self.labels.get(LABEL_BASE) or self.labels.get(LABEL_BUNDLE) or ""

    @property
    def bundle(self) -> str:
        """The bundle's name that it says; "" for none."""
        return self.labels.get(LABEL_BUNDLE_NAME, "")

    @property
    def content(self) -> Content:
        """What it says that it sums up to."""
        return Content(self.labels.get(LABEL_CONTENT, ""), self.labels.get(LABEL_ADDED, ""))

    def find_flaw(self) -> str | None:
        """Say why it is none of ours, whatever its name is; None when it is."""
        labels = {name for name in self.labels if name.startswith("toolcrib.")}
        if labels not in (_BASE_LABELS, _BUNDLE_LABELS) or len(labels) != len(self.labels):
            return "has not the labels of an image of ours: an earlier release made it, or somebody else"
        if not self.is_plain:
            return "has settings beside its labels, which no image of ours has: it was made from one"
        wanted = 1 if LABEL_BASE in labels else 2
        if len(self.layers) != wanted or self.layers[-1] != self.labels[LABEL_LAYER]:
            return "has other layers than its labels say: it was made from an image of ours"
        return None


def image_name(repository: str, key: str) -> str:
    """Give the name that an image with that content key has."""
    return f"{repository}:{key[:_TAG_DIGITS]}"


def bundle_repository(bundle: str) -> str:
    """Give the repository of a bundle's images; not every name of a bundle can be one."""
    return f"{PREFIX}bundle-{_NOT_IN_NAMES.sub('-', bundle.lower()).strip('-')}"


def inspect(engine: Engine, reference: str) -> StoredImage | None:
    """Look an image up by name or id; None when the engine does not have it."""
    try:
        found = engine.client.inspect_image(reference)
    except docker.errors.NotFound:
        return None
    config = dict(found["Config"] or {})
    labels = config.pop("Labels", None) or {}
    return StoredImage(
        id=str(found["Id"]),
        tags=tuple(sorted(found.get("RepoTags") or ())),
        labels={str(name): str(value) for name, value in labels.items()},
        layers=tuple(found["RootFS"].get("Layers") or ()),
        architecture=str(found["Architecture"]),
        is_plain=not any(config.values()),
        size_bytes=int(found.get("Size") or 0),
        since=_read_time((found.get("Metadata") or {}).get("LastTagTime")),
    )


def load(
    engine: Engine,
    name: str,
    layer: Path,
    labels: Mapping[str, str],
    base: StoredImage | None = None,
    *,
    is_whole: bool = False,
) -> StoredImage:
    """Put an image of one layer, or of one more than its base, onto the engine.

    Args:
        engine: Where it goes.
        name: "repository:tag"; moves here from whatever has it.
        layer: The archive.
        labels: All but `toolcrib.layer`.
        base: What it stands on; the engine has it.
        is_whole: Send the base's layers once more, as an engine may want it that keeps images otherwise.

    Raises:
        ImageFailed: The engine did not take it as it is.
    """
    digest = layer_digest(layer)
    layers = [*(base.layers if base else ()), digest]
    architecture = base.architecture if base else str(engine.client.version(api_version=False)["Arch"])
    config = _write_config(architecture, {**labels, LABEL_LAYER: digest}, layers)
    try:
        _send(engine, _Archive(config, name, layers, layer, base if is_whole else None))
    except ImageFailed:
        if base is None or is_whole:
            raise
        return load(engine, name, layer, labels, base, is_whole=True)
    found = inspect(engine, name)
    if found is None or found.find_flaw() is not None or list(found.layers) != layers:
        raise ImageFailed(f"the engine did not take {name} as it is")
    repository, _, tag = name.partition(":")
    engine.client.tag(
        found.id, repository, tag, force=True
    )  # the engine notes the time of this, not of a load
    return inspect(engine, name) or found


def sum_up_image(engine: Engine, image_id: str) -> Content:
    """Sum up the file system of an image, as a container on it has it that is never started."""
    container = engine.client.create_container_from_config({"Image": image_id, "Cmd": ["none"]}, None)["Id"]
    try:
        return sum_up(as_file(engine.client.export(container)))
    finally:
        engine.client.remove_container(container, v=True, force=True)


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Turn the errors of the engine's client into ours."""
    try:
        yield
    except docker.errors.APIError as error:
        raise ImageFailed(f"{what}: the engine refused: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise ImageFailed(f"{what}: the engine does not answer ({type(error).__name__})") from error


@dataclass(frozen=True, slots=True)
class _Archive:
    """What `docker load` takes; the layers of `whole` are in it, too."""

    config: bytes
    name: str
    layers: Sequence[str]
    layer: Path
    whole: StoredImage | None


def _send(engine: Engine, parts: _Archive) -> None:
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            if parts.whole is not None:
                _copy_layers(engine, parts.whole, archive)
            with parts.layer.open("rb") as layer:
                _add(archive, _layer_name(parts.layers[-1]), layer, parts.layer.stat().st_size)
            config_name = f"{hashlib.sha256(parts.config).hexdigest()}.json"
            names = [_layer_name(digest) for digest in parts.layers]
            manifest = json.dumps(
                [{"Config": config_name, "RepoTags": [parts.name], "Layers": names}]
            ).encode()
            _add(archive, config_name, io.BytesIO(parts.config), len(parts.config))
            _add(archive, "manifest.json", io.BytesIO(manifest), len(manifest))
        file.seek(0)
        for line in engine.client.load_image(cast(bytes, file)):
            if "error" in line:
                raise ImageFailed(f"the engine did not take {parts.name}: {str(line['error'])[-300:]}")


def _copy_layers(engine: Engine, base: StoredImage, archive: tarfile.TarFile) -> None:
    with tempfile.TemporaryFile() as file:
        for chunk in engine.client.get_image(base.id):
            file.write(chunk)
        file.seek(0)
        with tarfile.open(fileobj=file) as saved:
            manifest = saved.extractfile("manifest.json")
            assert manifest is not None
            names = json.loads(manifest.read())[0]["Layers"]
            for name, digest in zip(names, base.layers, strict=True):
                layer = saved.extractfile(name)
                assert layer is not None
                _add(archive, _layer_name(digest), layer, saved.getmember(name).size)


def _layer_name(digest: str) -> str:
    return f"{digest.removeprefix('sha256:')}/layer.tar"


def _add(archive: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    archive.addfile(member, source)


def _write_config(architecture: str, labels: Mapping[str, str], layers: Sequence[str]) -> bytes:
    config = {
        "architecture": architecture,
        "config": {"Labels": dict(labels)},
        "created": _NO_TIME,
        "history": [{"created": _NO_TIME, "created_by": "toolcrib"} for _ in layers],
        "os": "linux",
        "rootfs": {"diff_ids": list(layers), "type": "layers"},
    }
    return json.dumps(config, sort_keys=True, separators=(",", ":")).encode()


def layer_digest(path: Path) -> str:
    """Give the digest of a layer's archive, as images name it."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(cast(Any, file), 'sha256').hexdigest()}"


def _read_time(text: str | None) -> datetime | None:
    """Read the engine's time to the second; the year 1 stands for none."""
    if not text or text.startswith("0001"):
        return None
    moment = datetime.fromisoformat(text[:19])
    offset = datetime.fromisoformat(f"2000-01-01T00:00:00{text[-6:]}").tzinfo if text[-3] == ":" else UTC
    return moment.replace(tzinfo=offset or UTC).astimezone(UTC)
