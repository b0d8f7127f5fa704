"""Attack: a tool looks for what its surroundings give away: variables, other containers, the engine."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxes.docker_driver import DockerDriver
from tests.parts.engine import Obedient, answer_of

pytestmark = pytest.mark.engine

STATUS = """
wanted = ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
answer = [lines[name].split()[0] for name in wanted]
"""

CGROUPS = "import re; answer = re.findall('docker.[0-9a-f]{64}', open('/proc/self/cgroup').read())"

NAMESPACES = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
answer = [libc.unshare(flag) for flag in (0x10000000, 0x00020000)]
answer += [libc.mount(b"none", b"/tmp", b"tmpfs", 0, None), libc.ptrace(16, os.getppid(), 0, 0)]
"""


async def test_finds_only_the_variables_that_init_sets(obedient: Obedient) -> None:
    answer = await obedient.answer("import os; answer = sorted(os.environ)")
    assert answer == str(
        [
            "HOME",
            "LANG",
            "PATH",
            "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION",
            "PYTHONDONTWRITEBYTECODE",
            "PYTHONPATH",
            "PYTHONUNBUFFERED",
            "TMPDIR",
        ]
    )


async def test_cannot_read_the_variables_of_init(obedient: Obedient) -> None:
    program = "try: answer = open('/proc/1/environ').read()\nexcept OSError as e: answer = e.strerror"
    assert await obedient.answer(program) == "Permission denied"


async def test_does_not_learn_its_place_among_cgroups(obedient: Obedient) -> None:
    assert await obedient.answer(CGROUPS) == "[]"


async def test_learns_its_place_among_cgroups_without_our_measure(obedient: Obedient) -> None:
    assert "docker" in await obedient.answer_unprotected(CGROUPS, "own-cgroup-view")


async def test_has_no_powers(obedient: Obedient) -> None:
    uid, effective, bounding, no_new, seccomp = eval(await obedient.answer(STATUS))
    assert int(uid) >= 100_000_000
    assert (int(effective, 16), int(bounding, 16), no_new, seccomp) == (0, 0, "1", "2")


async def test_has_powers_without_our_measures(obedient: Obedient) -> None:
    lacking = ("identity", "no-capabilities", "no-new-privileges", "seccomp")
    answer = await obedient.answer_unprotected(STATUS, *lacking)
    uid, effective, *_ = eval(answer)
    assert uid == "0"
    assert int(effective, 16) > 0


async def test_cannot_make_namespaces_or_mounts_or_trace(obedient: Obedient) -> None:
    assert await obedient.answer(NAMESPACES) == "[-1, -1, -1, -1]"


async def test_sees_no_other_process(obedient: Obedient) -> None:
    program = "import os; answer = [name for name in os.listdir('/proc') if name.isdigit()]"
    assert len(eval(await obedient.answer(program))) == 2


async def test_cannot_write_into_its_socket_folder(obedient: Obedient, driver: DockerDriver) -> None:
    program = """
import os
answer = [os.listdir("/run/toolcrib")]
try: open("/run/toolcrib/x", "w")
except OSError as e: answer.append(e.strerror)
"""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        (Path(folder) / "orders-db").mkdir()
        spec = replace(obedient.spec(), socket_dir=Path(folder))
        async with driver.create(spec, "call") as sandbox:
            answer = answer_of(await sandbox.run(obedient.start(program), 10))
    assert answer == "[['orders-db'], 'Read-only file system']"
