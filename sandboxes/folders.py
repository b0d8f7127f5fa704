"""Images without an engine: unpacked folders, each known by what is in it.

    <dir>/folders/<64 digits>/content    a base's root, or what a bundle adds to it
    <dir>/folders/<64 digits>/image.json a bundle's base; null for a base
    <dir>/folders/keys/<key>             the id of what was built of these parts

Rules:
    * an id is "sha256:" and the digest of every path, mode, link and byte, and of the base's id: two builds
      of the same parts have the same id, a changed folder has another one (`verify`);
    * a finished folder appears by one rename, and one builder works at a time: half an image is never found;
    * everything belongs to root, and only root can pass the folder that they are in. A sandbox gets them
      read-only, by descriptor;
    * files are written into new folders only, and never through a link. The compiler runs in a sandbox
      without network, because a bundle's source is another party's; only the compiled files that were
      expected come back from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from sandboxes.image_content import BUNDLE_FOLDER, FOLDER, Entry, Tree, files_below
from sandboxes.image_recipe import MAX_COMPILED_BYTES, check_files, compiled_names
from sandboxes.rootfs import ImageFailed, OnStep, content_key, make_rootfs

_VERSION = b"toolcrib-folder-2"  # raise it when the way of building or naming changes
_ID = re.compile(r"sha256:[0-9a-f]{64}")

logger = logging.getLogger(__name__)


class Compile(Protocol):
    """Byte-compiles what is in a folder, confined."""

    def __call__(self, root: Path, bundle: Path | None) -> None:
        """Compile a base, or a bundle on its base.

        Args:
            root: The base's root; it is compiled when there is no bundle.
            bundle: What is mounted at /opt/bundle.

        Raises:
            ImageFailed: A file does not compile.
        """


@dataclass(frozen=True, slots=True)
class FolderImage:
    """One image.

    Attributes:
        image_id: "sha256:…" of its content.
        root: What becomes the root.
        base_id: A bundle's base; None for a base.
        bundle: What is mounted at /opt/bundle; None for a base.
    """

    image_id: str
    root: Path
    base_id: str | None
    bundle: Path | None


class Folders:
    """The images in one folder."""

    def __init__(self, image_dir: Path, compile_folder: Compile, parts_dir: Path | None = None) -> None:
        """Know where they are; nothing is made yet.

        Args:
            image_dir: Where images are kept.
            compile_folder: Does what needs a sandbox.
            parts_dir: Where downloaded parts are kept; None: with the images.
        """
        self._place, self._compile = image_dir / "folders", compile_folder
        self._parts_dir = parts_dir or image_dir

    def build_base(self, on_step: OnStep = logger.info, extras: Collection[str] = ()) -> str:
        """Make a base image unless it is there.

        Args:
            on_step: Told what is being done.
            extras: What a bundle's manifest asks for under `image.packages`; each combination is an image.

        Returns:
            The image's id.

        Raises:
            ImageFailed: It could not be made; says why.
        """

        def compiled(work: Path) -> Tree:
            tree = _plain(make_rootfs(self._parts_dir, on_step, extras))
            _write(tree, work)
            on_step("byte-compiling the base image")
            self._compile(work, None)
            return tree | _read_compiled(tree, work)

        return self._built(_key(content_key(extras)), None, compiled)

    def find_base(self, extras: Collection[str] = ()) -> str | None:
        """Give the id of the base image that this version makes; None where it is not built yet."""
        try:
            image_id = (self._place / "keys" / _key(content_key(extras))).read_text()
            return self.find(image_id).image_id
        except (OSError, ImageFailed):
            return None

    def build_bundle(self, base_id: str, files: Mapping[str, bytes]) -> str:
        """Make the image of one bundle unless it is there.

        Args:
            base_id: The base image's id.
            files: Handler, generated code and dependencies, by path under /opt/bundle.

        Returns:
            The image's id.

        Raises:
            ImageFailed: A path is not usable, a file does not compile, or the base is not there.
        """
        check_files(files)
        base = self.find(base_id)

        def compiled(work: Path) -> Tree:
            tree = files_below(BUNDLE_FOLDER, files)
            _write(tree, work)
            self._compile(base.root, work / BUNDLE_FOLDER)
            return tree | _read_compiled(tree, work)

        return self._built(_key(base_id, *sorted(files.items())), base_id, compiled)

    def find(self, image_id: str) -> FolderImage:
        """Find an image.

        Raises:
            ImageFailed: It is not there.
        """
        if not _ID.fullmatch(image_id):
            raise ImageFailed(f"{image_id!r}: is no image id; one begins with sha256:")
        content = self._folder(image_id) / "content"
        try:
            base_id = json.loads((content.parent / "image.json").read_text())["base"]
        except FileNotFoundError as error:
            raise ImageFailed(
                f"image {image_id[:19]} is not in the folder of images: build it again"
            ) from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ImageFailed(
                f"image {image_id[:19]} is damaged: remove its folder, and build it again"
            ) from error
        if base_id is None:
            return FolderImage(image_id, content, None, None)
        return FolderImage(image_id, self.find(base_id).root, base_id, content / BUNDLE_FOLDER)

    def verify(self, image_id: str) -> bool:
        """Tell whether an image and its base still are what their ids say; reads every file of them."""
        image = self.find(image_id)
        if image.base_id is not None and not self.verify(image.base_id):
            return False
        return _digest(_read(self._folder(image_id) / "content"), image.base_id) == image_id

    def list(self) -> list[FolderImage]:
        """List the images that are there."""
        if not self._place.is_dir():
            return []
        ids = sorted(f"sha256:{entry.name}" for entry in self._place.iterdir())
        return [self.find(image_id) for image_id in ids if _ID.fullmatch(image_id)]

    def remove(self, image_id: str) -> None:
        """Remove an image; a sandbox that has it keeps what it has open, and no more.

        Raises:
            ImageFailed: It is not there, or bundles stand on it.
        """
        self.find(image_id)
        for other in self.list():
            if other.base_id == image_id:
                raise ImageFailed(f"image {other.image_id[:19]} stands on {image_id[:19]}: remove that first")
        with self._locked():
            doomed = Path(tempfile.mkdtemp(prefix="removed-", dir=self._place))
            self._folder(image_id).rename(doomed / "image")
            shutil.rmtree(doomed)

    def _folder(self, image_id: str) -> Path:
        return self._place / image_id.removeprefix("sha256:")

    def _built(self, key: str, base_id: str | None, compiled: Callable[[Path], Tree]) -> str:
        """Give the id of what was built of these parts, or build it."""
        if os.geteuid() != 0:
            raise ImageFailed(f"images in {self._place} belong to root: build them as root")
        try:
            with self._locked():
                kept = self._place / "keys" / key
                if kept.is_file() and (self._folder(kept.read_text()) / "image.json").is_file():
                    return kept.read_text()
                image_id = self._make(base_id, compiled)
                _write_at_once(kept, image_id)
                return image_id
        except OSError as error:
            raise ImageFailed(f"an image cannot be made in {self._place}: {error}") from error

    def _make(self, base_id: str | None, compiled: Callable[[Path], Tree]) -> str:
        folder = Path(tempfile.mkdtemp(prefix="partial-", dir=self._place))
        try:
            (folder / "work").mkdir()
            tree = _plain(compiled(folder / "work"))
            image_id = _digest(tree, base_id)
            _write(tree, folder / "image" / "content")
            (folder / "image" / "image.json").write_text(json.dumps({"base": base_id}))
            if not self._folder(image_id).exists():
                (folder / "image").rename(self._folder(image_id))
            return image_id
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only builder; what a dead one left is cleared."""
        (self._place / "keys").mkdir(parents=True, exist_ok=True)
        self._place.chmod(0o700)
        with (self._place / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in [*self._place.glob("partial-*"), *self._place.glob("removed-*")]:
                shutil.rmtree(left, ignore_errors=True)
            yield


def _plain(tree: Tree) -> Tree:
    """Give the same tree with one mode for each kind, all folders named, and relative links only."""
    return {name: _plain_entry(name, entry) for name, entry in _with_folders(tree).items()}


def _with_folders(tree: Tree) -> Tree:
    """Give the same tree with the folders above each entry."""
    above = {str(parent) for name in tree for parent in PurePosixPath(name).parents} - {"."}
    return dict.fromkeys(above, FOLDER) | tree


def _plain_entry(name: str, entry: Entry) -> Entry:
    if entry.is_folder:
        return Entry(mode=0o755, is_folder=True)
    if not entry.target:
        return Entry(entry.data, mode=0o755 if entry.mode & 0o100 else 0o644)
    target = entry.target
    if target.startswith("/"):  # its own root is meant, not the host's
        target = "../" * (len(PurePosixPath(name).parts) - 1) + target.lstrip("/")
    return Entry(target=target, mode=0o777)


def _write(tree: Tree, folder: Path) -> None:
    """Write a tree into a folder that is new or empty, as root's; nothing is written over or through a link.

    Raises:
        ImageFailed: An entry leads out of the folder, or is below what is no folder.
    """
    whole = _with_folders(tree)
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(whole, key=lambda name: PurePosixPath(name).parts):  # a folder before what is in it
        _check_place(name, whole)
        _write_entry(whole[name], folder / name)


def _check_place(name: str, tree: Tree) -> None:
    path, target = PurePosixPath(name), tree[name].target
    is_inside = path.parts and not path.is_absolute() and ".." not in path.parts and str(path) == name
    led = os.path.normpath(path.parent / target) if target else ""
    leads_out = target.startswith("/") or led.split("/")[0] == ".."
    if not is_inside or leads_out:
        raise ImageFailed(f"an image's files are not safe to unpack: {name!r} leads out of it")
    if not all(tree[str(parent)].is_folder for parent in path.parents if parent.parts):
        raise ImageFailed(f"an image's files are not safe to unpack: {name!r} is below what is no folder")


def _write_entry(entry: Entry, path: Path) -> None:
    if entry.target:
        path.symlink_to(entry.target)
        return
    if entry.is_folder:
        path.mkdir()
    else:
        with path.open("xb") as file:
            file.write(entry.data)
    path.chmod(entry.mode)  # whatever the umask is
    os.utime(path, (0, 0))  # what Python compiles while it is imported has its source's time in it


def _read(folder: Path) -> Tree:
    """Read a tree from the disk without following links; a device, say, reads as an empty file."""
    tree: Tree = {}
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            mode = path.lstat().st_mode
            target = str(path.readlink()) if stat.S_ISLNK(mode) else ""
            data = path.read_bytes() if stat.S_ISREG(mode) else b""
            name = str(path.relative_to(folder))
            tree[name] = Entry(data, target, stat.S_IMODE(mode), stat.S_ISDIR(mode))
    return tree


def _read_compiled(tree: Tree, work: Path) -> Tree:
    """Read the compiled files of a tree's sources, and nothing else that may be there."""
    found: Tree = {}
    left = MAX_COMPILED_BYTES
    real = work.resolve()
    for source in (name for name in tree if name.endswith(".py")):
        for name in compiled_names(source):
            path = real / name
            if path.is_symlink() or not path.is_file() or path.resolve() != path:
                continue  # a compiler that was tricked could have left a link
            left -= path.stat().st_size
            if left < 0:
                raise ImageFailed("byte-compiling made more than an image may have")
            found[name] = Entry(path.read_bytes())
    return found


def _digest(tree: Tree, base_id: str | None) -> str:
    lines: list[object] = [base_id or ""]
    for name in sorted(tree):
        entry = tree[name]
        lines += [name, oct(entry.mode), entry.is_folder, entry.target, entry.data]
    return f"sha256:{_key(*lines)}"


def _key(*parts: object) -> str:
    digest = hashlib.sha256(_VERSION)
    for part in parts:
        for piece in part if isinstance(part, tuple) else (part,):
            data = piece if isinstance(piece, bytes) else str(piece).encode("utf-8", "surrogateescape")
            digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _write_at_once(file: Path, text: str) -> None:
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text)
    partial.rename(file)
