"""PID 1 of every sandbox: starts the handler, passes its frames on and ends everything in time.

It is copied into the image and runs there as `python3 -I -S /opt/toolcrib/init.pyc COMMAND…`; only the
standard library is used. Neither the broker nor the engine may be alive when a sandbox has to end, so the
end is enforced here, and the end of PID 1 is the end of every process in the sandbox.

Rules:
    * it is not dumpable: a handler has the same uid and could otherwise rewrite the deadline in /proc/1/mem;
    * the handler is started before there is a call, so that it is loaded when the call comes. Nothing of a
      call is here before the call is;
    * it ends at the deadline, when stdin closes, when no call comes within the idle age, when the handler
      ends, and when the handler says more than its output cap;
    * its stdin and stdout are the broker's: the socket at /run/init, or what it was started with. They are
      never given to the handler, which gets pipes: 3 to read frames, 4 to write them.
      Its stdin is empty, its stdout and stderr are the log, which is cut at the log cap;
    * it writes without blocking: a reader that stops reading cannot hold up the deadline;
    * how the handler ended is told as good or not: an exit code or a signal of its choice would be a message
      past every check;
    * where the birth asks for it, the handler's environment names the HTTP proxy at 127.0.0.1:3128. Either
      the proxy listens there itself, or a process of its own (container_relay.py) carries what comes there
      to its door.

On stdin, big-endian: BIRTH = b"TCB1", u32 milliseconds that it may wait for a call, u32 output cap and u32
log cap in bytes, u32 flags; then, when the call comes, CALL = b"TCC1", u32 milliseconds left; what follows is
for the handler. On stdout: pieces of u8 channel, u32 length and that many bytes. Channel 1 is the handler's
frames, 2 its log, 3 the exit code: one byte, last. A log that was written before a frame comes before it.

Exit codes: 0 the handler ended with 0 · 70 deadline · 71 no call within the idle age · 72 stdin closed ·
73 output cap · 74 no valid preamble · 75 the handler could not be started · 76 the handler ended with another
code, closed its frames or was killed by a signal.
"""

from __future__ import annotations

import _socket  # socket itself costs 5 ms at start
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

BIRTH = struct.Struct(">4sIIII")
BIRTH_MAGIC = b"TCB1"
CALL = struct.Struct(">4sI")
CALL_MAGIC = b"TCC1"
PIECE = struct.Struct(">BI")
FRAMES, LOG, EXIT = 1, 2, 3
FLAG_FILTER = 1
"""Apply the system call filter here: the runtime has none of its own."""
FLAG_PROXY = 2
"""Take connections to the HTTP proxy, and tell the handler where."""
FLAG_PROXY_IS_THERE = 4
"""Tell the handler where the HTTP proxy is; it listens there already."""
PROXY = ("127.0.0.1", 3128)

BIRTH_SECONDS = 30.0
DOOR = "/run/init/s"
FILTER_FILE = "/opt/toolcrib/seccomp.bpf"

_IDLE_TICK_SECONDS = 60.0
_TICK_SECONDS = 1.0
_LINGER_SECONDS = 1.0  # between the end of the frames and the end of the handler
_LAST_WORDS_SECONDS = 0.2  # for a reader that still reads; by then everything else is dead
_REFUSAL = 63  # where a child writes that it could not execute the handler
_CHUNK = 65_536
_MAX_PENDING = 4 * _CHUNK
_DRAIN_ROUNDS = 16
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_BPF_INSTRUCTION = 8  # bytes
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
_PROXY_URL = "http://{}:{}".format(*PROXY)
_AUTHORITIES = "/run/toolcrib/.ca/ca.pem"
_PROXY_ENVIRONMENT = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _PROXY_URL),
    "NODE_USE_ENV_PROXY": "1",
    **dict.fromkeys(
        (
            "SSL_CERT_FILE",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "GIT_SSL_CAINFO",
            "AWS_CA_BUNDLE",
        ),
        _AUTHORITIES,
    ),
}
"""What httpx, requests, urllib, curl, Node's fetch, Go's net/http, git and the AWS SDKs look for."""
_MOST_WAITING = 64


class End(Exception):
    """The sandbox is over; `code` is the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Sink:
    """A descriptor that is written without ever blocking."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.pending = bytearray()
        os.set_blocking(descriptor, False)

    def write(self, data: bytes) -> None:
        """Take bytes, and write what the descriptor takes now."""
        self.pending += data
        self.flush()

    def flush(self) -> None:
        """Write as much as is taken now; a descriptor that nobody reads any more swallows the rest."""
        while self.pending:
            try:
                del self.pending[: os.write(self.descriptor, self.pending)]
            except BlockingIOError:
                return
            except OSError:
                self.pending.clear()

    def flush_within(self, seconds: float) -> None:
        """Write what is left, as far as somebody reads it in time."""
        until = time.monotonic() + seconds
        while self.pending and (left := until - time.monotonic()) > 0:
            select.select([], [self.descriptor], [], left)
            self.flush()

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read for it now."""
        return len(self.pending) > _MAX_PENDING


class Source:
    """One of the handler's two ways out: frames or log.

    Attributes:
        before: What has to come before this. It is drained between reading and passing on, so that what was
            logged before a frame comes before it.
    """

    def __init__(self, descriptor: int, channel: int, sink: Sink, cap: int) -> None:
        """Prepare a source.

        Args:
            descriptor: Where bytes come from.
            channel: FRAMES or LOG. A log is cut at its cap; too many frames end the sandbox.
            sink: Where they go, in pieces.
            cap: The most bytes that may pass in all.
        """
        self.descriptor, self.channel, self.sink, self.left = descriptor, channel, sink, cap
        self.before: Source | None = None
        self.open = True
        os.set_blocking(descriptor, False)

    def pass_on(self) -> bool:
        """Pass on what is there, once; the end of the source closes it.

        Returns:
            True when there was something.

        Raises:
            End: More came than the cap allows.
        """
        try:
            data = os.read(self.descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if self.before is not None:
            self.before.drain()
        if not data:
            self.open = False
            return False
        if len(data) > self.left:
            if self.channel == FRAMES:
                raise End(EXIT_OUTPUT_TOO_LARGE)
            data = data[: self.left]
        self.left -= len(data)
        if data:
            self.sink.write(PIECE.pack(self.channel, len(data)) + data)
        return True

    def drain(self) -> None:
        """Pass on what is already there, as far as a writer that never stops allows.

        Raises:
            End: More came than the cap allows.
        """
        for _ in range(_DRAIN_ROUNDS):
            if not self.open or self.sink.is_full or not self.pass_on():
                return


class Orders:
    """What comes on stdin after the birth: the call, then the handler's frames."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.deadline: float | None = None
        self._head = b""
        os.set_blocking(0, False)

    def pass_on(self) -> None:
        """Take what is there.

        Raises:
            End: Stdin closed, or what came is no call.
        """
        try:
            data = os.read(0, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            raise End(EXIT_STDIN_CLOSED)
        if self.deadline is None:
            data = self._begin_call(self._head + data)
        if data:
            self.sink.write(data)

    def _begin_call(self, data: bytes) -> bytes:
        if len(data) < CALL.size:
            self._head = data
            return b""
        magic, remaining_millis = CALL.unpack_from(data)
        if magic != CALL_MAGIC or remaining_millis == 0:
            raise End(EXIT_BAD_PREAMBLE)
        self.deadline = time.monotonic() + remaining_millis / 1000
        return data[CALL.size :]


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
    """The handler's process and the ways between it and the engine."""

    def __init__(self, child: Child, idle_until: float, orders: Orders, frames: Source, log: Source) -> None:
        self.child, self.idle_until = child, idle_until
        self.orders, self.frames, self.log = orders, frames, log
        self.out = frames.sink
        self.status: int | None = None
        self._wake = _wake_on_ended_children()

    def run(self) -> int:
        """Relay until something ends the sandbox.

        Returns:
            The exit code.
        """
        try:
            while self.status is None and self.frames.open:
                self._step()
            self._linger()
            self._drain()
        except End as end:
            self.log.drain()
            return end.code
        return self._conclude()

    def _step(self) -> None:
        left, tick = self._time_left()
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        self._register(poll)
        ready = {descriptor: events for descriptor, events in poll.poll(min(left, tick) * 1000)}
        if self._wake in ready:
            os.read(self._wake, _CHUNK)
        self._relay(ready)
        self._reap()

    def _time_left(self) -> tuple[float, float]:
        deadline = self.orders.deadline
        left = (self.idle_until if deadline is None else deadline) - time.monotonic()
        if left <= 0:
            raise End(EXIT_IDLE if deadline is None else EXIT_DEADLINE)
        return left, _IDLE_TICK_SECONDS if deadline is None else _TICK_SECONDS

    def _register(self, poll: select.poll) -> None:
        # A handler that does not read must not hide the end of stdin: that is told whatever is asked for.
        poll.register(0, 0 if self.orders.sink.is_full else select.POLLIN)
        for sink in (self.orders.sink, self.out):
            if sink.pending:
                poll.register(sink.descriptor, select.POLLOUT)
        for source in (self.frames, self.log):
            if source.open and not self.out.is_full:
                poll.register(source.descriptor, select.POLLIN)

    def _relay(self, ready: dict[int, int]) -> None:
        for sink in (self.orders.sink, self.out):
            if sink.descriptor in ready:
                sink.flush()
        if ready.get(0, 0) & select.POLLIN:
            self.orders.pass_on()
        elif ready.get(0, 0) & (select.POLLHUP | select.POLLERR):
            raise End(EXIT_STDIN_CLOSED)
        if self.frames.descriptor in ready and not self.out.is_full:
            self.frames.pass_on()
        if self.log.descriptor in ready:
            self.log.drain()

    def _reap(self) -> None:
        """Collect every process that ended: orphans of the handler become children of PID 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child.pid:
                self.status = status

    def _linger(self) -> None:
        """Give a handler that closed its frames a moment to end by itself."""
        until = time.monotonic() + _LINGER_SECONDS
        while self.status is None and time.monotonic() < until:
            self._step()

    def _drain(self) -> None:
        """Pass on what the handler had said before it ended, while somebody reads it."""
        self.frames.drain()
        self.log.drain()
        while self.out.pending:
            self._step()

    def _conclude(self) -> int:
        if self.status == 0:
            self.log.drain()
            return 0
        if self.status is None:
            self._say("the handler closed its frames and went on")
        elif self.child.was_executed():
            self._say("the handler ended with an error")
        else:
            self.log.drain()
            return EXIT_NOT_STARTED
        return EXIT_HANDLER_FAILED

    def _say(self, line: str) -> None:
        self.log.drain()
        text = f"init: {line}\n".encode()
        self.out.write(PIECE.pack(LOG, len(text)) + text)


def main(command: list[str]) -> int:
    """Run one handler to its end.

    Returns:
        The exit code, see the module's list.
    """
    _protect()
    _take_door()
    try:
        idle_until, output_cap, log_cap, flags = _read_birth(time.monotonic() + BIRTH_SECONDS)
    except End as end:
        return end.code
    if flags & FLAG_PROXY and not _start_relay():
        return EXIT_NOT_STARTED
    to_handler, from_handler, log = os.pipe(), os.pipe(), os.pipe()
    child = _start(command, flags, to_handler[0], from_handler[1], log[1])
    for descriptor in (to_handler[0], from_handler[1], log[1]):
        os.close(descriptor)
    out = Sink(1)
    frames, said = Source(from_handler[0], FRAMES, out, output_cap), Source(log[0], LOG, out, log_cap)
    frames.before = said
    code = Supervisor(child, idle_until, Orders(Sink(to_handler[1])), frames, said).run()
    _kill_everything()
    out.write(PIECE.pack(EXIT, 1) + bytes([code]))
    out.flush_within(_LAST_WORDS_SECONDS)
    return code


def _protect() -> None:
    """Close this process to others of the same uid, and to signals that Python would act on."""
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        os._exit(EXIT_NOT_STARTED)
    # A signal of the own namespace reaches PID 1 only where a handler is set; Python sets one for SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _take_door() -> None:
    """Take the broker's socket for stdin and stdout where there is one; nobody else can after that."""
    door = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        door.connect(DOOR)
    except FileNotFoundError:
        return  # stdin and stdout are the broker's already
    os.dup2(door.fileno(), 0)
    os.dup2(door.fileno(), 1)
    door.close()


def _wake_on_ended_children() -> int:
    """Have a descriptor become readable when a child ends; there are no pidfds under gVisor."""
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.kill(os.getpid(), signal.SIGCHLD)  # one may have ended before
    return wake


def _read_birth(until: float) -> tuple[float, int, int, int]:
    data = b""
    while len(data) < BIRTH.size:
        ready, _, _ = select.select([0], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise End(EXIT_IDLE)
        chunk = os.read(0, BIRTH.size - len(data))
        if not chunk:
            raise End(EXIT_STDIN_CLOSED)
        data += chunk
    magic, idle_millis, output_cap, log_cap, flags = BIRTH.unpack(data)
    if magic != BIRTH_MAGIC or idle_millis == 0:
        raise End(EXIT_BAD_PREAMBLE)
    return time.monotonic() + idle_millis / 1000, output_cap, log_cap, flags


def _start_relay() -> bool:
    """Listen for the handler's proxy connections, and leave them to a process of its own.

    Returns:
        False where nobody could connect.
    """
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        listener.bind(PROXY)
        listener.listen(_MOST_WAITING)
    except OSError:
        return False
    if os.fork() == 0:
        try:
            sys.path.insert(0, os.path.dirname(__file__))  # noqa: PTH120 - pathlib costs 5 ms at start
            __import__("container_relay").serve(listener.fileno())
        finally:
            os._exit(1)
    listener.close()
    return True


def _start(command: list[str], flags: int, frames: int, answers: int, log: int) -> Child:
    refusal = os.pipe()
    pid = os.fork()
    if pid:
        os.close(refusal[1])
        return Child(pid, refusal[0])
    try:
        os.dup2(refusal[1], _REFUSAL, inheritable=False)  # a handler that is executed never has it
        _become_handler(command, flags, frames, answers, log)
    finally:
        os.write(_REFUSAL, b"!")
        os._exit(1)


def _become_handler(command: list[str], flags: int, frames: int, answers: int, log: int) -> None:
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
        if flags & FLAG_FILTER:
            _apply_filter()
        has_proxy = flags & (FLAG_PROXY | FLAG_PROXY_IS_THERE)
        environment = _ENVIRONMENT | (_PROXY_ENVIRONMENT if has_proxy else {})
        os.execvpe(command[0], command, environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(2, f"init: cannot start {command[0]!r}: {error.strerror}\n".encode())


def _apply_filter() -> None:
    """Let this process and what it becomes make the calls of the filter only.

    Raises:
        OSError: There is no filter, or the kernel does not take it.
    """
    descriptor = os.open(FILTER_FILE, os.O_RDONLY)
    program = os.read(descriptor, _CHUNK)
    os.close(descriptor)
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: u16 length in instructions, pointer to them (linux/filter.h)
    address = ctypes.addressof(code)
    fprog = ctypes.create_string_buffer(struct.pack("@HP", len(program) // _BPF_INSTRUCTION, address))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    if (
        not program
        or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
        or libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(fprog), 0, 0) != 0
    ):
        raise OSError(ctypes.get_errno(), "the system call filter is not taken")


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
