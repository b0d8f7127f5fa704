"""A process that holds secrets leaves no core and cannot be read by its neighbours."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

CRASH = "import os, signal; secret = 'canary-' + 'in-memory'; os.kill(os.getpid(), signal.SIGSEGV)"
HARDEN = "from credentials.hardened import refuse_dumps; refuse_dumps(); "
ROOT = Path(__file__).parents[2]


ALLOW = (
    "import resource; limit = resource.getrlimit(resource.RLIMIT_CORE)[1]; "
    "resource.setrlimit(resource.RLIMIT_CORE, (limit, limit)); "
)


def leaves_core(program: str, folder: Path) -> bool:
    """Crash a program in a folder; tell whether the kernel wrote a core of it."""
    environment = {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", ALLOW + program], cwd=folder, env=environment)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = 0
    assert os.WIFSIGNALED(status), "it crashes"
    return os.WCOREDUMP(status) or any(folder.iterdir())


def test_leaves_no_core_when_it_crashes(tmp_path: Path) -> None:
    assert not leaves_core(HARDEN + CRASH, tmp_path)


def test_leaves_one_without_it(tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("this machine allows no process to leave a core")
    assert leaves_core(CRASH, tmp_path)


def test_keeps_what_it_starts_from_leaving_cores(tmp_path: Path) -> None:
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CRASH!r}]); {CRASH}"
    assert not leaves_core(HARDEN + program, tmp_path)


@pytest.mark.parametrize(("program", "flag"), [(HARDEN, "0"), ("", "1")])
def test_can_be_read_by_nobody_of_the_same_user(program: str, flag: str) -> None:
    ask = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    said = subprocess.check_output([sys.executable, "-c", program + ask], env={"PYTHONPATH": str(ROOT)})
    assert said.decode().strip() == flag
