"""Fakes of targets: programs of a bundle's examples that take connections in place of the real system.

A fake is started as `python FILE DESCRIPTOR SETTINGS`: the number of a listening socket that is open already,
and the target's settings as JSON. What it prints is shown when its example fails.

It is a program of the bundle's author and runs outside of any sandbox, with the rights of who tests. So no
fake is started unless the caller was told that it may be.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_END_SECONDS = 5.0
_LOG_BYTES = 8_192
_BACKLOG = 64


@dataclass(frozen=True, slots=True)
class Fake:
    """A fake that runs.

    Attributes:
        port: Where it listens, on 127.0.0.1.
    """

    port: int
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def read_log(self) -> str:
        """What it has printed so far; its end, where that is long."""
        size = os.fstat(self.output.fileno()).st_size
        data = os.pread(self.output.fileno(), _LOG_BYTES, max(0, size - _LOG_BYTES))
        return data.decode(errors="replace").strip()


@contextmanager
def run_fake(program: Path, settings: Mapping[str, str]) -> Iterator[Fake]:
    """Hold a running fake; it is ended with everything that it started.

    Args:
        program: A Python program.
        settings: What the operator would declare of the target.
    """
    with socket.socket() as listening, tempfile.TemporaryFile() as output:
        listening.bind(("127.0.0.1", 0))
        listening.listen(_BACKLOG)  # before it is started: nobody has to wait until it is ready
        number, port = listening.fileno(), listening.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-P", "-u", str(program), str(number), json.dumps(dict(settings))],
            cwd=program.parent,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},  # nothing of what we were given
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(number,),
            start_new_session=True,
        )
        listening.close()  # the fake alone has it now: when it ends, connections are refused
        try:
            yield Fake(port, process, output)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # it may have ended by itself, with its group
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_END_SECONDS)
