"""Starting one bubblewrap: cgroup, /tmp, process, limits, in an order that leaves no gap.

    group made with its ceilings -> folders and /tmp laid out -> bwrap started as the sandbox's own user
    -> moved into the group -> told its arguments -> it makes namespaces and mounts -> it goes on as init

bwrap is started through `prlimit` and `setpriv`, which set limits and user and become bwrap: Python would
have to copy the whole broker by fork to do that by itself. Two processes are there then: init, which is PID 1
of the sandbox, and bwrap outside of it, which waits for init. Both are in the group, and both are the
sandbox's user.

All of this blocks for some milliseconds, in a staged thread (sandboxes/bubblewrap_stage.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sandboxes.bubblewrap_measures import Settings
from sandboxes.bubblewrap_stage import Layout, laid_out
from sandboxes.cgroups import Group
from sandboxes.outcome import SandboxError, SandboxUnavailable
from sandboxes.syscall_filter import filter_bytes

OPEN_SECONDS = 10.0

_SAID_BYTES = 600
_ROOT, _TMP = "/", "/tmp"  # noqa: S108 - the sandbox's own


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be started.

    Attributes:
        root: The folder that becomes the root.
        folders: What is mounted beside it, by its place in the sandbox.
        command: Becomes PID 1.
        writable: The places whose folders may be changed; none in a sandbox.
        shared: The places whose folders other sandboxes have too.
    """

    root: Path
    folders: Mapping[str, Path]
    command: Sequence[str]
    writable: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()


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


def launch(order: Order, settings: Settings, group: Group) -> Launched:
    """Start a sandbox, in a staged thread; when that fails, nothing of it is left.

    Args:
        order: What is started.
        settings: How it is confined.
        group: Empty, with its ceilings; taken away when the start fails.

    Raises:
        SandboxUnavailable: It could not be started; says what bwrap said.
    """
    said = os.memfd_create("said", os.MFD_CLOEXEC)
    with ExitStack() as undo:
        undo.callback(group.end)
        undo.callback(os.close, said)
        try:
            shared = order.shared if settings.overlaid else frozenset()
            with laid_out({_ROOT: order.root, **order.folders}, settings.tmp, shared) as layout:
                started = _start(_Start(order, settings, layout, said), group, undo)
        except (OSError, ValueError, subprocess.SubprocessError, SandboxError) as error:
            words = _read_words(said) or str(error)
            raise SandboxUnavailable(f"bubblewrap did not start the sandbox: {words}") from error
        undo.pop_all()
    return started


@dataclass(frozen=True, slots=True)
class _Start:
    """What one start works with; `said` takes stderr."""

    order: Order
    settings: Settings
    layout: Layout
    said: int

    def command(self, arguments: int) -> list[str]:
        """Make the command line; bwrap reads its own arguments from a descriptor."""
        user = self.settings.user
        as_user = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        limits = [f"--{name}={most}:{most}" for name, most in self.settings.rlimits.items()]
        limited = ["prlimit", *limits, "--"] if limits else []
        return [*limited, *as_user, "bwrap", "--args", str(arguments), "--", *self.order.command]

    def arguments(self, handed: Mapping[str, int]) -> bytes:
        """Make bwrap's arguments; their order is the order of its mounts.

        Args:
            handed: Descriptors by the option that takes them.
        """
        options = [word for name, number in handed.items() for word in (f"--{name}", str(number))]
        words = ["--unshare-user", "--unshare-pid", "--as-pid-1", *self._mounts()]
        words += [*self.settings.arguments, *options, "--chdir", "/opt/bundle"]
        return b"".join(word.encode() + b"\0" for word in words)

    def _mounts(self) -> list[str]:
        laid = self.layout.folders
        words = ["--bind", str(laid[_ROOT]), _ROOT, "--proc", "/proc", "--dev", "/dev"]
        for place in self.order.folders:
            words += ["--bind" if place in self.order.writable else "--ro-bind", str(laid[place]), place]
        if self.layout.tmp is None:
            return [*words, "--tmpfs", _TMP]
        return [*words, "--bind", str(self.layout.tmp), _TMP]


def _start(start: _Start, group: Group, undo: ExitStack) -> Launched:
    with ExitStack() as stack:
        told, info = _open_pipe(stack)
        gate_inside, gate = _open_pipe(stack)
        arguments_inside, arguments = _open_pipe(stack)
        handed = {"info-fd": info.fileno(), "block-fd": gate_inside.fileno()}
        if start.settings.filtered:
            handed["seccomp"] = _open_filter(stack).fileno()
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        with theirs:
            bwrap = subprocess.Popen(
                start.command(arguments_inside.fileno()),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=start.said,
                pass_fds=(arguments_inside.fileno(), *handed.values()),
            )
        undo.callback(bwrap.wait)
        undo.callback(bwrap.kill)
        for handed_over in (info, gate_inside, arguments_inside):
            handed_over.close()
        group.add(bwrap.pid)  # before it makes anything: its cgroup namespace begins there
        with arguments:
            arguments.write(start.arguments(handed))
        init = _find_init(told.fileno(), bwrap.pid)
        undo.callback(os.close, init.descriptor)
        started = Launched(ours, bwrap, init, start.said)
        undo.callback(started.kill)
        _open_gate(gate.fileno())
    return started


def _open_pipe(stack: ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    reading, writing = os.pipe()
    return stack.enter_context(os.fdopen(reading, "rb")), stack.enter_context(os.fdopen(writing, "wb"))


def _open_filter(stack: ExitStack) -> IO[bytes]:
    file = stack.enter_context(os.fdopen(os.memfd_create("filter", os.MFD_CLOEXEC), "w+b"))
    file.write(filter_bytes())
    file.seek(0)
    return file


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


def _open_gate(gate: int) -> None:
    """Let it go on; its mounts are made once it has read that, and has closed its end."""
    os.write(gate, b"!")
    if not _wait(gate, 0, time.monotonic() + OPEN_SECONDS):
        raise SandboxUnavailable("bwrap did not finish its mounts")


def _wait(descriptor: int, events: int, until: float) -> bool:
    poll = select.poll()  # not select(): a broker may have more than 1,024 descriptors
    poll.register(descriptor, events)
    return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))


def _read_words(said: int) -> str:
    return os.pread(said, _SAID_BYTES, 0).decode(errors="replace").strip()
