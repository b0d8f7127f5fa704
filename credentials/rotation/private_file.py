"""A secret's file replaced in one step: whoever reads it gets the old secret or the new one, whole."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from credentials.secret import Secret


def replace_private_file(path: Path, secret: Secret) -> None:
    """Put a secret into a file that only its owner may read; durable when it returns.

    The owner stays whoever it was, where we may see to that: the broker may be another user.

    Raises:
        OSError: It could not; the file is what it was.
    """
    target = path.resolve()
    beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            _keep_owner(descriptor, target)
            file.write(secret.reveal() + "\n")
            file.flush()
            os.fsync(descriptor)
        beside.rename(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _keep_owner(descriptor: int, before: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        status = before.stat()
        if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, status.st_uid, status.st_gid)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
