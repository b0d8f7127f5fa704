"""Control groups of our own: limits, processor time, and all processes of a sandbox by a path.

One group for each sandbox, `toolcrib-<installation>-<epoch>/<container id>`, in each hierarchy that counts:

    v1, also hybrid   memory, pids, cpu and cpuacct, each mounted by itself
    v2                one tree, with memory, pids and cpu switched on from the root down

The kernel keeps these paths whoever has died, so that a reaper finds by them what a killed broker or engine
left: the epoch is in the path, and nothing of another installation is touched. Nothing in here waits on the
event loop; callers run it in a thread.

    CgroupsUnfit         there are none that could be used, or not by us; says what to do
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sandboxes.outcome import SandboxError
from sandboxes.processes import kill_in_group

Version = Literal[1, 2]

_NEEDED = ("memory", "pids", "cpu")
_V1 = (*_NEEDED, "cpuacct")
_INSTALLATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_GROUP = re.compile(r"toolcrib-(?P<installation>.+)-(?P<epoch>\d+)")
_PERIOD_MICROS = 100_000
_LEAST_QUOTA_MICROS = 1_000  # the kernel takes no less
_PATIENCE_SECONDS = 2.0
_PAUSE_SECONDS = 0.005
_TRIES = 20
_REMEDY = "start the broker as root on a host with memory, pids and cpu groups, or use the Docker Engine"


class CgroupsUnfit(SandboxError):
    """Limits cannot be set here."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What one group may use; None for no limit.

    Attributes:
        memory_bytes: Memory, /tmp and what the kernel keeps for it included.
        no_swap: Whether none of it may go to the host's disk.
        pids: Processes and threads.
        cpus: Processors, 0.5 is half of one.
    """

    memory_bytes: int | None = None
    no_swap: bool = False
    pids: int | None = None
    cpus: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """One group, in each hierarchy that counts.

    Attributes:
        installation: Whose it is.
        epoch: Which start of the broker made it.
        name: The container id.
        version: Of the hierarchies.
        folders: By controller; in v2 they are all the same.
    """

    installation: str
    epoch: int
    name: str
    version: Version
    folders: Mapping[str, Path]

    def add(self, pid: int) -> None:
        """Move a process into the group; what it starts from now on is in it too.

        Raises:
            ProcessLookupError: It has ended.
        """
        for folder in set(self.folders.values()):
            (folder / "cgroup.procs").write_text(str(pid))

    def limit(self, ceilings: Ceilings) -> None:
        """Set the ceilings.

        Raises:
            CgroupsUnfit: The kernel does not take one.
        """
        settings = _settings_v1(ceilings) if self.version == 1 else _settings_v2(ceilings)
        for controller, file, value in settings:
            path = self.folders[controller] / file
            try:
                path.write_text(value)
            except FileNotFoundError as error:
                if "sw" not in file or _swap_is_on():
                    raise CgroupsUnfit(f"this kernel has no {file}: {_REMEDY}") from error
            except OSError as error:
                raise CgroupsUnfit(f"{path} does not take {value!r}: {error.strerror}") from error

    def processes(self) -> set[int]:
        """List the processes in it and in groups below it."""
        return {pid for folder in set(self.folders.values()) for pid in _processes_below(folder)}

    def end(self, patience_seconds: float = _PATIENCE_SECONDS) -> bool:
        """Kill everything in it, wait until the kernel has none of it, and take the group away.

        Returns:
            True when no process is left.
        """
        until = time.monotonic() + patience_seconds
        while found := self.processes():
            self._kill(found)
            if time.monotonic() > until:
                return False
            time.sleep(_PAUSE_SECONDS)
        self._remove(until)
        return True

    def cpu_seconds(self) -> float | None:
        """Tell the processor time that it has used; None where that cannot be read."""
        try:
            if self.version == 1:
                return int((self.folders["cpuacct"] / "cpuacct.usage").read_text()) / 1e9
            return _field(self.folders["cpu"] / "cpu.stat", "usage_usec") / 1e6
        except (OSError, ValueError):
            return None

    def was_out_of_memory(self) -> bool:
        """Tell whether the kernel has killed a process of it for its memory."""
        file = "memory.oom_control" if self.version == 1 else "memory.events"
        try:
            return _field(self.folders["memory"] / file, "oom_kill") > 0
        except (OSError, ValueError):
            return False

    def _kill(self, found: set[int]) -> None:
        if self.version == 2:
            with contextlib.suppress(OSError):  # missing before Linux 5.14
                (self.folders["pids"] / "cgroup.kill").write_text("1")
                return
        for pid in found:
            kill_in_group(pid, self.name)

    def _remove(self, until: float) -> None:
        """Remove the folders; the kernel may be busy with the last process for a moment."""
        for folder in set(self.folders.values()):
            while not _remove_tree(folder) and time.monotonic() < until:
                time.sleep(_PAUSE_SECONDS)
            with contextlib.suppress(OSError):  # others of this epoch may be in it
                folder.parent.rmdir()


class Cgroups:
    """The hierarchies of this host."""

    def __init__(self, version: Version, roots: Mapping[str, Path]) -> None:
        """Know the hierarchies; `find_cgroups` does that.

        Args:
            version: 1 or 2.
            roots: Where each controller's tree begins; in v2 they are all the same.
        """
        self.version, self._roots = version, dict(roots)

    def make(self, installation: str, epoch: int, name: str, ceilings: Ceilings) -> Group:
        """Make one group with its ceilings; nothing is left of it when that fails.

        Raises:
            CgroupsUnfit: It cannot be made.
            ValueError: The installation's or the group's name is no plain name.
        """
        group = self._group(installation, epoch, name)
        try:
            for folder in set(group.folders.values()):
                _make_folder(folder, self.version)
            group.limit(ceilings)
        except OSError as error:
            group.end()
            raise CgroupsUnfit(f"a control group cannot be made ({error}): {_REMEDY}") from error
        except CgroupsUnfit:
            group.end()
            raise
        return group

    def find(self, installation: str | None = None) -> list[Group]:
        """List the groups of an installation, whatever their epoch; None for every installation's."""
        found = {
            (parent.name, group.name)
            for root in set(self._roots.values())
            for parent in _folders(root)
            if _GROUP.fullmatch(parent.name)
            for group in _folders(parent)
        }
        groups = (self._known(parent, name) for parent, name in sorted(found))
        return [group for group in groups if installation in (None, group.installation)]

    def remove_empty(self, installation: str) -> None:
        """Take away the folders of epochs that have no groups any more."""
        for root in set(self._roots.values()):
            for parent in _folders(root):
                found = _GROUP.fullmatch(parent.name)
                if found and found["installation"] == installation:
                    with contextlib.suppress(OSError):
                        parent.rmdir()

    def _known(self, parent: str, name: str) -> Group:
        found = _GROUP.fullmatch(parent)
        assert found is not None
        folders = {controller: root / parent / name for controller, root in self._roots.items()}
        return Group(found["installation"], int(found["epoch"]), name, self.version, folders)

    def _group(self, installation: str, epoch: int, name: str) -> Group:
        for part in (installation, name):
            if not _INSTALLATION.fullmatch(part):
                raise ValueError(f"{part!r}: is no name for a control group")
        return self._known(f"toolcrib-{installation}-{epoch}", name)


def find_cgroups(mountinfo: Path = Path("/proc/self/mountinfo")) -> Cgroups:
    """Find the hierarchies that this host has mounted.

    Args:
        mountinfo: The kernel's list of mounts.

    Raises:
        CgroupsUnfit: A controller that the limits need is missing.
    """
    v1, unified = _mounted(mountinfo)
    if all(name in v1 for name in _V1):
        return Cgroups(1, {name: v1[name] for name in _V1})
    if unified is None:
        raise CgroupsUnfit(f"no control groups are mounted: {_REMEDY}")
    try:
        there = (unified / "cgroup.controllers").read_text().split()
    except OSError as error:
        raise CgroupsUnfit(f"{unified}/cgroup.controllers cannot be read: {error.strerror}") from error
    missing = sorted(set(_NEEDED) - set(there))
    if missing:
        raise CgroupsUnfit(f"the control groups here have no {' and no '.join(missing)}: {_REMEDY}")
    return Cgroups(2, dict.fromkeys(_NEEDED, unified))


def _mounted(mountinfo: Path) -> tuple[dict[str, Path], Path | None]:
    v1: dict[str, Path] = {}
    unified = None
    for line in mountinfo.read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        place = Path(before.split(" ")[4])
        if kind == "cgroup2":
            unified = unified or place
        elif kind == "cgroup":
            for name in set(options.split(",")) & set(_V1):
                v1.setdefault(name, place)
    return v1, unified


def _settings_v1(ceilings: Ceilings) -> Iterator[tuple[str, str, str]]:
    if ceilings.memory_bytes is not None:
        yield "memory", "memory.limit_in_bytes", str(ceilings.memory_bytes)
        if ceilings.no_swap:
            yield "memory", "memory.memsw.limit_in_bytes", str(ceilings.memory_bytes)
    if ceilings.pids is not None:
        yield "pids", "pids.max", str(ceilings.pids)
    if ceilings.cpus is not None:
        yield "cpu", "cpu.cfs_period_us", str(_PERIOD_MICROS)
        yield "cpu", "cpu.cfs_quota_us", str(_quota_micros(ceilings.cpus))


def _settings_v2(ceilings: Ceilings) -> Iterator[tuple[str, str, str]]:
    if ceilings.memory_bytes is not None:
        yield "memory", "memory.max", str(ceilings.memory_bytes)
    if ceilings.no_swap:
        yield "memory", "memory.swap.max", "0"
    if ceilings.pids is not None:
        yield "pids", "pids.max", str(ceilings.pids)
    if ceilings.cpus is not None:
        yield "cpu", "cpu.max", f"{_quota_micros(ceilings.cpus)} {_PERIOD_MICROS}"


def _quota_micros(cpus: float) -> int:
    return max(_LEAST_QUOTA_MICROS, int(cpus * _PERIOD_MICROS))


def _make_folder(folder: Path, version: Version) -> None:
    """Make a group and the one above it, which whoever ends the last in it takes away at any moment."""
    for tries_left in reversed(range(_TRIES)):
        try:
            with contextlib.suppress(FileExistsError):  # not exist_ok, which looks once more and may miss it
                folder.parent.mkdir()
            if version == 2:
                _switch_on(folder.parent.parent)
                _switch_on(folder.parent)
            folder.mkdir()
        except FileNotFoundError:
            if not tries_left:
                raise
        else:
            return


def _switch_on(folder: Path) -> None:
    """Let the groups below have the controllers; in v2 they have none otherwise."""
    file = folder / "cgroup.subtree_control"
    on = file.read_text().split()
    missing = [name for name in _NEEDED if name not in on]
    if missing:
        file.write_text(" ".join(f"+{name}" for name in missing))


def _swap_is_on() -> bool:
    return len(Path("/proc/swaps").read_text().splitlines()) > 1


def _folders(place: Path) -> list[Path]:
    try:
        return [entry for entry in place.iterdir() if entry.is_dir()]
    except OSError:
        return []


def _processes_below(folder: Path) -> set[int]:
    found: set[int] = set()
    for place, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            found.update(int(line) for line in Path(place, "cgroup.procs").read_text().split())
    return found - {0}  # 0 stands for a process that our PID namespace does not show


def _remove_tree(folder: Path) -> bool:
    for place, _, _ in os.walk(folder, topdown=False):
        try:
            Path(place).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def _field(file: Path, name: str) -> int:
    """Read one number of a file of lines such as "usage_usec 1234"."""
    for line in file.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    raise ValueError(f"{file} has no {name}")
