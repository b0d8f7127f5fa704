"""Byte-compiles an image's folder in a bubblewrap: without network, with limits, as a user of its own."""

from __future__ import annotations

import os
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from sandboxes.bubblewrap_launch import Order, launch
from sandboxes.bubblewrap_measures import MEASURES, settings_for
from sandboxes.cgroups import find_cgroups
from sandboxes.outcome import SandboxSpec, SandboxUnavailable
from sandboxes.rootfs import ImageFailed
from sandboxes.uids import allocate_uid

_SECONDS = 180
_UNCHECKED = "py_compile.PycInvalidationMode.UNCHECKED_HASH"
_BASE = (
    "import compileall, glob, py_compile, sys;"
    f"good = all([compileall.compile_dir(d, quiet=1, invalidation_mode={_UNCHECKED})"
    " for d in [*glob.glob('/usr/lib/python3.*'), '/opt/toolcrib/lib']]);"
    "py_compile.compile('/opt/toolcrib/init.py', '/opt/toolcrib/init.pyc',"
    f" doraise=True, invalidation_mode={_UNCHECKED});"
    "sys.exit(not good)"
)
_BUNDLE = (
    "import compileall, py_compile, sys;"
    f"sys.exit(not compileall.compile_dir('/opt/bundle', quiet=1, invalidation_mode={_UNCHECKED}))"
)


@dataclass(frozen=True)
class _Limits:
    memory_mib: int = 512
    pids: int = 16
    cpus: float = 4.0
    tmp_mib: int = 64
    output_kib: int = 0
    log_kib: int = 0
    artefacts: int = 0
    artefact_kib: int = 0


def compile_folder(root: Path, bundle: Path | None) -> None:
    """Compile a base, or a bundle on its base; `folders.Compile`.

    Raises:
        ImageFailed: A file does not compile, or there is no sandbox for it.
    """
    uid = allocate_uid()
    _give(root if bundle is None else bundle, uid)
    # A base is compiled where it is; its root is the one thing that can be written.
    measures = [measure for measure in MEASURES if bundle is not None or measure.name != "read-only-root"]
    settings = settings_for(SandboxSpec("", (), _Limits(), None, uid), measures)
    program = ("/usr/bin/python3", "-I", "-S", "-c", _BASE if bundle is None else _BUNDLE)
    name = f"compile-{uuid.uuid4().hex}"
    group = find_cgroups().make("compile", os.getpid(), name, settings.ceiling())
    folders = {} if bundle is None else {"/opt/bundle": bundle}
    tmp_folder = (root if bundle is None else bundle).parent / "tmp"
    try:
        started = launch(Order(root, folders, program, tmp_folder, frozenset(folders)), settings, group)
    except SandboxUnavailable as error:
        raise ImageFailed(f"byte-compiling failed: {error}") from error
    try:
        code = started.bwrap.wait(_SECONDS)
        said = started.connected.recv(800).decode(errors="replace") + started.words()
    except subprocess.TimeoutExpired as error:
        raise ImageFailed(f"byte-compiling did not end within {_SECONDS} s") from error
    finally:
        started.connected.close()
        started.kill()
        group.end()
        started.forget()
    if code != 0:
        raise ImageFailed(f"byte-compiling failed: {said.strip()[-800:]}")


def _give(folder: Path, uid: int) -> None:
    """Let the compiler write its files; the folder is sealed afterwards."""
    for place, folders, _ in os.walk(folder):
        for path in (Path(place), *(Path(place, name) for name in folders)):
            os.chown(path, uid, uid, follow_symlinks=False)
