"""Starting one bubblewrap: cgroup, /tmp, process, limits, in an order that leaves no gap.

    group made with its ceilings -> bwrap started as the sandbox's own user, with a user namespace ->
    it builds its mounts and waits -> moved into the group, limits set -> it goes on as init

bwrap is started through `setpriv`, which changes the user and becomes bwrap: Python would have to copy the
whole broker by fork to do that by itself. Two processes are there then: init, which is PID 1 of the sandbox,
and bwrap outside of it, which waits for init. Both are in the group and both are the sandbox's user.

bubblewrap cannot limit the inodes of a tmpfs, nor forbid programs on it. So /tmp is mounted on the host by us,
bound by bwrap, and at once detached from the host again: from then on it lives and dies with the sandbox.

All of this blocks for some milliseconds; the driver does it in a thread of its own, because the kernel ends a
bwrap (`--die-with-parent`) with the thread that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandboxes.bubblewrap_measures import Settings
from sandboxes.cgroups import Group
from sandboxes.outcome import SandboxError, SandboxUnavailable
from sandboxes.syscall_filter import filter_bytes

OPEN_SECONDS = 10.0

_SAID_BYTES = 600
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MNT_DETACH = 2, 4, 8, 2  # sys/mount.h


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be started.

    Attributes:
        root: The folder that becomes the root.
        folders: What is mounted beside it, by its place in the sandbox.
        command: Becomes PID 1.
        tmp_folder: A path that is free; /tmp is there for a moment.
        writable: The places whose folders may be changed; none in a sandbox.
    """

    root: Path
    folders: Mapping[str, Path]
    command: Sequence[str]
    tmp_folder: Path
    writable: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Init:
    """PID 1 of a sandbox, as the host knows it.

    Attributes:
        pid: Its id here.
        descriptor: A pidfd of it.
    """

    pid: int
    descriptor: int


@dataclass(frozen=True, slots=True)
class Launched:
    """A sandbox that runs.

    Attributes:
        connected: Our end of init's stdin and stdout.
        bwrap: The process outside, which waits for init.
        init: PID 1.
        said: What bwrap, or an init that cannot start, wrote to stderr: an anonymous file.
    """

    connected: socket.socket
    bwrap: subprocess.Popen[bytes]
    init: Init
    said: int

    def words(self) -> str:
        """Give what bwrap and init complained about."""
        return _read_words(self.said)

    def kill(self) -> None:
        """Kill init, and with it everything in the sandbox; then bwrap."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.init.descriptor, signal.SIGKILL)
        self.bwrap.kill()

    def forget(self) -> None:
        """Let go of the descriptors, once everything has ended."""
        self.bwrap.wait()
        os.close(self.init.descriptor)
        os.close(self.said)


class _Descriptors:
    """Descriptors that are open for the time of one start."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def keep(self, *descriptors: int) -> int:
        """Remember descriptors; gives the first."""
        self._open.update(descriptors)
        return descriptors[0]

    def folder(self, path: Path) -> int:
        """Open a folder as a place, not for reading."""
        return self.keep(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def pipe(self) -> tuple[int, int]:
        """Open a pipe."""
        ends = os.pipe()
        self.keep(*ends)
        return ends

    def filter(self) -> int:
        """Open the syscall filter for reading."""
        descriptor = self.keep(os.memfd_create("filter", os.MFD_CLOEXEC))
        os.write(descriptor, filter_bytes())
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def close(self, descriptors: Iterable[int] | None = None) -> None:
        """Close some of them, or all that are left."""
        for descriptor in list(self._open if descriptors is None else descriptors):
            self._open.discard(descriptor)
            os.close(descriptor)


def launch(order: Order, settings: Settings, group: Group) -> Launched:
    """Start a sandbox; when that fails, nothing of it is left.

    Args:
        order: What is started.
        settings: How it is confined.
        group: Empty, with its ceilings; taken away when the start fails.

    Raises:
        SandboxUnavailable: It could not be started; says what bwrap said.
    """
    said = os.memfd_create("said", os.MFD_CLOEXEC)
    descriptors = _Descriptors()
    try:
        with _tmp_mounted(order.tmp_folder, settings.tmp):
            return _start(order, settings, group, said, descriptors)
    except (OSError, ValueError, subprocess.SubprocessError, SandboxError) as error:
        words = _read_words(said) or str(error)
        os.close(said)
        group.end()
        raise SandboxUnavailable(f"bubblewrap did not start the sandbox: {words}") from error
    finally:
        descriptors.close()


def _start(order: Order, settings: Settings, group: Group, said: int, descriptors: _Descriptors) -> Launched:
    told, info = descriptors.pipe()
    gate_inside, gate = descriptors.pipe()
    handed = {"info": info, "gate": gate_inside} | _mounts(order, settings, descriptors)
    command = [*_as_user(settings.user), "bwrap", *_arguments(order, settings, handed), *order.command]
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            bwrap = subprocess.Popen(
                command, stdin=theirs, stdout=theirs, stderr=said, pass_fds=tuple(handed.values())
            )
        except BaseException:
            ours.close()
            raise
    descriptors.close(handed.values())
    try:
        init = _find_init(told, bwrap.pid)
        started = Launched(ours, bwrap, init, said)
    except BaseException:
        _give_up(ours, bwrap)
        raise
    try:
        _confine(started, settings, group)
        _open_gate(gate)
    except BaseException:
        started.kill()
        os.close(init.descriptor)
        _give_up(ours, bwrap)
        raise
    return started


def _mounts(order: Order, settings: Settings, descriptors: _Descriptors) -> dict[str, int]:
    """Open what bwrap mounts, and the filter."""
    handed = {"root": descriptors.folder(order.root)}
    handed |= {place: descriptors.folder(path) for place, path in order.folders.items()}
    if settings.tmp is not None:
        handed["tmp"] = descriptors.folder(order.tmp_folder)
    if settings.filtered:
        handed["filter"] = descriptors.filter()
    return handed


def _arguments(order: Order, settings: Settings, handed: Mapping[str, int]) -> list[str]:
    """Make bwrap's arguments; their order is the order of its mounts."""
    arguments = ["--unshare-user", "--unshare-pid", "--as-pid-1"]
    arguments += ["--bind-fd", str(handed["root"]), "/", "--proc", "/proc", "--dev", "/dev"]
    for place in order.folders:
        option = "--bind-fd" if place in order.writable else "--ro-bind-fd"
        arguments += [option, str(handed[place]), place]
    # Only a tmpfs of our own has limits.
    arguments += ["--bind-fd", str(handed["tmp"])] if "tmp" in handed else ["--tmpfs"]
    arguments += ["/tmp", *settings.arguments]  # noqa: S108 - the sandbox's own
    if "filter" in handed:
        arguments += ["--seccomp", str(handed["filter"])]
    arguments += ["--info-fd", str(handed["info"]), "--block-fd", str(handed["gate"])]
    return [*arguments, "--chdir", "/opt/bundle", "--"]


def _as_user(user: int | None) -> list[str]:
    if user is None:
        return []
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


def _find_init(told: int, bwrap: int) -> Init:
    """Hold on to PID 1, which bwrap names before it lets it go on."""
    text = _read_object(told, time.monotonic() + OPEN_SECONDS)
    pid = int(json.loads(text)["child-pid"])
    descriptor = os.pidfd_open(pid)
    if f"PPid:\t{bwrap}\n" not in Path(f"/proc/{pid}/status").read_text():
        os.close(descriptor)
        raise SandboxUnavailable("init ended at once")
    return Init(pid, descriptor)


def _read_object(told: int, until: float) -> str:
    """Read a JSON object without objects in it; bwrap writes it in pieces."""
    data = b""
    while b"}" not in data:
        if not _wait(told, select.POLLIN, until):
            raise SandboxUnavailable("bwrap did not say that it had started")
        piece = os.read(told, 4096)
        if not piece:
            raise SandboxUnavailable("bwrap ended at once")
        data += piece
    return data.decode()


def _confine(started: Launched, settings: Settings, group: Group) -> None:
    for pid in (started.bwrap.pid, started.init.pid):
        group.add(pid)
        for number, most in settings.rlimits.items():
            resource.prlimit(pid, number, (most, most))


def _open_gate(gate: int) -> None:
    """Let it go on; its mounts are made once it has read that, and has closed its end."""
    os.write(gate, b"!")
    if not _wait(gate, 0, time.monotonic() + OPEN_SECONDS):
        raise SandboxUnavailable("bwrap did not finish its mounts")


def _wait(descriptor: int, events: int, until: float) -> bool:
    poll = select.poll()  # not select(): a broker may have more than 1,024 descriptors
    poll.register(descriptor, events)
    return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))


def _give_up(ours: socket.socket, bwrap: subprocess.Popen[bytes]) -> None:
    ours.close()
    bwrap.kill()
    bwrap.wait()


@contextmanager
def _tmp_mounted(folder: Path, options: str | None) -> Iterator[None]:
    """Have a tmpfs on the host until the sandbox has bound it; nothing when no options are given."""
    if options is None:
        yield
        return
    folder.mkdir(mode=0o700)
    try:
        _mount_tmpfs(folder, options)
        try:
            yield
        finally:
            detach(folder)
    finally:
        folder.rmdir()


def _mount_tmpfs(folder: Path, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if libc.mount(b"toolcrib", os.fsencode(folder), b"tmpfs", flags, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"a tmpfs cannot be mounted: {os.strerror(number)}")


def detach(folder: Path) -> bool:
    """Take what is mounted at a folder away from the host; True when something was."""
    return bool(ctypes.CDLL(None).umount2(os.fsencode(folder), _MNT_DETACH) == 0)


def _read_words(said: int) -> str:
    return os.pread(said, _SAID_BYTES, 0).decode(errors="replace").strip()
