"""gVisor's runtime as a Docker Engine has to know it: what goes into `runtimes` of its daemon.json."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

RUNTIME = "runsc"
ARGUMENTS = ("--host-uds=open", "--network=none")
"""What it must be told beside its platform: the egress sockets are the host's, and there is no network."""

_PATIENCE_SECONDS = 10.0


def find_runsc() -> dict[str, Any] | None:
    """Say what an engine here has to know; None where runsc is not installed.

    Its faster platform is taken where this release has it. The third one, kvm, is never chosen: where the
    host is a virtual machine itself it may hang instead of failing.
    """
    path = shutil.which("runsc")
    if path is None:
        return None
    try:
        asked = subprocess.run([path, "flags"], check=False, capture_output=True, timeout=_PATIENCE_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    platform = "systrap" if b"systrap" in asked.stdout + asked.stderr else "ptrace"
    return {"path": path, "runtimeArgs": [f"--platform={platform}", *ARGUMENTS]}
