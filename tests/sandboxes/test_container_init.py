"""Init, run as an ordinary process: what it passes on, and every way in which it ends."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandboxes import container_init as init

INIT = Path(init.__file__)
ECHO = "import os\nwhile data := os.read(3, 100): os.write(4, data.upper())"


class Running:
    """Init with a handler, played against by a test."""

    def __init__(self, program: str) -> None:
        self._mark = secrets.token_hex(8).encode()
        self.order: list[int] = []
        self._said: dict[int, bytes] = {init.FRAMES: b"", init.LOG: b"", init.EXIT: b""}
        command = [sys.executable, "-I", "-S", str(INIT), sys.executable, "-c", program, self._mark.decode()]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )

    def birth(
        self, idle_millis: int = 20_000, output_cap: int = 1 << 20, log_cap: int = 1 << 16, flags: int = 0
    ) -> None:
        self.write(init.BIRTH.pack(init.BIRTH_MAGIC, idle_millis, output_cap, log_cap, flags))

    def call(self, millis: int = 20_000) -> None:
        self.write(init.CALL.pack(init.CALL_MAGIC, millis))

    def preamble(self, millis: int = 20_000, output_cap: int = 1 << 20, log_cap: int = 1 << 16) -> None:
        self.birth(output_cap=output_cap, log_cap=log_cap)
        self.call(millis)

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def read(self, size: int) -> bytes:
        """Read frames until there are that many bytes, or the end."""
        while len(self._said[init.FRAMES]) < size and self._read_piece():
            continue
        data = self._said[init.FRAMES][:size]
        self._said[init.FRAMES] = self._said[init.FRAMES][size:]
        return data

    def read_to_the_end(self) -> dict[int, bytes]:
        """All that was said, by channel."""
        while self._read_piece():
            continue
        return self._said

    def _read_piece(self) -> bool:
        assert self.process.stdout is not None
        head = self._read_exactly(init.PIECE.size)
        if len(head) < init.PIECE.size:
            return False
        channel, length = init.PIECE.unpack(head)
        self._said[channel] += self._read_exactly(length)
        self.order.append(channel)
        return True

    def _read_exactly(self, size: int) -> bytes:
        assert self.process.stdout is not None
        data = b""
        while len(data) < size and (part := self.process.stdout.read(size - len(data))):
            data += part
        return data

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def log(self) -> str:
        return self.read_to_the_end()[init.LOG].decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._kill_handler()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _kill_handler(self) -> None:
        """Do what the kernel does in a container when its PID 1 has ended."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # ended meanwhile
                if self._mark in (folder / "cmdline").read_bytes().split(b"\0"):
                    os.kill(int(folder.name), signal.SIGKILL)


@pytest.fixture
def started(request: pytest.FixtureRequest) -> Iterator[Running]:
    running = Running(request.param)
    yield running
    running.close()


def playing(program: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("started", [program], indirect=True)


@playing(ECHO)
def test_passes_bytes_on_both_ways(started: Running) -> None:
    started.preamble()
    started.write(b"one")
    assert started.read(3) == b"ONE"
    started.write(b"two")
    assert started.read(3) == b"TWO"


@playing(ECHO)
def test_ends_when_stdin_closes(started: Running) -> None:
    started.preamble()
    started.hang_up()
    assert started.process.wait(10) == init.EXIT_STDIN_CLOSED


@playing("import time; time.sleep(60)")
def test_ends_when_stdin_closes_though_the_handler_does_not_read(started: Running) -> None:
    started.preamble()
    started.write(bytes(100_000))
    started.hang_up()
    assert started.process.wait(10) == init.EXIT_STDIN_CLOSED


@playing(ECHO)
def test_ends_when_stdin_closes_before_the_preamble(started: Running) -> None:
    started.hang_up()
    assert started.process.wait(10) == init.EXIT_STDIN_CLOSED


@playing("import time; time.sleep(60)")
def test_ends_at_the_deadline(started: Running) -> None:
    started.preamble(millis=200)
    assert started.process.wait(10) == init.EXIT_DEADLINE


@playing("import os\nwhile True: os.write(4, bytes(65536))")
def test_ends_at_the_deadline_though_nobody_reads(started: Running) -> None:
    started.preamble(millis=300, output_cap=1 << 30)
    assert started.process.wait(10) == init.EXIT_DEADLINE


@playing("import os\nif os.fork(): os._exit(0)\nwhile True: os.write(2, bytes(65536))")
def test_ends_though_an_orphan_writes_without_end(started: Running) -> None:
    started.preamble(millis=2_000)
    assert started.process.wait(10) in (0, init.EXIT_DEADLINE)


@pytest.mark.parametrize(
    "birth",
    [
        b"HTTP" + bytes(16),
        init.BIRTH.pack(init.BIRTH_MAGIC, 0, 1, 1, 0),
        init.BIRTH.pack(b"TCB2", 1, 1, 1, 0),
    ],
)
@playing(ECHO)
def test_ends_without_a_valid_birth(started: Running, birth: bytes) -> None:
    started.write(birth)
    assert started.process.wait(10) == init.EXIT_BAD_PREAMBLE


@pytest.mark.parametrize("call", [b"GET / HT", init.CALL.pack(init.CALL_MAGIC, 0)])
@playing(ECHO)
def test_ends_without_a_valid_call(started: Running, call: bytes) -> None:
    started.birth()
    started.write(call)
    assert started.process.wait(10) == init.EXIT_BAD_PREAMBLE


def test_ends_when_no_birth_comes(tmp_path: Path) -> None:
    impatient = tmp_path / "init.py"
    impatient.write_text(INIT.read_text().replace("BIRTH_SECONDS = 30.0", "BIRTH_SECONDS = 0.2"))
    command = [sys.executable, "-I", "-S", str(impatient), sys.executable, "-c", ECHO]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.wait(10) == init.EXIT_IDLE


@playing("import os; os.write(4, b'loaded')\n" + ECHO)
def test_starts_the_handler_before_there_is_a_call(started: Running) -> None:
    started.birth()
    assert started.read(6) == b"loaded"
    started.call()
    started.write(b"one")
    assert started.read(3) == b"ONE"


@playing(ECHO)
def test_takes_a_call_that_comes_in_bits(started: Running) -> None:
    started.birth()
    for byte in init.CALL.pack(init.CALL_MAGIC, 20_000) + b"x":
        started.write(bytes([byte]))
        time.sleep(0.01)
    assert started.read(1) == b"X"


@playing(ECHO)
def test_ends_at_the_idle_age(started: Running) -> None:
    started.birth(idle_millis=200)
    assert started.process.wait(10) == init.EXIT_IDLE


@playing(ECHO)
def test_lives_past_the_idle_age_once_it_has_a_call(started: Running) -> None:
    started.birth(idle_millis=300)
    started.call()
    time.sleep(0.6)
    started.write(b"one")
    assert started.read(3) == b"ONE"


@playing("import os\nos.write(2, b'first')\nos.write(4, b'then')")
def test_passes_on_a_log_before_the_frame_that_followed_it(started: Running) -> None:
    started.preamble()
    started.read_to_the_end()
    assert started.order == [init.LOG, init.FRAMES, init.EXIT]


@playing("import time; time.sleep(60)")
def test_says_last_why_it_ended(started: Running) -> None:
    started.preamble(millis=200)
    assert started.read_to_the_end()[init.EXIT] == bytes([init.EXIT_DEADLINE])


@playing("print('it ran')")
def test_starts_no_handler_without_the_filter_that_was_asked_for(started: Running) -> None:
    if Path(init.FILTER_FILE).exists():
        pytest.skip("this machine has the file of a base image")
    started.birth(flags=init.FLAG_FILTER)
    assert started.process.wait(10) == init.EXIT_NOT_STARTED
    assert "it ran" not in started.log()


@playing("import os; os.write(4, bytes(1001)); import time; time.sleep(60)")
def test_ends_past_the_output_cap(started: Running) -> None:
    started.preamble(output_cap=1000)
    assert started.process.wait(10) == init.EXIT_OUTPUT_TOO_LARGE


@playing("import os; os.write(4, bytes(1000))")
def test_lets_the_output_cap_itself_through(started: Running) -> None:
    started.preamble(output_cap=1000)
    assert started.read(2000) == bytes(1000)
    assert started.process.wait(10) == 0


@playing("import os\nfor _ in range(40): os.write(4, bytes(25_000))")
def test_loses_nothing_when_the_handler_ends_before_it_is_read(started: Running) -> None:
    started.preamble(output_cap=1_000_000)
    time.sleep(0.5)
    assert len(started.read(2_000_000)) == 1_000_000
    assert started.process.wait(10) == 0


@playing("print('x' * 5000)")
def test_cuts_the_log_at_its_cap(started: Running) -> None:
    started.preamble(log_cap=1000)
    assert started.process.wait(10) == 0
    assert started.log() == "x" * 1000


@pytest.mark.parametrize(
    "started",
    [f"import os; os._exit({code})" for code in (1, 3, 70, 75, 76, 126, 127, 128, 255)]
    + [f"import os; os.kill(os.getpid(), {number})" for number in (6, 9, 10, 11, 15, 31)],
    indirect=True,
)
def test_does_not_say_with_which_code_or_signal_the_handler_ended(started: Running) -> None:
    started.preamble()
    assert started.process.wait(10) == init.EXIT_HANDLER_FAILED
    assert started.log() == "init: the handler ended with an error\n"


@playing("import os, time; os.close(4); time.sleep(60)")
def test_ends_when_the_handler_closes_its_frames(started: Running) -> None:
    started.preamble()
    assert started.process.wait(10) == init.EXIT_HANDLER_FAILED


@playing("import os; print(sorted(int(name) for name in os.listdir('/proc/self/fd'))[:-1])")
def test_gives_the_handler_its_own_descriptors_only(started: Running) -> None:
    started.preamble()
    assert started.process.wait(10) == 0
    assert started.log() == "[0, 1, 2, 3, 4]\n"


def test_says_which_program_cannot_be_started() -> None:
    command = [sys.executable, "-I", "-S", str(INIT), "no-such-program"]
    birth = init.BIRTH.pack(init.BIRTH_MAGIC, 20_000, 1, 1000, 0)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(birth)
        assert process.wait(10) == init.EXIT_NOT_STARTED
        assert b"'no-such-program'" in process.stdout.read()
