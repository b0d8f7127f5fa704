"""PID 1 of every sandbox: starts the handler, passes its frames on and ends everything in time.

It is copied into the image and runs there as `python3 -I -S /opt/toolcrib/init.py COMMAND…`; only the
standard library is used. Neither the broker nor the engine may be alive when a sandbox has to end, so the
end is enforced here, and the end of PID 1 is the end of every process in the container.

Rules:
    * it is not dumpable: a handler has the same uid and could otherwise rewrite the deadline in /proc/1/mem;
    * it ends at the deadline, when stdin closes, when no preamble comes within the idle age, when the handler
      ends, and when the handler says more than its output cap;
    * the frames' descriptors (0 and 1) are never given to the handler, which gets pipes: 3 to read frames, 4
      to write them. Its stdin is empty, its stdout and stderr are the log, which is cut at the log cap;
    * it writes without blocking: a reader that stops reading cannot hold up the deadline;
    * how the handler ended is told as good or not: an exit code or a signal of its choice would be a message
      past every check.

The preamble, big-endian: b"TCH1", u32 milliseconds left, u32 output cap in bytes, u32 log cap in bytes.

Exit codes: 0 the handler ended with 0 · 70 deadline · 71 no preamble within the idle age · 72 stdin closed ·
73 output cap · 74 no valid preamble · 75 the handler could not be started · 76 the handler ended with another
code, closed its frames or was killed by a signal.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
import sys
import time

EXIT_DEADLINE = 70
EXIT_IDLE = 71
EXIT_STDIN_CLOSED = 72
EXIT_OUTPUT_TOO_LARGE = 73
EXIT_BAD_PREAMBLE = 74
EXIT_NOT_STARTED = 75
EXIT_HANDLER_FAILED = 76

PREAMBLE = struct.Struct(">4sIII")
MAGIC = b"TCH1"
IDLE_SECONDS = 30.0

_TICK_SECONDS = 0.25  # how long an orphan that ended may wait to be reaped
_LINGER_SECONDS = 1.0  # between the end of the frames and the end of the handler
_REFUSAL = 63  # where a child writes that it could not execute the handler
_CHUNK = 65_536
_DRAIN_ROUNDS = 16
_PR_SET_DUMPABLE = 4
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - the only folder that a handler can write
    "TMPDIR": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
    "PYTHONPATH": "/opt/toolcrib/lib",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "upb",
}


class End(Exception):
    """The sandbox is over; `code` is the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Relay:
    """Moves bytes from one descriptor to another without ever blocking on either."""

    def __init__(self, source: int, sink: int, cap: int | None = None, *, cut: bool = False) -> None:
        """Prepare a relay.

        Args:
            source: Where bytes come from.
            sink: Where they go.
            cap: The most that may pass in all; None for no limit.
            cut: Past the cap, drop the rest silently instead of ending the sandbox.
        """
        self.source, self.sink, self.left, self.cut = source, sink, cap, cut
        self.pending = b""
        self.open = True
        os.set_blocking(source, False)
        os.set_blocking(sink, False)

    def fill(self) -> None:
        """Take what the source has; its end closes the relay.

        Raises:
            End: More came than the cap allows.
        """
        try:
            data = os.read(self.source, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.open = False
            return
        if self.left is not None:
            data = self._within_cap(data)
        self.pending += data

    def flush(self) -> None:
        """Write as much as the sink takes now; a sink that nobody reads any more swallows the rest."""
        while self.pending:
            try:
                self.pending = self.pending[os.write(self.sink, self.pending) :]
            except BlockingIOError:
                return
            except OSError:
                self.pending = b""

    def drain(self) -> bool:
        """Pass on what is already there, as far as the sink takes it and a writer that never stops allows.

        Returns:
            True when nothing is left.

        Raises:
            End: More came than the cap allows.
        """
        for _ in range(_DRAIN_ROUNDS):
            self.flush()
            if self.pending:
                return False
            if not self.open or not select.select([self.source], [], [], 0)[0]:
                return True
            self.fill()
        return False

    def _within_cap(self, data: bytes) -> bytes:
        assert self.left is not None
        if len(data) > self.left and not self.cut:
            raise End(EXIT_OUTPUT_TOO_LARGE)
        data = data[: self.left]
        self.left -= len(data)
        return data


class Child:
    """The process that becomes the handler."""

    def __init__(self, pid: int, refusal: int) -> None:
        """Know a process.

        Args:
            pid: Its id.
            refusal: Descriptor on which something comes when the handler could not be executed.
        """
        self.pid, self._refusal = pid, refusal

    def was_executed(self) -> bool:
        """Tell, once it has ended, whether the handler ran at all: it cannot say so by its exit code."""
        os.set_blocking(self._refusal, False)
        try:
            return not os.read(self._refusal, 1)
        except BlockingIOError:
            return True


class Supervisor:
    """The handler's process and the three ways between it and the engine."""

    def __init__(self, child: Child, deadline: float, frames: Relay, answers: Relay, log: Relay) -> None:
        self.child, self.pid, self.deadline = child, child.pid, deadline
        self.frames, self.answers, self.log = frames, answers, log
        self.pidfd = os.pidfd_open(child.pid)
        self.status: int | None = None

    def run(self) -> int:
        """Relay until something ends the sandbox.

        Returns:
            The exit code.
        """
        try:
            while self.status is None and self.answers.open:
                self._step()
            self._linger()
            while not self.answers.drain():
                self._step()
        except End as end:
            self._finish_log("")
            return end.code
        return self._conclude()

    def _step(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise End(EXIT_DEADLINE)
        readable, writable = self._wait(min(left, _TICK_SECONDS))
        for relay in (self.frames, self.answers, self.log):
            if relay.source in readable:
                relay.fill()
            if relay.pending and (relay.sink in writable or relay.source in readable):
                relay.flush()
        self._reap()

    def _wait(self, seconds: float) -> tuple[set[int], set[int]]:
        readable: set[int] = set()
        writable: set[int] = set()
        for descriptor, events in self._poll().poll(seconds * 1000):
            if descriptor == self.frames.source and events & select.POLLHUP:
                raise End(EXIT_STDIN_CLOSED)
            if events & (select.POLLOUT | select.POLLERR):
                writable.add(descriptor)
            if events & (select.POLLIN | select.POLLHUP):
                readable.add(descriptor)
        return readable, writable

    def _poll(self) -> select.poll:
        poll = select.poll()
        if self.status is None:
            poll.register(self.pidfd, select.POLLIN)
        for relay in (self.frames, self.answers, self.log):
            if relay.pending:
                poll.register(relay.sink, select.POLLOUT)
            elif relay.open:
                poll.register(relay.source, select.POLLIN)
        if self.frames.pending:  # a handler that does not read must not hide the end of stdin
            poll.register(self.frames.source, 0)
        return poll

    def _reap(self) -> None:
        """Collect every process that ended: orphans of the handler become children of PID 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.status = status

    def _linger(self) -> None:
        """Give a handler that closed its frames a moment to end by itself."""
        until = min(time.monotonic() + _LINGER_SECONDS, self.deadline)
        while self.status is None and time.monotonic() < until:
            self._step()

    def _conclude(self) -> int:
        if self.status == 0:
            self._finish_log("")
            return 0
        if self.status is None:
            self._finish_log("the handler closed its frames and went on")
        elif self.child.was_executed():
            self._finish_log("the handler ended with an error")
        else:
            self._finish_log("")
            return EXIT_NOT_STARTED
        return EXIT_HANDLER_FAILED

    def _finish_log(self, line: str) -> None:
        self.log.drain()
        if line:
            self.log.pending += f"init: {line}\n".encode()
        self.log.flush()


def main(command: list[str]) -> int:
    """Run one handler to its end.

    Returns:
        The exit code, see the module's list.
    """
    _protect()
    try:
        deadline, output_cap, log_cap = _read_preamble(time.monotonic() + IDLE_SECONDS)
    except End as end:
        return end.code
    to_handler, from_handler, log = os.pipe(), os.pipe(), os.pipe()
    child = _start(command, to_handler[0], from_handler[1], log[1])
    for descriptor in (to_handler[0], from_handler[1], log[1]):
        os.close(descriptor)
    supervisor = Supervisor(
        child,
        deadline,
        frames=Relay(0, to_handler[1]),
        answers=Relay(from_handler[0], 1, output_cap),
        log=Relay(log[0], 2, log_cap, cut=True),
    )
    code = supervisor.run()
    _kill_everything()
    return code


def _protect() -> None:
    """Close this process to others of the same uid, and to signals that Python would act on."""
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        os._exit(EXIT_NOT_STARTED)
    # A signal of the own namespace reaches PID 1 only where a handler is set; Python sets one for SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read_preamble(until: float) -> tuple[float, int, int]:
    data = b""
    while len(data) < PREAMBLE.size:
        ready, _, _ = select.select([0], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise End(EXIT_IDLE)
        chunk = os.read(0, PREAMBLE.size - len(data))
        if not chunk:
            raise End(EXIT_STDIN_CLOSED)
        data += chunk
    magic, remaining_millis, output_cap, log_cap = PREAMBLE.unpack(data)
    if magic != MAGIC or remaining_millis == 0:
        raise End(EXIT_BAD_PREAMBLE)
    return time.monotonic() + remaining_millis / 1000, output_cap, log_cap


def _start(command: list[str], frames: int, answers: int, log: int) -> Child:
    refusal = os.pipe()
    pid = os.fork()
    if pid:
        os.close(refusal[1])
        return Child(pid, refusal[0])
    try:
        os.dup2(refusal[1], _REFUSAL, inheritable=False)  # a handler that is executed never has it
        _become_handler(command, frames, answers, log)
    finally:
        os.write(_REFUSAL, b"!")
        os._exit(1)


def _become_handler(command: list[str], frames: int, answers: int, log: int) -> None:
    """Arrange the descriptors of a fresh child and execute the handler."""
    os.setsid()
    # Copies above the fixed places first, so that no move overwrites one that is still to be made.
    frames, answers, log = (os.dup2(fd, place) for fd, place in ((frames, 20), (answers, 21), (log, 22)))
    empty = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((empty, 0), (log, 1), (log, 2), (frames, 3), (answers, 4)):
        os.dup2(source, target, inheritable=True)
    os.closerange(5, _REFUSAL)
    os.closerange(_REFUSAL + 1, 64)
    _offer_to_oom_killer()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, _ENVIRONMENT)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(2, f"init: cannot start {command[0]!r}: {error.strerror}\n".encode())


def _offer_to_oom_killer() -> None:
    """Make the handler the first to go when memory ends, not PID 1, which knows the deadline."""
    # The file belongs to root while the process is not dumpable. No handler runs yet that could use the gap.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - pathlib costs 5 ms at start
            file.write("1000")
    except OSError:
        return


def _kill_everything() -> None:
    """Kill what is left; the kernel does the same when PID 1 ends."""
    if os.getpid() != 1:
        return
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    if len(sys.argv) < 2:
        os._exit(EXIT_NOT_STARTED)
    os._exit(main(sys.argv[1:]))
