"""Whether this host can run bubblewraps as promised; each answer says what to do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from sandboxes.cgroups import Ceilings, Cgroups
from sandboxes.outcome import EngineUnfit
from sandboxes.syscall_filter import filter_bytes
from sandboxes.uids import allocate_uid

_OLDEST = (0, 8)  # --disable-userns, --size
_PROBE_SECONDS = 20
_PROBE = ("--unshare-all", "--unshare-user", "--disable-userns", "--ro-bind", "/", "/", "--proc", "/proc")
_REMEDY = (
    "let unprivileged users make user namespaces (sysctl user.max_user_namespaces,"
    " kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; in a container"
    " /proc must not be masked), or use the Docker Engine"
)


@dataclass(frozen=True, slots=True)
class BubblewrapInfo:
    """What runs the sandboxes.

    Attributes:
        version: bwrap's.
        cgroups: Version of the control groups.
    """

    version: str
    cgroups: int

    def describe(self) -> str:
        """Name it in a line."""
        return f"bubblewrap {self.version} (cgroup v{self.cgroups}), weaker than the Docker Engine"


def check_bubblewrap(cgroups: Cgroups) -> BubblewrapInfo:
    """Make sure of bwrap, setpriv, libseccomp, control groups and user namespaces.

    Raises:
        EngineUnfit: One is missing.
        CgroupsUnfit: Limits cannot be set.
        FilterFailed: There is no syscall filter.
    """
    if os.geteuid() != 0:
        raise EngineUnfit("bubblewrap needs a broker that runs as root (users and limits of its sandboxes)")
    version = _version()
    if shutil.which("setpriv") is None:
        raise EngineUnfit("setpriv is missing: install util-linux")
    filter_bytes()
    name = f"probe-{os.getpid()}"
    cgroups.make("probe", os.getpid(), name, Ceilings(16 << 20, no_swap=True, pids=4, cpus=0.5)).end()
    _try_namespaces()
    return BubblewrapInfo(version, cgroups.version)


def _version() -> str:
    if shutil.which("bwrap") is None:
        raise EngineUnfit("bwrap is missing: install bubblewrap (Debian: apt-get install bubblewrap)")
    said = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)\.(\d+)(\.\d+)?", said)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST:
        raise EngineUnfit(f"bwrap is too old ({said.strip() or 'no version'}): install 0.8 or later")
    return found[0]


def _try_namespaces() -> None:
    """Run a bwrap as a sandbox's user would be: kernels and distributions may forbid that."""
    uid = allocate_uid()
    as_user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    try:
        subprocess.run(
            [*as_user, "bwrap", *_PROBE, "--", "/bin/true"],
            check=True,
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip()[-200:]
        raise EngineUnfit(f"bwrap cannot make a sandbox ({said}): {_REMEDY}") from error
    except subprocess.TimeoutExpired as error:
        raise EngineUnfit(f"bwrap made no sandbox within {_PROBE_SECONDS} s: {_REMEDY}") from error
