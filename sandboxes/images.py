"""The two kinds of image: the base, and on top of it one for each bundle.

Both are built without an image registry, byte-compiled, and known by a content key in a label: what is there
already is not built again. The compiler runs in a container without network, because a bundle's source is
another party's.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import tarfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import docker.errors
import requests

from sandboxes.engine import Engine
from sandboxes.rootfs import ImageFailed, OnStep, add_file, content_key, write_rootfs

BASE_REPOSITORY = "toolcrib/base"
LABEL_BASE = "toolcrib.base"
LABEL_BUNDLE = "toolcrib.bundle"
LABEL_BUNDLE_NAME = "toolcrib.bundle-name"
BUNDLE_FOLDER = "opt/bundle"
MAX_BUNDLE_BYTES = 32 * 1024 * 1024

_COMPILE_SECONDS = 180
_COMPILE_BASE = (
    "import compileall, glob, py_compile, sys; M = py_compile.PycInvalidationMode.UNCHECKED_HASH;"
    "good = all([compileall.compile_dir(d, quiet=1, invalidation_mode=M)"
    " for d in [*glob.glob('/usr/lib/python3.*'), '/opt/toolcrib/lib']]);"
    "py_compile.compile('/opt/toolcrib/init.py', '/opt/toolcrib/init.pyc',"
    " doraise=True, invalidation_mode=M);"
    "sys.exit(not good)"
)
_COMPILE_BUNDLE = (
    "import compileall, py_compile, sys;"
    "sys.exit(not compileall.compile_dir('/opt/bundle', quiet=1,"
    " invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH))"
)

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")

logger = logging.getLogger(__name__)


def build_base(
    engine: Engine, cache_dir: Path, on_step: OnStep = logger.info, extras: Collection[str] = ()
) -> str:
    """Make the base image, or one with extra programs, unless it is there.

    The finished image is kept as an archive too, so that an engine with an empty store gets it from there.

    Args:
        engine: Where it is made.
        cache_dir: Where archives are kept; nothing else need survive.
        on_step: Told what is being done.
        extras: What a bundle's manifest asks for under `image.packages`; each combination is an image.

    Returns:
        The image's id, "sha256:…".

    Raises:
        ImageFailed: It could not be made; says why.
    """
    key = content_key(extras)
    with _engine_errors("the base image"):
        found = _find(engine, BASE_REPOSITORY, LABEL_BASE, key)
        if found is not None:
            return found
        kept = cache_dir / f"base-{key[:16]}.tar"
        if not kept.exists():
            _make_base(engine, kept, on_step, extras)
        on_step("importing the base image")
        return _import(engine, kept, {LABEL_BASE: key}, f"{BASE_REPOSITORY}:{key[:16]}")


def build_bundle(engine: Engine, base_id: str, bundle: str, files: Mapping[str, bytes]) -> str:
    """Make the image of one bundle, unless it is there.

    Args:
        engine: Where it is made.
        base_id: The base image's id.
        bundle: Its name, for a label.
        files: Handler and generated code, by path under /opt/bundle.

    Returns:
        The image's id, "sha256:…".

    Raises:
        ImageFailed: A path is not usable, a file does not compile, or the engine refused; nothing is left.
    """
    _check_files(files)
    key = _bundle_key(base_id, bundle, files)
    repository = f"toolcrib/bundle-{_NOT_IN_NAMES.sub('-', bundle.lower()).strip('-')}"
    with _engine_errors(f"the image of bundle {bundle}"):
        found = _find(engine, repository, LABEL_BUNDLE, key)
        if found is not None:
            return found
        with _compiled(engine, base_id, _COMPILE_BUNDLE, _bundle_archive(files)) as container:
            labels = {LABEL_BUNDLE: key, LABEL_BUNDLE_NAME: bundle}
            made = engine.client.commit(container, repository, key[:16], changes=_changes(labels))
            return str(made["Id"])


def _make_base(engine: Engine, kept: Path, on_step: OnStep, extras: Collection[str]) -> None:
    cache_dir = kept.parent
    cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    raw, partial = kept.with_suffix(".raw"), kept.with_suffix(".partial")
    try:
        write_rootfs(raw, cache_dir, on_step, extras)
        on_step("byte-compiling the base image")
        image = _import(engine, raw, {})
        try:
            with _compiled(engine, image, _COMPILE_BASE, None) as container, partial.open("wb") as file:
                for chunk in engine.client.export(container):
                    file.write(chunk)
        finally:
            engine.client.remove_image(image, force=True)
        partial.rename(kept)
    finally:
        raw.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


def _find(engine: Engine, repository: str, label: str, key: str) -> str | None:
    """Find the image with that content; by its tag, because an image inherits the labels of its base."""
    try:
        found = engine.client.inspect_image(f"{repository}:{key[:16]}")
    except docker.errors.NotFound:
        return None
    return str(found["Id"]) if (found["Config"]["Labels"] or {}).get(label) == key else None


def _import(engine: Engine, archive: Path, labels: Mapping[str, str], name: str = "") -> str:
    repository, _, tag = name.partition(":")
    with archive.open("rb") as file:
        answer = str(
            engine.client.import_image(
                src=cast(IO[bytes], file),
                repository=repository or None,
                tag=tag or None,
                changes=_changes(labels),
            )
        )
    marker = '"status":"sha256:'
    if marker not in answer:
        raise ImageFailed(f"the engine did not take {archive.name}: {answer.strip()[-300:]}")
    return "sha256:" + answer.split(marker)[1][:64]


def _changes(labels: Mapping[str, str]) -> list[str]:
    return [f"LABEL {name}={value}" for name, value in labels.items()]


@contextmanager
def _compiled(engine: Engine, image: str, program: str, files: bytes | None) -> Iterator[str]:
    """Give a stopped container in which the program has run."""
    client = engine.client
    container = client.create_container_from_config(_builder(image, program), None)["Id"]
    try:
        if files is not None:
            client.put_archive(container, "/", files)
        client.start(container)
        code = client.wait(container, timeout=_COMPILE_SECONDS)["StatusCode"]
        if code != 0:
            said = client.logs(container, tail=20).decode(errors="replace").strip()
            raise ImageFailed(f"byte-compiling failed: {said[-800:]}")
        yield container
    finally:
        client.remove_container(container, v=True, force=True)


def _builder(image: str, program: str) -> dict[str, Any]:
    return {
        "Image": image,
        "Entrypoint": ["/usr/bin/python3", "-I", "-S", "-c", program],
        "Cmd": [],
        "User": "0:0",
        "NetworkDisabled": True,
        "HostConfig": {
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": 512 * 1024 * 1024,
            "MemorySwap": 512 * 1024 * 1024,
            "PidsLimit": 16,
            "IpcMode": "none",
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "256k"}},
        },
    }


def _check_files(files: Mapping[str, bytes]) -> None:
    if not files:
        raise ImageFailed("the bundle has no handler files")
    for name in files:
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or str(path) != name or "\0" in name:
            raise ImageFailed(f"{name!r}: is no plain path under the bundle; use for example handler.py")
    size = sum(len(data) for data in files.values())
    if size > MAX_BUNDLE_BYTES:
        raise ImageFailed(f"the bundle's files are {size} bytes; the most is {MAX_BUNDLE_BYTES}")


def _bundle_key(base_id: str, bundle: str, files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for part in (
        base_id.encode(),
        bundle.encode(),
        *(part for name in sorted(files) for part in (name.encode(), files[name])),
    ):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _bundle_archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in sorted(files):
            add_file(archive, f"{BUNDLE_FOLDER}/{name}", files[name])
    return buffer.getvalue()


@contextmanager
def _engine_errors(what: str) -> Iterator[None]:
    try:
        yield
    except docker.errors.APIError as error:
        raise ImageFailed(f"{what}: the engine refused: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise ImageFailed(f"{what}: the engine does not answer ({type(error).__name__})") from error
