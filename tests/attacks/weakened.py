"""The ways in which controls weaken a sandbox."""

from __future__ import annotations

from typing import Any

from sandboxes.hardening import ENTRYPOINT, Measure
from tests.attacks.arena import Control

RIGHTS = ("identity", "no-capabilities", "no-new-privileges", "seccomp")
"""What stands between a tool and the powers of root."""


def setting(name: str, path: str, value: Any) -> Measure:
    """A setting that weakens."""
    return Measure(name, path, lambda spec: value, "nothing: it weakens")


NO_FILTER = setting("no filter at all", "HostConfig.SecurityOpt", ["seccomp=unconfined"])
HOST_PIDS = setting("the host's processes", "HostConfig.PidMode", "host")
HOST_NETWORK = setting("the host's network", "HostConfig.NetworkMode", "host")
NEW_PRIVILEGES = setting("new privileges", "HostConfig.SecurityOpt", ["no-new-privileges:false"])
"""An engine may have the contrary for its default."""

UNFILTERED = Control(("seccomp",), (NO_FILTER,))
POWERS = [
    "SYS_ADMIN",
    "SYS_PTRACE",
    "SYSLOG",
    "DAC_READ_SEARCH",
    "NET_ADMIN",
    "SYS_TIME",
    "SYS_BOOT",
    "SYS_RAWIO",
]
PRIVILEGED = Control(
    (*RIGHTS, "read-only-root", "tmp", "masked-paths", "read-only-paths"),
    (
        NO_FILTER,
        # Not "privileged" itself: that fails where the engine lacks a single capability.
        setting("capabilities", "HostConfig.CapAdd", POWERS),
        setting("no covered paths", "HostConfig.MaskedPaths", []),
        setting("no read-only paths", "HostConfig.ReadonlyPaths", []),
        setting("every device", "HostConfig.DeviceCgroupRules", ["a *:* rwm"]),
        setting("the host's /sys and /dev", "HostConfig.Binds", ["/sys:/sys", "/dev:/dev"]),
    ),
    limits={"memory_mib": 256, "pids": 64},
    says="a privileged container",
)


def root_with(*capabilities: str, without: tuple[str, ...] = ()) -> Control:
    """Root with single capabilities, unfiltered."""
    more = (setting(f"CAP_{name}", "HostConfig.CapAdd", [name]) for name in capabilities)
    says = ", ".join(["root", *(f"CAP_{name}" for name in capabilities), "no filter"])
    return Control((*RIGHTS, *without), (NO_FILTER, *more), says=says)


# Runs the image's own init with a line of ours in between.
_CHANGED_INIT = """
import importlib.machinery, importlib.util, os, sys
loader = importlib.machinery.SourcelessFileLoader("init", "/opt/toolcrib/init.pyc")
init = importlib.util.module_from_spec(importlib.util.spec_from_loader("init", loader))
loader.exec_module(init)
{line}
os._exit(init.main(sys.argv[1:]))
"""


def changed_init(name: str, line: str) -> Measure:
    """Our init, with something of it changed before it starts."""
    program = (*ENTRYPOINT[:-1], "-c", _CHANGED_INIT.format(line=line))
    return setting(name, "Entrypoint", program)  # a tuple: lists of one setting would be joined


CARELESS_INIT = changed_init("an init that can be dumped", "init._protect = lambda: None")
LEAKING_INIT = changed_init("an init that closes nothing", "init.os.closerange = lambda *numbers: None")
TIMELESS_INIT = changed_init(
    "an init without a deadline",
    "import types; init.time = types.SimpleNamespace(monotonic=lambda: 0.0)",
)
"""Its clock stands still."""
_PARENT = """
import os, signal, subprocess, sys
child = subprocess.Popen(sys.argv[1:])
os._exit(child.wait() & 255)
"""
INIT_BELOW = setting(
    "an init that is not PID 1", "Entrypoint", (*ENTRYPOINT[:-1], "-c", _PARENT, *ENTRYPOINT)
)
