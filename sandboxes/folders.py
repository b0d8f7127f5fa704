"""Images without an engine: unpacked folders, each known by what is in it.

    <cache>/folders/<64 digits>/root       a base: what write_rootfs gives, byte-compiled
    <cache>/folders/<64 digits>/bundle     a bundle: what is mounted at /opt/bundle on its base
    <cache>/folders/<64 digits>/image.json the kind, and a bundle's base
    <cache>/folders/keys/<key>             the id of what was built of these parts

Rules:
    * an id is "sha256:" and the digest of every path, mode, link and byte in the folder, and of the base's id:
      two builds of the same parts have the same id, a changed folder has another one (`verify`);
    * a finished folder appears by one rename, and one builder works at a time: half an image is never found;
    * everything belongs to root, and only root can pass the folder that they are in. A sandbox gets them
      read-only, by descriptor;
    * archives are unpacked by tarfile's data filter. The compiler runs in a sandbox without network, because
      a bundle's source is another party's.
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
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from sandboxes.rootfs import ImageFailed, OnStep, content_key, write_rootfs

MAX_BUNDLE_BYTES = 32 * 1024 * 1024

_VERSION = b"toolcrib-folder-1"  # raise it when the way of building or naming changes
_ID = re.compile(r"sha256:[0-9a-f]{64}")

logger = logging.getLogger(__name__)


class Compile(Protocol):
    """Byte-compiles what is in a folder, confined."""

    def __call__(self, root: Path, bundle: Path | None) -> None:
        """Compile a base, or a bundle on its base.

        Args:
            root: The base's folder; it is compiled when there is no bundle.
            bundle: The bundle's folder.

        Raises:
            ImageFailed: A file does not compile.
        """


@dataclass(frozen=True, slots=True)
class FolderImage:
    """One image.

    Attributes:
        image_id: "sha256:…" of its content.
        root: What becomes the root.
        bundle: What is mounted at /opt/bundle; None for a base.
    """

    image_id: str
    root: Path
    bundle: Path | None


class Folders:
    """The images in one cache folder."""

    def __init__(self, cache_dir: Path, compile_folder: Compile) -> None:
        """Know where they are; nothing is made yet.

        Args:
            cache_dir: Where downloaded parts and images are kept.
            compile_folder: Does what needs a sandbox.
        """
        self._cache_dir, self._place, self._compile = cache_dir, cache_dir / "folders", compile_folder

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
        key = hashlib.sha256(_VERSION + content_key(extras).encode()).hexdigest()

        def fill(folder: Path) -> None:
            archive = folder / "base.tar"
            write_rootfs(archive, self._cache_dir, on_step, extras)
            on_step("unpacking the base image")
            _unpack(archive, folder / "root")
            archive.unlink()
            on_step("byte-compiling the base image")
            self._compile(folder / "root", None)

        return self._built(key, None, fill)

    def build_bundle(self, base_id: str, files: Mapping[str, bytes]) -> str:
        """Make the image of one bundle unless it is there.

        Args:
            base_id: The base image's id.
            files: Handler and generated code, by path under /opt/bundle.

        Returns:
            The image's id.

        Raises:
            ImageFailed: A path is not usable, a file does not compile, or the base is not there.
        """
        _check_files(files)
        base = self.find(base_id)
        key = _bundle_key(base_id, files)

        def fill(folder: Path) -> None:
            for name, data in files.items():
                file = folder / "bundle" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            self._compile(base.root, folder / "bundle")

        return self._built(key, base_id, fill)

    def find(self, image_id: str) -> FolderImage:
        """Find an image.

        Raises:
            ImageFailed: It is not there.
        """
        if not _ID.fullmatch(image_id):
            raise ImageFailed(f"{image_id!r}: is no image id; one begins with sha256:")
        folder = self._folder(image_id)
        try:
            base_id = json.loads((folder / "image.json").read_text())["base"]
        except FileNotFoundError as error:
            raise ImageFailed(f"image {image_id[:19]} is not in {self._place}: build it again") from error
        if base_id is None:
            return FolderImage(image_id, folder / "root", None)
        return FolderImage(image_id, self.find(base_id).root, folder / "bundle")

    def mount_point(self, name: str) -> Path:
        """Give a path that is free, where something may be mounted for a moment."""
        return self._place / f"mount-{name}"

    def verify(self, image_id: str) -> bool:
        """Tell whether an image and its base still are what their ids say; reads every file of them."""
        image = self.find(image_id)
        if image.bundle is None:
            return _digest(image.root, None) == image_id
        base_id = f"sha256:{image.root.parent.name}"
        return self.verify(base_id) and _digest(image.bundle, base_id) == image_id

    def list(self) -> list[FolderImage]:
        """List the images that are there."""
        if not self._place.is_dir():
            return []
        names = sorted(entry.name for entry in self._place.iterdir())
        return [self.find(f"sha256:{name}") for name in names if _ID.fullmatch(f"sha256:{name}")]

    def remove(self, image_id: str) -> None:
        """Remove an image; a sandbox that has it keeps what it has open, and no more.

        Raises:
            ImageFailed: It is not there, or bundles stand on it.
        """
        image = self.find(image_id)
        for other in self.list():
            if image.bundle is None and other.root == image.root and other.bundle is not None:
                raise ImageFailed(f"image {other.image_id[:19]} stands on {image_id[:19]}: remove that first")
        with self._locked():
            doomed = Path(tempfile.mkdtemp(prefix="removed-", dir=self._place))
            self._folder(image_id).rename(doomed / "image")
            shutil.rmtree(doomed)

    def _folder(self, image_id: str) -> Path:
        return self._place / image_id.removeprefix("sha256:")

    def _built(self, key: str, base_id: str | None, fill: Callable[[Path], None]) -> str:
        """Give the id of what was built of these parts, or build it."""
        try:
            with self._locked():
                kept = self._place / "keys" / key
                if kept.is_file() and (self._folder(kept.read_text()) / "image.json").is_file():
                    return kept.read_text()
                image_id = self._make(base_id, fill)
                _write_at_once(kept, image_id)
                return image_id
        except OSError as error:
            raise ImageFailed(f"an image cannot be made in {self._place}: {error}") from error

    def _make(self, base_id: str | None, fill: Callable[[Path], None]) -> str:
        folder = Path(tempfile.mkdtemp(prefix="partial-", dir=self._place))
        try:
            content = folder / ("root" if base_id is None else "bundle")
            content.mkdir()
            fill(folder)
            _seal(content)
            image_id = _digest(content, base_id)
            (folder / "image.json").write_text(json.dumps({"base": base_id}))
            if not self._folder(image_id).exists():
                folder.rename(self._folder(image_id))
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


def _unpack(archive: Path, target: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise ImageFailed("this Python cannot unpack safely: use 3.11.4 or later")
    try:
        with tarfile.open(archive) as members:
            members.extractall(target, filter=_within)
    except tarfile.FilterError as error:
        raise ImageFailed(f"{archive.name} is not safe to unpack: {error}") from error


def _within(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo | None:
    """Tarfile's data filter, for an archive whose absolute links mean its own root."""
    if member.issym() and member.linkname.startswith("/"):
        up = "../" * (len(PurePosixPath(member.name).parts) - 1)
        member = member.replace(linkname=up + member.linkname.lstrip("/"), deep=False)
    return tarfile.data_filter(member, target)


def _seal(content: Path) -> None:
    """Give everything to root, with one of two modes; refuse what an image does not have."""
    for path in [content, *_walk(content)]:
        mode = path.lstat().st_mode
        os.chown(path, 0, 0, follow_symlinks=False)
        if stat.S_ISDIR(mode):
            path.chmod(0o755)
        elif stat.S_ISREG(mode):
            path.chmod(0o755 if mode & 0o100 else 0o644)
        elif not stat.S_ISLNK(mode):
            raise ImageFailed(f"{path.relative_to(content)}: is no file, folder or link")


def _digest(content: Path, base_id: str | None) -> str:
    digest = hashlib.sha256(_VERSION + (base_id or "").encode())
    for path in _walk(content):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            data = os.fsencode(path.readlink())
        else:
            data = path.read_bytes() if stat.S_ISREG(mode) else b""
        for part in (os.fsencode(path.relative_to(content)), oct(mode).encode(), data):
            digest.update(len(part).to_bytes(8, "big") + part)
    return f"sha256:{digest.hexdigest()}"


def _walk(content: Path) -> list[Path]:
    """List everything below a folder, sorted, without following links."""
    found = (
        Path(place, name) for place, folders, files in os.walk(content) for name in (*folders, *files)
    )
    return sorted(found, key=os.fsencode)


def _write_at_once(file: Path, text: str) -> None:
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text)
    partial.rename(file)


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


def _bundle_key(base_id: str, files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(_VERSION)
    for part in (base_id.encode(), *(part for name in sorted(files) for part in (name.encode(), files[name]))):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
