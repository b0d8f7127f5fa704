"""The files of the base image: Debian's Python and nothing else, our wheels, SDK, init and syscall filter.

A bundle may ask for a base with more, out of the short list `EXTRAS`: single files of other packages, whose
libraries the base has already. There is no package manager and no setuid program in any of them, and a shell
only for a bundle that asks for one: what a handler does not need, an attacker does not get. Packages come
from the host's own apt sources, wheels from the host's own package index, checked against the hashes in
requirements/image.txt. Both are kept as archives in the cache folder, so that a changed SDK or a new engine
downloads nothing.

    ImageFailed          an image could not be made; says what is missing or went wrong
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sandboxes.image_content import BUNDLE_FOLDER, FOLDER, LIBRARY_FOLDER, Entry, Tree, read_tree, write_layer
from sandboxes.image_requirements import Pin, read_requirements
from sandboxes.image_wheels import PYTHON, ImageFailed, OnStep, fetch_wheels, keep, run
from sandboxes.init_guard import guard
from sandboxes.syscall_filter import filter_bytes

__all__ = ["EXTRAS", "ImageFailed", "OnStep", "content_key", "make_rootfs", "read_base_pins", "write_rootfs"]

PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")  # the last for protobuf's own parser
EXTRAS = {
    "git": "usr/bin/git",
    "openssh-client": "usr/bin/ssh",
    # OpenSSH wants a user name for its uid, and a sandbox's has none: this library gives one by preload.
    "libnss-wrapper": "usr/lib/[^/]+/libnss_wrapper.so.*",
    # For handlers in sh: one program that is a shell and the small tools beside it. Not setuid.
    "busybox-static": "(usr/)?bin/busybox",
}
"""What a bundle may ask for beside the base: Debian's package, and the one file of it that is kept."""
RELEASES = {"bookworm": PYTHON}  # by name, with the Python that it has
LIBRARY = "opt/toolcrib/lib"

_VERSION = "2"  # raise it when the way of building changes
_FETCH_VERSION = "1"  # raise it when the way of fetching Debian's packages changes
_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE.parent / "requirements" / "image.txt"
_KEPT = re.compile(
    r"(lib/(?!systemd|udev|init)|lib64/|usr/lib(32|64)?/(?!apt|dpkg|systemd|python3/|mime)|usr/bin/python3[.0-9]*$|"
    r"etc/python3\.\d+/|usr/share/zoneinfo/|usr/share/doc/[^/]+/copyright$)"
)
_OWN_FILES = {
    "etc/passwd": "root:x:0:0:root:/:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/resolv.conf": "",
    "etc/hostname": "sandbox\n",
    # Puts a bundle's dependencies last on Python's path, after the SDK and Python's own library.
    f"usr/local/lib/python{PYTHON}/dist-packages/toolcrib.pth": f"/{BUNDLE_FOLDER}/{LIBRARY_FOLDER}\n",
}
_FOLDERS = ("dev", "opt/toolcrib", "proc", "run/init", "run/toolcrib", "sys", BUNDLE_FOLDER)
_BUILD_SECONDS = 600


def content_key(extras: Collection[str] = ()) -> str:
    """Digest of everything that a base image is made of, packages and wheels by their names and hashes.

    Args:
        extras: Names out of `EXTRAS`.

    Raises:
        ImageFailed: One is not in the list.
    """
    _check_extras(extras)
    digest = hashlib.sha256()
    texts = [_VERSION, ",".join(PACKAGES), _release(), _REQUIREMENTS.read_text(), *_FOLDERS]
    texts += [f"{name}={EXTRAS[name]}" for name in sorted(set(extras))]
    parts = [text.encode() for text in texts]
    parts += [part for name, data in sorted(_own_files().items()) for part in (name.encode(), data)]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def make_rootfs(cache_dir: Path, on_step: OnStep, extras: Collection[str] = ()) -> Tree:
    """Put together the files of a base image, not byte-compiled yet.

    Args:
        cache_dir: Where the downloaded parts are kept.
        on_step: Told what is being done.
        extras: Names out of `EXTRAS`.

    Raises:
        ImageFailed: A program is missing or failed, or an extra is not in the list.
    """
    _check_extras(extras)
    debian = _read_parts(_debian(cache_dir, on_step))
    tree = {name: entry for name, entry in debian.items() if _KEPT.match(name)}
    for extra in sorted(set(extras)):
        tree |= _read_parts(_extra(extra, cache_dir, on_step))
    wheels = fetch_wheels(read_base_pins(), cache_dir, on_step, "the base image")
    tree |= {f"{LIBRARY}/{name}": entry for name, entry in wheels.items()}
    tree |= {name: Entry(data) for name, data in _own_files().items()}
    return tree | dict.fromkeys(_FOLDERS, FOLDER) | {"tmp": Entry(mode=0o1777, is_folder=True)}


def write_rootfs(target: Path, cache_dir: Path, on_step: OnStep, extras: Collection[str] = ()) -> None:
    """Write the files of a base image, not byte-compiled yet, as one archive.

    Args:
        target: The archive to write.
        cache_dir: Where the downloaded parts are kept.
        on_step: Told what is being done.
        extras: Names out of `EXTRAS`.

    Raises:
        ImageFailed: A program is missing or failed, or an extra is not in the list.
    """
    tree = make_rootfs(cache_dir, on_step, extras)
    with target.open("wb") as file:
        write_layer(tree, file)


def read_base_pins() -> tuple[Pin, ...]:
    """Read what Python packages every base image has, with their versions."""
    return read_requirements(_REQUIREMENTS.read_text(), _REQUIREMENTS.name)


def _release() -> str:
    words = re.search(r"^VERSION_CODENAME=(\S+)$", _os_release(), re.MULTILINE)
    name = words.group(1) if words else "unknown"
    if name not in RELEASES:
        raise ImageFailed(f"the base image is built on Debian {' or '.join(RELEASES)}, not on {name!r}")
    return name


def _os_release() -> str:
    try:
        return Path("/etc/os-release").read_text()
    except OSError as error:
        raise ImageFailed("/etc/os-release cannot be read: the base image is built on Debian") from error


def _own_files() -> dict[str, bytes]:
    """What is ours, by its place: SDK (where it is installed), its messages, init, filter, a few settings."""
    spec = importlib.util.find_spec("toolcrib")
    assert spec is not None and spec.submodule_search_locations
    package = Path(next(iter(spec.submodule_search_locations)))
    files = [
        package / "__init__.py",
        # What runs a handler in its author's tests has no business where handlers run.
        *(file for file in (package / "handler").rglob("*.py") if file.name != "testing.py"),
        *(package / "v1").glob("__init__.py"),
    ]
    code = {f"{LIBRARY}/toolcrib/{file.relative_to(package)}": file.read_bytes() for file in files}
    code["opt/toolcrib/init.py"] = (_HERE / "container_init.py").read_bytes()
    code["opt/toolcrib/container_relay.py"] = (_HERE / "container_relay.py").read_bytes()
    code["opt/toolcrib/seccomp.bpf"] = guard(filter_bytes(), os.uname().machine)
    return code | {name: text.encode() for name, text in _OWN_FILES.items()}


def _check_extras(extras: Collection[str]) -> None:
    unknown = sorted(set(extras) - set(EXTRAS))
    if unknown:
        raise ImageFailed(f"package {unknown[0]!r} is not one that an image may have: {', '.join(EXTRAS)}")


def _debian(cache_dir: Path, on_step: OnStep) -> Path:
    release = _release()
    key = hashlib.sha256(f"{_FETCH_VERSION} {release} {PACKAGES}".encode()).hexdigest()[:16]
    kept = cache_dir / f"debian-{release}-{key}.tar"
    if not kept.exists():
        on_step(f"fetching Python from Debian {release}")
        with _bootstrapped(release, PACKAGES) as fresh:
            keep(fresh, kept)
    return kept


def _extra(name: str, cache_dir: Path, on_step: OnStep) -> Path:
    """Fetch one extra package; only its one file and its copyright are kept."""
    release = _release()
    key = hashlib.sha256(f"{_FETCH_VERSION} {release} {name} {EXTRAS[name]}".encode()).hexdigest()[:16]
    kept = cache_dir / f"extra-{release}-{name}-{key}.tar"
    if kept.exists():
        return kept
    on_step(f"fetching {name} from Debian {release}")
    wanted = re.compile(f"({EXTRAS[name]}|usr/share/doc/{re.escape(name)}/copyright)$")
    with _bootstrapped(release, [name]) as whole:
        fresh = whole.with_name("extra.tar")
        tree = {path: entry for path, entry in _read_parts(whole).items() if wanted.match(path)}
        if len(tree) < 2:
            raise ImageFailed(f"Debian {release}'s package {name} lacks {EXTRAS[name]}")
        with fresh.open("wb") as file:
            write_layer(tree, file)
        keep(fresh, kept)
    return kept


@contextmanager
def _bootstrapped(release: str, packages: Sequence[str]) -> Iterator[Path]:
    """Give an archive of packages and all that they depend on."""
    if shutil.which("mmdebstrap") is None:
        raise ImageFailed("mmdebstrap is missing: install it (Debian: apt-get install mmdebstrap)")
    with tempfile.TemporaryDirectory(prefix="toolcrib-") as name:
        folder = Path(name)
        fresh = folder / "debian.tar"
        sources = _write_sources(folder, release)
        options = [f"--aptopt={line}" for line in _apt_proxy()]
        include = f"--include={','.join(packages)}"
        command = ["mmdebstrap", "--quiet", "--variant=extract", include, *options, release, str(fresh)]
        run([*command, *sources], "mmdebstrap", _BUILD_SECONDS)
        yield fresh


def _write_sources(folder: Path, release: str) -> list[str]:
    """Copy the host's apt sources for this release, and no others, in the two formats there are."""
    lines, stanzas = [], []
    for file in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
        if file.suffix == ".list" and file.is_file():
            pattern = re.compile(
                rf"^\s*deb\s+(\[[^]]*\]\s+)?\S+\s+{release}(-updates|-security)?\s", re.MULTILINE
            )
            lines += [line for line in file.read_text().splitlines() if pattern.match(line)]
        elif file.suffix == ".sources" and file.is_file():
            suites = re.compile(rf"^Suites:.*\b{release}\b", re.MULTILINE)
            stanzas += [text for text in re.split(r"\n\s*\n", file.read_text()) if suites.search(text)]
    if not lines and not stanzas:
        raise ImageFailed(f"/etc/apt names no source for Debian {release}")
    written = []
    for name, text in (("host.list", "\n".join(lines)), ("host.sources", "\n\n".join(stanzas))):
        if text:
            (folder / name).write_text(text + "\n")
            written.append(str(folder / name))
    return written


def _apt_proxy() -> list[str]:
    """The proxy that the host's apt uses; mmdebstrap does not read the host's settings by itself."""
    found = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False)
    return [line for line in found.stdout.splitlines() if re.match(r"Acquire::https?::Proxy ", line)]


def _read_parts(archive: Path) -> Tree:
    """Read files, folders and links of packages: all become root's, without setuid bits."""
    with archive.open("rb") as file:
        return {name: replace(entry, mode=entry.mode & 0o755) for name, entry in read_tree(file).items()}
