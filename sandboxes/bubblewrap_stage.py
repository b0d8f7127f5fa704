"""Where a bubblewrap finds what it mounts: a mount namespace of our own that nobody else sees.

bwrap runs as the sandbox's user, who may not pass a cache folder that is only root's, and it can neither
limit the inodes of a tmpfs nor forbid programs on it. So root lays everything out first, at a place that
everybody may pass: the base's root, the bundle, the nest, and a tmpfs for /tmp with all its limits.

A folder that many sandboxes have at once is laid out as an overlay of its own for each: they share its bytes
and not its inodes, so that they cannot talk to each other by locks or watches on one file.

None of that is ever mounted on the host. A thread enters a mount namespace of its own (`enter`), which what
it starts inherits, and which is gone with the thread: also when the broker is killed.
"""

from __future__ import annotations

import ctypes
import os
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_STAGE = Path("/run/toolcrib-stage")
_EMPTY = _STAGE / "empty"
_CLONE_NEWNS = 0x20000  # sched.h
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND = 1, 2, 4, 8, 4096  # sys/mount.h
_MS_REC, _MS_SLAVE = 16384, 1 << 19
_MNT_DETACH = 2
_INSIDE = threading.local()


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie for a bwrap that is started now.

    Attributes:
        folders: By the place that they are to have in the sandbox.
        tmp: The tmpfs for /tmp; None for none.
    """

    folders: Mapping[str, Path]
    tmp: Path | None


def staged_threads(count: int) -> ThreadPoolExecutor:
    """Make threads that can lay things out.

    A bwrap ends with the thread that started it (`--die-with-parent`): keep them as long as its sandboxes.
    """
    return ThreadPoolExecutor(count, "bubblewrap", initializer=enter)


def enter() -> None:
    """Take this thread, and no other, into a mount namespace of its own.

    Raises:
        OSError: We may not.
    """
    _STAGE.mkdir(mode=0o711, exist_ok=True)
    _check(_libc().unshare(_CLONE_NEWNS), "a mount namespace cannot be made")
    _mount("none", Path("/"), "", _MS_REC | _MS_SLAVE)
    _mount("toolcrib", _STAGE, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "size=1m,mode=0711")
    _EMPTY.mkdir()  # stays: nothing can be listed in an overlay of a folder that was removed
    _EMPTY.chmod(0o755)  # an overlay has the mode of its first layer
    _INSIDE.entered = True


@contextmanager
def laid_out(folders: Mapping[str, Path], tmp: str | None, shared: Collection[str] = ()) -> Iterator[Layout]:
    """Lay out what one bwrap mounts, until it has done so.

    Args:
        folders: Folders of the host, by the place that they are to have in the sandbox.
        tmp: Options of the tmpfs; None for none.
        shared: The places whose folders other sandboxes have too.

    Raises:
        OSError: A folder is not there, or cannot be mounted.
    """
    assert getattr(_INSIDE, "entered", False), "only a staged thread may mount"
    with ExitStack() as stack:
        top = stack.enter_context(_folder(_STAGE / uuid.uuid4().hex))
        placed = {}
        for number, (place, source) in enumerate(folders.items()):
            target = stack.enter_context(_folder(top / str(number)))
            _mount(str(source), target, "", _MS_BIND)
            stack.callback(_detach, target)
            placed[place] = _overlaid(stack, target) if place in shared else target
        if tmp is not None:
            stack.enter_context(_folder(top / "tmp"))
            _mount("toolcrib", top / "tmp", "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, tmp)
            stack.callback(_detach, top / "tmp")
        yield Layout(placed, None if tmp is None else top / "tmp")


def _overlaid(stack: ExitStack, lower: Path) -> Path:
    """Lay an overlay over a folder; the kernel wants two layers where none can be written."""
    target = stack.enter_context(_folder(lower.with_name(f"{lower.name}-own")))
    _mount("toolcrib", target, "overlay", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, f"lowerdir={_EMPTY}:{lower}")
    stack.callback(_detach, target)
    return target


def try_stage() -> None:
    """Lay out something of each kind and take it away again.

    Raises:
        OSError: It does not work here.
    """
    with laid_out({"/": Path("/usr")}, "size=1m,nr_inodes=16", {"/"}):
        return


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    path.mkdir(mode=0o711)
    try:
        yield path
    finally:
        path.rmdir()


def _mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    places = os.fsencode(source), os.fsencode(target)
    done = _libc().mount(*places, kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(done, f"{source} cannot be mounted for a sandbox")


def _detach(target: Path) -> None:
    _check(_libc().umount2(os.fsencode(target), _MNT_DETACH), f"{target} cannot be unmounted")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
