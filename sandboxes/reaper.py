"""What a dead broker or engine left running, found by control groups: the kernel forgets nothing.

Each container has its control group in a folder that says whose it is: installation and epoch of the broker
that made it. An engine that was killed may have forgotten its containers while their processes go on; their
group is still in that folder. All of it runs in a thread, nothing in here waits on the event loop.

    /sys/fs/cgroup/<controller>/toolcrib_<installation>_<epoch>/<container id>                    v1, cgroupfs
    /sys/fs/cgroup/toolcrib_<installation>_<epoch>.slice/docker-<container id>.scope             v2, systemd

Rules:
    * the installation stands there as the first 32 digits of its SHA-256: ids may be long or odd, and systemd
      takes a hyphen for a folder;
    * only folders of this installation are looked at, and of those the live epoch's and later ones are left
      alone: a broker that was stopped for a while may wake up behind the one that took over;
    * a group is frozen before it is killed (v1), or killed by the kernel at once (v2): what forks all the
      time could otherwise outrun a list of its processes;
    * what cannot be confirmed is not said to be gone; the next round tries again.

It works alike for runc and for runsc, whose sentry and gofer are in the group.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sandboxes.processes import kill_in_group

CgroupDriver = Literal["cgroupfs", "systemd"]

_PREFIX = "toolcrib"
_CONTAINER = re.compile(r"(?:docker-)?(?P<id>[0-9a-f]{64})(?:\.scope)?")
_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.01
_UNIFIED = ""  # the name of the v2 tree among the controllers

logger = logging.getLogger(__name__)


def cgroup_parent(installation: str, epoch: int, cgroup_driver: str) -> str:
    """Name the folder of an epoch's containers, as `HostConfig.CgroupParent` takes it.

    Args:
        installation: Any text.
        epoch: From 1.
        cgroup_driver: "cgroupfs" or "systemd", as the engine says.

    Raises:
        ValueError: The engine uses another driver.
    """
    name = f"{_PREFIX}_{_encode(installation)}_{epoch}"
    if cgroup_driver == "cgroupfs":
        return f"/{name}"
    if cgroup_driver == "systemd":
        return f"{name}.slice"
    raise ValueError(f"{cgroup_driver!r}: is no cgroup driver that we know; set it to cgroupfs or systemd")


def container_cgroup(parent: str, container_id: str) -> str:
    """Name the control group of one container, as a path below each hierarchy's root.

    Args:
        parent: From `cgroup_parent`.
        container_id: All 64 digits.
    """
    if parent.endswith(".slice"):
        return f"/{parent}/docker-{container_id}.scope"
    return f"{parent}/{container_id}"


def cpu_seconds(cgroup: str) -> float | None:
    """Tell the processor time that a group has used: one file is read.

    Args:
        cgroup: From `container_cgroup`.

    Returns:
        Seconds of all its processes since it was made; None where that cannot be read.
    """
    roots = find_hierarchies()
    try:
        if "cpuacct" in roots:
            return int((roots["cpuacct"] / cgroup.lstrip("/") / "cpuacct.usage").read_text()) / 1e9
        text = (roots[_UNIFIED] / cgroup.lstrip("/") / "cpu.stat").read_text()
        return int(text.split("usage_usec ", 1)[1].split("\n", 1)[0]) / 1e6
    except (OSError, ValueError, LookupError):
        return None


@functools.cache
def find_hierarchies(mounts: Path = Path("/proc/self/mounts")) -> Mapping[str, Path]:
    """Find the hierarchies that are mounted: by controller, and "" for the unified one.

    Args:
        mounts: The kernel's list.
    """
    found: dict[str, Path] = {}
    for line in mounts.read_text().splitlines():
        _, place, kind, options, *_ = line.split(" ")
        if kind == "cgroup2":
            found.setdefault(_UNIFIED, Path(place))
        elif kind == "cgroup":
            for name in options.split(","):
                if name not in ("rw", "ro", "nosuid", "nodev", "noexec", "relatime", "xattr"):
                    found.setdefault(name, Path(place))
    return found


@dataclass(frozen=True, slots=True)
class Epoch:
    """The folder of one epoch of one installation, in every hierarchy that has it."""

    number: int
    folders: tuple[Path, ...]

    def container_ids(self) -> set[str]:
        """List the containers whose groups are in it, empty or not."""
        names = (place.name for folder in self.folders for place in _below(folder))
        return {found["id"] for name in names if (found := _CONTAINER.fullmatch(name))}

    def processes(self) -> set[int]:
        """List the processes in it and below."""
        return {pid for folder in self.folders for place in _below(folder) for pid in _processes(place)}

    def end(self, patience_seconds: float = _PATIENCE_SECONDS) -> bool:
        """Kill everything in it and wait until the kernel has none of it.

        Returns:
            True when no process is left; then the folders are gone too, as far as the kernel lets them go.
        """
        until = time.monotonic() + patience_seconds
        while self.processes():
            self._kill()
            if time.monotonic() > until:
                return False
            time.sleep(_PAUSE_SECONDS)
        for folder in self.folders:
            _remove(folder, until)
        return True

    def _kill(self) -> None:
        for folder in self.folders:
            with contextlib.suppress(OSError):  # v2 since Linux 5.14
                (folder / "cgroup.kill").write_text("1")
        _set_freezers(self.folders, "FROZEN")
        try:
            for pid in self.processes():
                kill_in_group(pid, self.folders[0].name)
        finally:
            _set_freezers(self.folders, "THAWED")  # a frozen process dies when it thaws


class Reaper:
    """Ends what other epochs of one installation left."""

    def __init__(self, installation: str, epoch: int, hierarchies: Mapping[str, Path] | None = None) -> None:
        """Prepare; nothing is looked at yet.

        Args:
            installation: Whose leftovers; nothing of another is touched.
            epoch: The live one, which is left alone, and later ones; 0 when none lives.
            hierarchies: Where the control groups are; None to find them.
        """
        self._name = re.compile(rf"{_PREFIX}_{_encode(installation)}_(?P<epoch>\d+)(?:\.slice)?")
        self._epoch = epoch
        self._roots = find_hierarchies() if hierarchies is None else hierarchies

    def find_dead(self) -> list[Epoch]:
        """List the epochs that are over and have a folder, the oldest first."""
        return [epoch for epoch in self._find() if not self._epoch or epoch.number < self._epoch]

    def reap(self) -> list[str]:
        """End what dead epochs left, and take their folders away.

        Returns:
            The ids of the containers of which nothing is left now.
        """
        gone: list[str] = []
        for dead in self.find_dead():
            containers = dead.container_ids()
            if dead.end():
                gone += sorted(containers)
            else:
                logger.warning("epoch %d: its processes do not end: %s", dead.number, dead.processes())
        return gone

    def remove_own(self) -> None:
        """Take the live epoch's folder away where nothing is in it any more: a broker's last act."""
        for epoch in self._find():
            if epoch.number == self._epoch and not epoch.container_ids():
                for folder in epoch.folders:
                    with contextlib.suppress(OSError):  # a container is being made in it
                        folder.rmdir()

    def _find(self) -> list[Epoch]:
        found: dict[int, list[Path]] = {}
        for root in sorted(set(self._roots.values())):
            for folder in _folders(root):
                if match := self._name.fullmatch(folder.name):
                    found.setdefault(int(match["epoch"]), []).append(folder)
        return [Epoch(number, tuple(folders)) for number, folders in sorted(found.items())]


def _encode(installation: str) -> str:
    return hashlib.sha256(installation.encode()).hexdigest()[:32]


def _set_freezers(folders: Iterable[Path], state: str) -> None:
    for folder in folders:
        file = folder / "freezer.state"
        with contextlib.suppress(OSError):
            if file.exists():
                file.write_text(state)


def _remove(folder: Path, until: float) -> None:
    """Remove a folder of groups, the innermost first; the kernel may be busy with one for a moment."""
    for place in reversed(list(_below(folder))):
        while place.exists():
            with contextlib.suppress(OSError):
                place.rmdir()
                break
            if time.monotonic() > until:
                return
            time.sleep(_PAUSE_SECONDS)


def _below(folder: Path) -> Iterator[Path]:
    """Give a folder and every folder below it, outermost first."""
    for place, _, _ in os.walk(folder):
        yield Path(place)


def _folders(place: Path) -> list[Path]:
    try:
        return [entry for entry in place.iterdir() if entry.is_dir()]
    except OSError:
        return []


def _processes(place: Path) -> list[int]:
    try:
        return [int(line) for line in (place / "cgroup.procs").read_text().split() if line != "0"]
    except OSError:
        return []
