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
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandboxes.bubblewrap_measures import Settings
from sandboxes.cgroups import Group
from sandboxes.outcome import SandboxUnavailable
from sandboxes.syscall_filter import filter_bytes

OPEN_SECONDS = 10.0

_SAID_BYTES = 600
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MNT_DETACH = 2, 4, 8, 2
_PATH_ONLY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# The order of bwrap's arguments is the order of its mounts. Descriptors, not paths: the sandbox's user could
# not pass a cache folder that is only root's.
_BEGIN = ("--unshare-user", "--unshare-pid", "--as-pid-1", "--bind-fd", "{root}", "/")
_PLACES = ("--proc", "/proc", "--dev", "/dev", "--chdir", "/opt/bundle")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be started.

    Attributes:
        folders: What is mounted where, besides the root, read-only: descriptor name and place, with the path.
        root: The root's folder.
        command: Becomes PID 1.
        tmp_folder: An empty folder that is mounted over for a moment.
    """

    root: Path
    folders: Mapping[str, Path]
    command: Sequence[str]
    tmp_folder: Path


@dataclass(frozen=True, slots=True)
class Launched:
    """A sandbox that runs.

    Attributes:
        connected: Our end of init's stdin and stdout.
        bwrap: The process outside.
        init: A pidfd of PID 1.
        said: What bwrap, or an init that cannot start, wrote to stderr: an anonymous file.
    """

    connected: socket.socket
    bwrap: subprocess.Popen[bytes]
    init: int
    said: int

    def words(self) -> str:
        """Give the last words of bwrap and init."""
        return _read_words(self.said)

    def kill(self) -> None:
        """Kill init, and with it everything in the sandbox; then bwrap."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.init, signal.SIGKILL)
        self.bwrap.kill()

    def forget(self) -> None:
        """Let go of the descriptors once it has ended."""
        self.bwrap.wait()
        os.close(self.init)
        os.close(self.said)


def launch(order: Order, settings: Settings, group: Group) -> Launched:
    """Start a sandbox; when that fails nothing of it is left but its group, which is empty.

    Raises:
        SandboxUnavailable: It could not be started; says what bwrap said.
    """
    with ExitStack() as stack:
        said = os.memfd_create("said", os.MFD_CLOEXEC)
        fallback = ExitStack()
        fallback.callback(os.close, said)
        try:
            return _launch(stack, fallback, order, settings, group, said)
        except (OSError, ValueError, subprocess.SubprocessError, SandboxUnavailable) as error:
            words = _read_words(said) or str(error)
            fallback.close()
            group.end()
            raise SandboxUnavailable(f"bubblewrap did not start the sandbox: {words}") from error


def _launch(
    stack: ExitStack, fallback: ExitStack, order: Order, settings: Settings, group: Group, said: int
) -> Launched:
    given: dict[str, int] = {"root": _opened(stack, order.root)}
    arguments = [*_BEGIN, *_PLACES]
    for number, (place, path) in enumerate(order.folders.items()):
        given[f"folder{number}"] = _opened(stack, path)
        arguments += ["--ro-bind-fd", f"{{folder{number}}}", place]
    arguments += _tmp_arguments(stack, given, settings, order.tmp_folder)
    if settings.filtered:
        given["filter"] = stack.enter_context(_filter_file())
        arguments += ["--seccomp", "{filter}"]
    told, given["info"] = _piped(stack)
    given["gate"], gate = _piped(stack)
    ours, theirs = socket.socketpair()
    fallback.callback(ours.close)
    with theirs:
        line = [*arguments, *settings.arguments, "--info-fd", "{info}", "--block-fd", "{gate}", "--"]
        words = [word.format(**given) if word.startswith("{") else word for word in line]
        started = subprocess.Popen(
            [*_as_user(settings.user), "bwrap", *words, *order.command],
            stdin=theirs,
            stdout=theirs,
            stderr=said,
            pass_fds=tuple(given.values()),
        )
    fallback.callback(started.wait)
    fallback.callback(started.kill)
    _close(stack, given["info"], given["gate"])
    init_pid, init = _find_init(told, started.pid)
    fallback.callback(os.close, init)
    fallback.callback(_kill, init)
    for pid in (started.pid, init_pid):
        group.add(pid)
        for name, most in settings.rlimits.items():
            resource.prlimit(pid, name, (most, most))
    _open_gate(gate)
    return Launched(ours, started, init, said)


def _as_user(user: int | None) -> list[str]:
    if user is None:
        return []
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


def _tmp_arguments(
    stack: ExitStack, given: dict[str, int], settings: Settings, folder: Path
) -> tuple[str, ...]:
    if settings.tmp is None:
        return ("--tmpfs", "/tmp")  # noqa: S108 - the sandbox's own
    stack.enter_context(_tmp_mounted(folder, settings.tmp))
    given["tmp"] = _opened(stack, folder)
    return ("--bind-fd", "{tmp}", "/tmp")  # noqa: S108


@contextmanager
def _tmp_mounted(folder: Path, options: str) -> Iterator[None]:
    """Have a tmpfs on the host until the sandbox has bound it."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    folder.mkdir(mode=0o700)
    try:
        if libc.mount(b"toolcrib", os.fsencode(folder), b"tmpfs", flags, options.encode()) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"/tmp cannot be mounted: {os.strerror(number)}")
        try:
            yield
        finally:
            detach(folder)
    finally:
        folder.rmdir()


def detach(folder: Path) -> bool:
    """Take what is mounted at a folder away from the host; True when something was."""
    return ctypes.CDLL(None).umount2(os.fsencode(folder), _MNT_DETACH) == 0


@contextmanager
def _filter_file() -> Iterator[int]:
    descriptor = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, filter_bytes())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _opened(stack: ExitStack, path: Path) -> int:
    descriptor = os.open(path, _PATH_ONLY)
    stack.callback(_close_quietly, descriptor)
    return descriptor


def _piped(stack: ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        stack.callback(_close_quietly, end)
    return ends
