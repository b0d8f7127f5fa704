"""The two kinds of image: the base, and on top of it one for each bundle.

Both are built without an image registry, byte-compiled, and known by a content key in a label: what is there
already is not built again. The compiler runs in a container without network, because a bundle's source is
another party's; nothing comes back from it but the compiled files that were expected, so that a compiler that
was tricked cannot put anything else into an image.

Two builds of the same content give the same image, to its id: files are sorted, have no times, and compiled
files name their source by its hash. docs/images.md says what is in them.
"""

from __future__ import annotations

import hashlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from sandboxes import image_store
from sandboxes.engine import Engine
from sandboxes.image_content import (
    BUNDLE_FOLDER,
    Tree,
    as_file,
    files_below,
    read_tree,
    sum_up,
    write_layer,
)
from sandboxes.image_recipe import (
    COMPILE_BASE,
    COMPILE_BUNDLE,
    COMPILE_SECONDS,
    COMPILER,
    COMPILER_ENVIRONMENT,
    MAX_COMPILED_BYTES,
    check_files,
    compiled_names,
)
from sandboxes.image_store import (
    BASE_REPOSITORY,
    LABEL_ADDED,
    LABEL_BASE,
    LABEL_BUNDLE,
    LABEL_BUNDLE_NAME,
    LABEL_CONTENT,
    LABEL_LAYER,
    LABEL_ON,
    StoredImage,
    bundle_repository,
    engine_errors,
    image_name,
)
from sandboxes.image_wheels import keep
from sandboxes.rootfs import ImageFailed, OnStep, content_key, make_rootfs

_VERSION = "3"  # raise it when the way of building bundles' images changes
_BASE_FOLDERS = ("usr/lib/python3.11", "opt/toolcrib")

logger = logging.getLogger(__name__)


def build_base(
    engine: Engine, cache_dir: Path, on_step: OnStep = logger.info, extras: Collection[str] = ()
) -> str:
    """Make the base image, or one with extra programs, unless it is there.

    The finished layer is kept as an archive too, so that an engine with an empty store gets it from there.

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
    name = image_name(BASE_REPOSITORY, key)
    with engine_errors("the base image"):
        found = image_store.inspect(engine, name)
        if found is not None and found.kind == "base" and found.key == key:
            return found.id
        kept = make_base_layer(engine, cache_dir, on_step, extras)
        on_step("importing the base image")
        with kept.open("rb") as file:
            content = sum_up(file)
        labels = {LABEL_BASE: key, LABEL_CONTENT: content.base, LABEL_ADDED: content.bundle}
        return image_store.load(engine, name, kept, labels).id


def build_bundle(engine: Engine, base_id: str, bundle: str, files: Mapping[str, bytes]) -> str:
    """Make the image of one bundle, unless it is there.

    Args:
        engine: Where it is made.
        base_id: The base image's id.
        bundle: Its name, for a label.
        files: Handler, generated code, and under "site-packages/" its dependencies, by path under
            /opt/bundle.

    Returns:
        The image's id, "sha256:…".

    Raises:
        ImageFailed: A path is not usable, a file does not compile, or the engine refused; nothing is left.
    """
    check_files(files)
    with engine_errors(f"the image of bundle {bundle}"):
        base = _find_base(engine, base_id)
        key = _bundle_key(base.id, bundle, files)
        name = image_name(bundle_repository(bundle), key)
        found = image_store.inspect(engine, name)
        if found is not None and _is_bundle(found, base, key):
            return found.id
        with _bundle_layer(engine, base, files) as layer:
            labels = _bundle_labels(base, bundle, key, layer)
            return image_store.load(engine, name, layer, labels, base).id


def compare_bundle(engine: Engine, base_id: str, bundle: str, files: Mapping[str, bytes]) -> tuple[str, str]:
    """Build the layer of a bundle's image once more, and compare it with what the engine has.

    Args:
        engine: Where the image is; nothing changes there.
        base_id: The base image's id.
        bundle: Its name.
        files: As for `build_bundle`.

    Returns:
        The image's name, and what is wrong with what it leads to, "" for nothing.

    Raises:
        ImageFailed: It cannot be built.
    """
    check_files(files)
    with engine_errors(f"the image of bundle {bundle}"):
        base = _find_base(engine, base_id)
        key = _bundle_key(base.id, bundle, files)
        name = image_name(bundle_repository(bundle), key)
        found = image_store.inspect(engine, name)
        if found is None:
            return name, "is not on the engine"
        if not _is_bundle(found, base, key):
            return name, f"the name leads to {found.id}, which {found.find_flaw() or 'has another content'}"
        with _bundle_layer(engine, base, files) as layer:
            labels = _bundle_labels(base, bundle, key, layer)
            digest = image_store.layer_digest(layer)
        is_same = found.layers[-1] == digest and found.labels == {**labels, LABEL_LAYER: digest}
        return name, "" if is_same else "a fresh build of the bundle has another content"


@contextmanager
def _bundle_layer(engine: Engine, base: StoredImage, files: Mapping[str, bytes]) -> Iterator[Path]:
    """Give the archive of what a bundle adds to its base, byte-compiled."""
    tree = files_below(BUNDLE_FOLDER, files)
    with _compiled(engine, base.id, COMPILE_BUNDLE, tree) as container:
        tree |= _read_compiled(engine, container, tree, (BUNDLE_FOLDER,))
    with tempfile.NamedTemporaryFile(prefix="toolcrib-") as layer:
        write_layer(tree, cast(IO[bytes], layer))
        layer.flush()
        yield Path(layer.name)


def _bundle_labels(base: StoredImage, bundle: str, key: str, layer: Path) -> dict[str, str]:
    with layer.open("rb") as file:
        added = sum_up(file).bundle
    return {
        LABEL_BUNDLE: key,
        LABEL_BUNDLE_NAME: bundle,
        LABEL_ON: base.id,
        LABEL_CONTENT: base.content.base,
        LABEL_ADDED: added,
    }


def make_base_layer(
    engine: Engine, cache_dir: Path, on_step: OnStep = logger.info, extras: Collection[str] = ()
) -> Path:
    """Write the archive of a base image, unless the cache has it.

    It holds what was put together here, and of what the container with the compiler made only the compiled
    files. The same parts give the same bytes.

    Args:
        engine: Runs the compiler; nothing stays there.
        cache_dir: Where it is kept.
        on_step: Told what is being done.
        extras: As for `build_base`.

    Raises:
        ImageFailed: It could not be made; says why.
    """
    kept = cache_dir / f"base-{content_key(extras)[:16]}.tar"
    if kept.exists():
        return kept
    tree = make_rootfs(cache_dir, on_step, extras)
    on_step("byte-compiling the base image")
    with tempfile.TemporaryDirectory(prefix="toolcrib-") as folder:
        archive = Path(folder) / "base.tar"
        _write(tree, archive)
        image = _import(engine, archive)
        try:
            with _compiled(engine, image, COMPILE_BASE, {}) as container:
                tree |= _read_compiled(engine, container, tree, _BASE_FOLDERS)
        finally:
            engine.client.remove_image(image, force=True)
        _write(tree, archive)
        keep(archive, kept)
    return kept


def _write(tree: Tree, archive: Path) -> None:
    with archive.open("wb") as file:
        write_layer(tree, file)


def _find_base(engine: Engine, base_id: str) -> StoredImage:
    base = image_store.inspect(engine, base_id)
    if base is None:
        raise ImageFailed(f"the engine does not have the base image {base_id}: build it once more")
    if base.kind != "base":
        raise ImageFailed(f"{base_id} is no base image of ours: it {base.find_flaw() or 'is a bundle'}")
    return base


def _is_bundle(found: StoredImage, base: StoredImage, key: str) -> bool:
    """Tell whether a name led where it should: somebody may have given it to another image."""
    return found.kind == "bundle" and found.key == key and found.layers[:-1] == base.layers


def _import(engine: Engine, archive: Path) -> str:
    with archive.open("rb") as file:
        answer = str(engine.client.import_image(src=cast(IO[bytes], file), repository=None, tag=None))
    marker = '"status":"sha256:'
    if marker not in answer:
        raise ImageFailed(f"the engine did not take {archive.name}: {answer.strip()[-300:]}")
    return "sha256:" + answer.split(marker)[1][:64]


@contextmanager
def _compiled(engine: Engine, image: str, program: str, tree: Tree) -> Iterator[str]:
    """Give a stopped container in which the program has run."""
    client = engine.client
    container = client.create_container_from_config(_builder(image, program), None)["Id"]
    try:
        if tree:
            archive = io.BytesIO()
            write_layer(tree, archive)
            client.put_archive(container, "/", archive.getvalue())
        client.start(container)
        code = client.wait(container, timeout=COMPILE_SECONDS)["StatusCode"]
        if code != 0:
            said = client.logs(container, tail=20).decode(errors="replace").strip()
            raise ImageFailed(f"byte-compiling failed: {said[-800:]}")
        yield container
    finally:
        client.remove_container(container, v=True, force=True)


def _read_compiled(engine: Engine, container: str, tree: Tree, folders: Sequence[str]) -> Tree:
    """Read the compiled files of a tree's sources, and nothing else that may be there."""
    wanted = {name for source in tree if source.endswith(".py") for name in compiled_names(source)}
    found: Tree = {}
    for folder in folders:
        above = str(PurePosixPath(folder).parent)
        chunks, _ = engine.client.get_archive(container, f"/{folder}")
        names = [name.removeprefix(f"{above}/") for name in wanted if name.startswith(f"{folder}/")]
        try:
            tree_there = read_tree(as_file(chunks), names, MAX_COMPILED_BYTES)
        except ValueError as error:
            raise ImageFailed(f"byte-compiling failed: {error}") from error
        plain = {name: entry.data for name, entry in tree_there.items() if entry.is_file}
        found |= files_below(above, plain)
    return found


def _builder(image: str, program: str) -> dict[str, Any]:
    return {
        "Image": image,
        "Entrypoint": [*COMPILER, program],
        "Cmd": [],
        "Env": [f"{name}={value}" for name, value in COMPILER_ENVIRONMENT.items()],
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


def _bundle_key(base_id: str, bundle: str, files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    parts = [_VERSION.encode(), base_id.encode(), bundle.encode()]
    parts += [part for name in sorted(files) for part in (name.encode(), files[name])]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
