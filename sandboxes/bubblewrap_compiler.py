"""Byte-compiles an image's folder in a bubblewrap: without network, with limits, as a user of its own."""

from __future__ import annotations

import os
import subprocess
import uuid
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path

from sandboxes.bubblewrap_launch import Order, launch
from sandboxes.bubblewrap_measures import MEASURES, Settings, settings_for
from sandboxes.bubblewrap_stage import staged_threads
from sandboxes.cgroups import Group, find_cgroups
from sandboxes.image_content import BUNDLE_FOLDER
from sandboxes.image_recipe import (
    COMPILE_BASE,
    COMPILE_BUNDLE,
    COMPILE_SECONDS,
    COMPILER,
    COMPILER_ENVIRONMENT,
)
from sandboxes.outcome import SandboxError, SandboxSpec
from sandboxes.rootfs import ImageFailed
from sandboxes.uids import allocate_uid

_SAID_BYTES = 800
_INSTALLATION = "images"  # whose control groups these are; the epoch is our process id


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
    """Compile a base where it is, or a bundle on its base; `folders.Compile`.

    Raises:
        ImageFailed: A file does not compile, or there is no sandbox for it.
    """
    uid = allocate_uid()
    _give(bundle or root, uid)
    # A base is compiled where it is; its root is the one thing that can be written.
    measures = [measure for measure in MEASURES if bundle or measure.name != "read-only-root"]
    settings = settings_for(SandboxSpec("", (), _Limits(), None, uid), measures)
    settings.arguments += [
        word for name, value in COMPILER_ENVIRONMENT.items() for word in ("--setenv", name, value)
    ]
    program = (*COMPILER, COMPILE_BUNDLE if bundle else COMPILE_BASE)
    folders = {f"/{BUNDLE_FOLDER}": bundle} if bundle else {}
    with staged_threads(1) as thread:
        try:
            thread.submit(_run, Order(root, folders, program, frozenset(folders)), settings).result()
        except BrokenExecutor as error:
            raise ImageFailed(
                "byte-compiling failed: mounts for a sandbox cannot be made here; CAP_SYS_ADMIN is needed"
            ) from error


def _run(order: Order, settings: Settings) -> None:
    try:
        group = _make_group(settings)
        started = launch(order, settings, group)
    except SandboxError as error:
        raise ImageFailed(f"byte-compiling failed: {error}") from error
    try:
        code = started.bwrap.wait(COMPILE_SECONDS)
        said = started.connected.recv(_SAID_BYTES).decode(errors="replace") + started.words()
    except subprocess.TimeoutExpired as error:
        raise ImageFailed(f"byte-compiling did not end within {COMPILE_SECONDS} s") from error
    finally:
        started.connected.close()
        started.kill()
        group.end()
        started.forget()
    if code != 0:
        raise ImageFailed(f"byte-compiling failed: {said.strip()}")


def _make_group(settings: Settings) -> Group:
    cgroups = find_cgroups()
    for left in cgroups.find(_INSTALLATION):  # by a process that was killed
        if not Path(f"/proc/{left.epoch}").exists():
            left.end()
    return cgroups.make(_INSTALLATION, os.getpid(), f"compile-{uuid.uuid4().hex}", settings.ceiling())


def _give(folder: Path, uid: int) -> None:
    """Let the compiler write beside the sources; nothing else is taken from there afterwards."""
    for place, _, _ in os.walk(folder):
        os.chown(place, uid, uid, follow_symlinks=False)
