"""The files of the base image: Debian's Python and nothing else, our wheels, SDK and init.

A bundle may ask for a base with more, out of the short list `EXTRAS`: single files of other packages, whose
libraries the base has already. There is no shell, no package manager and no setuid program in any of them:
what a handler does not need, an attacker does not get. Packages come from the host's own apt sources, wheels
from the host's own package index, checked against the hashes in requirements/image.txt. Both are kept as
archives in the cache folder, so that a changed SDK or a new engine downloads nothing.

    ImageFailed          an image could not be made; says what is missing or went wrong
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sandboxes.outcome import SandboxError

OnStep = Callable[[str], None]

PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")  # the last for protobuf's own parser
EXTRAS = {
    "git": "usr/bin/git",
    "openssh-client": "usr/bin/ssh",
    # OpenSSH wants a user name for its uid, and a sandbox's has none: this library gives one by preload.
    "libnss-wrapper": "usr/lib/[^/]+/libnss_wrapper.so.*",
}
"""What a bundle may ask for beside the base: Debian's package, and the one file of it that is kept."""
RELEASES = {"bookworm": "3.11"}  # by name, with the Python that it has
LIBRARY = "opt/toolcrib/lib"

_VERSION = "1"  # raise it when the way of building changes
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
}
_FOLDERS = ("dev", "opt/bundle", "opt/toolcrib", "proc", "run/toolcrib", "sys", "tmp")
_BUILD_SECONDS = 600


class ImageFailed(SandboxError):
    """An image could not be made."""


def content_key(extras: Collection[str] = ()) -> str:
    """Digest of everything that a base image is made of, packages and wheels by their names and hashes.

    Args:
        extras: Names out of `EXTRAS`.

    Raises:
        ImageFailed: One is not in the list.
    """
    _check_extras(extras)
    digest = hashlib.sha256()
    parts = [_VERSION, ",".join(PACKAGES), _release(), _REQUIREMENTS.read_text()]
    parts += [f"{name}={EXTRAS[name]}" for name in sorted(set(extras))]
    parts += [text for name, data in sorted(_own_code().items()) for text in (name, data.decode())]
    parts += [f"{name}={text}" for name, text in sorted(_OWN_FILES.items())]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part.encode())
    return digest.hexdigest()


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
    _check_extras(extras)
    debian = _debian(cache_dir, on_step)
    more = [_extra(name, cache_dir, on_step) for name in sorted(set(extras))]
    wheels = _wheels(cache_dir, on_step)
    with tarfile.open(target, "w") as archive:
        for folder in _FOLDERS:
            archive.addfile(_entry(folder, tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755))
        _copy(debian, archive, lambda name: name if _KEPT.match(name) else None)
        for extra in more:
            _copy(extra, archive, lambda name: name)
        _copy(wheels, archive, lambda name: f"{LIBRARY}/{name}")
        for name, text in sorted(_OWN_FILES.items()):
            add_file(archive, name, text.encode())
        for name, data in sorted(_own_code().items()):
            add_file(archive, name, data)


def add_file(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file that root owns and everybody can read."""
    entry = _entry(name, tarfile.REGTYPE, 0o644)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


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


def _own_code() -> dict[str, bytes]:
    """SDK (found where it is installed), its generated messages, and init; by their place in the image."""
    spec = importlib.util.find_spec("toolcrib")
    assert spec is not None and spec.submodule_search_locations
    package = Path(next(iter(spec.submodule_search_locations)))
    files = [
        package / "__init__.py",
        *(package / "handler").rglob("*.py"),
        *(package / "v1").glob("__init__.py"),
    ]
    code = {f"{LIBRARY}/toolcrib/{file.relative_to(package)}": file.read_bytes() for file in files}
    return code | {"opt/toolcrib/init.py": (_HERE / "container_init.py").read_bytes()}


def _check_extras(extras: Collection[str]) -> None:
    unknown = sorted(set(extras) - set(EXTRAS))
    if unknown:
        raise ImageFailed(f"package {unknown[0]!r} is not one that an image may have: {', '.join(EXTRAS)}")


def _debian(cache_dir: Path, on_step: OnStep) -> Path:
    release = _release()
    key = hashlib.sha256(f"{_VERSION} {release} {PACKAGES}".encode()).hexdigest()[:16]
    kept = cache_dir / f"debian-{release}-{key}.tar"
    if not kept.exists():
        on_step(f"fetching Python from Debian {release}")
        with _bootstrapped(release, PACKAGES) as fresh:
            _keep(fresh, kept)
    return kept


def _extra(name: str, cache_dir: Path, on_step: OnStep) -> Path:
    """Fetch one extra package; only its one file and its copyright are kept."""
    release = _release()
    key = hashlib.sha256(f"{_VERSION} {release} {name} {EXTRAS[name]}".encode()).hexdigest()[:16]
    kept = cache_dir / f"extra-{release}-{name}-{key}.tar"
    if kept.exists():
        return kept
    on_step(f"fetching {name} from Debian {release}")
    wanted = re.compile(f"({EXTRAS[name]}|usr/share/doc/{re.escape(name)}/copyright)$")
    with _bootstrapped(release, [name]) as whole:
        fresh = whole.with_name("extra.tar")
        with tarfile.open(fresh, "w") as archive:
            _copy(whole, archive, lambda path: path if wanted.match(path) else None)
            if len(archive.getmembers()) < 2:
                raise ImageFailed(f"Debian {release}'s package {name} lacks {EXTRAS[name]}")
        _keep(fresh, kept)
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
        _run(["mmdebstrap", "--quiet", "--variant=extract", include, *options, release, str(fresh), *sources])
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


def _wheels(cache_dir: Path, on_step: OnStep) -> Path:
    version = RELEASES[_release()]
    key = hashlib.sha256(f"{_VERSION} {version} {_REQUIREMENTS.read_text()}".encode()).hexdigest()[:16]
    kept = cache_dir / f"wheels-{key}.tar"
    if kept.exists():
        return kept
    on_step("fetching the image's wheels")
    with tempfile.TemporaryDirectory(prefix="toolcrib-") as name:
        target = Path(name) / "lib"
        _run([*_installer(version), "--target", str(target), "-r", str(_REQUIREMENTS)])
        fresh = Path(name) / "wheels.tar"
        with tarfile.open(fresh, "w") as archive:
            for file in sorted(path for path in target.rglob("*") if path.is_file()):
                add_file(archive, str(file.relative_to(target)), file.read_bytes())
        _keep(fresh, kept)
    return kept


def _installer(version: str) -> list[str]:
    """Pip where this environment has it, else the uv beside its Python; both check the hashes."""
    common = ["--quiet", "--require-hashes", "--no-deps", "--python-version", version]
    if importlib.util.find_spec("pip") is not None:
        pip = [sys.executable, "-m", "pip", "install", "--only-binary=:all:", "--no-compile"]
        return [*pip, "--implementation=cp", *common]
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise ImageFailed(f"neither pip nor uv is installed for {sys.executable}: install one of them")
    return [uv, "pip", "install", "--only-binary=:all:", "--python", sys.executable, *common]


def _keep(fresh: Path, kept: Path) -> None:
    """Put a finished archive into the cache in one step: half an archive must never be found there."""
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = kept.with_suffix(".partial")
    shutil.copyfile(fresh, partial)
    partial.rename(kept)


def _copy(source: Path, archive: tarfile.TarFile, place: Callable[[str], str | None]) -> None:
    with tarfile.open(source) as members:
        for member in members:
            name = place(member.name.removeprefix("./"))
            if name is None or not (member.isreg() or member.issym() or member.islnk() or member.isdir()):
                continue
            archive.addfile(_plain(member, name), members.extractfile(member) if member.isreg() else None)


def _plain(member: tarfile.TarInfo, name: str) -> tarfile.TarInfo:
    """The same entry for another place: root's, without setuid bits and times."""
    entry = _entry(name, member.type, member.mode & 0o755)
    entry.size, entry.linkname = member.size, member.linkname
    return entry


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_BUILD_SECONDS)
    except subprocess.CalledProcessError as error:
        last_words = (error.stderr or error.stdout or "").strip()[-800:]
        raise ImageFailed(f"{Path(command[0]).name} failed: {last_words}") from error
    except subprocess.TimeoutExpired as error:
        raise ImageFailed(f"{Path(command[0]).name} did not end within {_BUILD_SECONDS} s") from error
