"""Attack: a tool looks for what its surroundings give away: variables, powers, other processes.

What it tries to get from there is among families/escapes.py and families/init.py.
"""

from __future__ import annotations

import pytest

from tests.parts.engine import Obedient

pytestmark = pytest.mark.engine

STATUS = """
wanted = ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
answer = [lines[name].split()[0] for name in wanted]
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


async def test_sees_no_other_process(obedient: Obedient) -> None:
    program = "import os; answer = [name for name in os.listdir('/proc') if name.isdigit()]"
    assert len(eval(await obedient.answer(program))) == 2
