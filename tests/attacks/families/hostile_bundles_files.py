"""Bundles that bring files for others to load, and tools that keep something for a call that comes later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sandboxes.hardening import ENTRYPOINT
from sandboxes.images import build_base, build_bundle
from tests.attacks.arena import ABSENT, Attack, Control, Ground, Verdict
from tests.attacks.weakened import setting
from tests.parts.bubblewrap import BubblewrapTool
from tests.parts.engine import OBEDIENT_HANDLER, STATE, Obedient

FAMILY = "hostile_bundles"

# Stands in for a module that init imports, and notes in /tmp which process loaded it; init has the same user.
# (What Python runs by itself, such as sitecustomize.py, is refused when an image is built.)
STRUCT = b"""
import os
from _struct import *
from _struct import _clearcache
open(f"/tmp/loaded-by-{os.getpid()}", "w").close()
"""
FILES = {"handler.py": OBEDIENT_HANDLER, "struct.py": STRUCT}
TRUSTING_INIT = Control(
    ("no-environment",),
    (
        setting("variables of the bundle's", "Env", ["PYTHONPATH=/opt/bundle"]),
        setting("an init that is not isolated", "Entrypoint", (ENTRYPOINT[0], ENTRYPOINT[-1])),
    ),
)


def _build(tool: object) -> str:
    """Build the image of the bundle with these files."""
    if isinstance(tool, BubblewrapTool):
        return tool.folders.build_bundle(tool.folders.build_base(), FILES)
    assert isinstance(tool, Obedient)
    return build_bundle(tool.engine, build_base(tool.engine, STATE / "cache"), "customised", FILES)


async def _from_own_image(attack: Attack, ground: Ground) -> Verdict:
    image = await asyncio.to_thread(_build, ground.obedient)
    answer = await ground.answer(attack.program, image_id=image)
    return Verdict(answer == "loaded by init", answer, answer == "not loaded by init")


@asynccontextmanager
async def _count_calls(ground: Ground) -> AsyncIterator[Mapping[str, Any]]:
    """How many calls one process serves: one, but in the control."""
    yield {"calls": 2 if ground.is_control else 1}


async def _call_again(attack: Attack, ground: Ground) -> Verdict:
    """Judge what the second call finds of the first."""
    await ground.answer(attack.program)
    answer = await ground.answer(attack.program)
    async with ground.create() as sandbox:
        await ground.tell(sandbox, attack.program)
        try:
            await ground.tell(sandbox, attack.program)
        except AssertionError:
            return Verdict(answer != "0", f"{answer} earlier calls", answer == "0")
    return Verdict(True, "a sandbox served a second call")


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "brings modules for init to load",
        FAMILY,
        "its own code in PID 1, which holds the deadline",
        "answer = 'loaded by init' if os.path.exists('/tmp/loaded-by-1') else 'not loaded by init'",
        TRUSTING_INIT,
        {"": "init is started isolated: no variables, no site, no folder of the bundle's"},
        judge=_from_own_image,
    ),
    Attack(
        "keeps what it saw for the next call",
        FAMILY,
        "another caller's request, in a process that serves both",
        """
import builtins
for _ in range(calls):
    seen = getattr(builtins, "seen", 0)
    builtins.seen = seen + 1
answer = str(seen)
""",
        Control(says="one process serves two calls"),
        {"": "a sandbox serves one call"},
        host=_count_calls,
        judge=_call_again,
    ),
    Attack(
        "changes the libraries that all load",
        FAMILY,
        "its code in the next sandbox of the image",
        """
import glob, sys
libraries = {
    "libc": glob.glob("/lib/*/libc.so.6")[0],
    "interpreter": os.path.realpath(sys.executable),
    "module": os.__file__,
    "sdk": sys.modules["toolcrib.handler.frames"].__file__,
    "init": "/opt/toolcrib/init.pyc",
}
for name, path in libraries.items():
    step(name, os.chmod, path, 0o777)
    step(name + " beside", touch, path + ".new", "w+b")
""",
        Control(("read-only-root", "identity", "no-capabilities")),
        {"": "a root that is read-only, and a user that owns nothing of it"},
        refusals=ABSENT | {"EROFS", "EPERM", "EACCES"},
    ),
)
