"""Breaking changes between two versions, as `buf breaking` sees them, offline.

Rules:
1. Only packages that both versions have are compared: a breaking change goes into a new package.
2. The category is FILE: what is the same on the wire can still break a client that is generated again.
3. The client views are compared: options are no matter of the callers' code.
"""

from __future__ import annotations

import json
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2

from tools.client_view import client_view
from tools.errors import Violation

TIMEOUT_SECONDS = 30

_CONFIG = json.dumps({"version": "v2", "breaking": {"use": ["FILE"]}})
_IS_IMPORT = bytes.fromhex("d2f603020801")
"""buf.alpha.image.v1: field 8042 of FileDescriptorProto with `is_import: true`."""
_FOUND = 100
"""The exit code with which buf says that it found something."""


class BufFailed(Exception):
    """The program buf could not compare; nothing is known about the versions."""


def find_breaking_changes(old_descriptor_set: bytes, new_descriptor_set: bytes) -> tuple[Violation, ...]:
    """Find what breaks callers of the old version, in the packages that both have.

    Raises:
        BufFailed: buf is not installed, or failed.
    """
    old, new = (_read(client_view(data)) for data in (old_descriptor_set, new_descriptor_set))
    common = {file.package for file in old.file} & {file.package for file in new.file}
    if not any(not package.startswith("google.") for package in common):
        return ()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("old.binpb", "new.binpb")]
        for path, files in zip(paths, (old, new), strict=True):
            path.write_bytes(_write_image(files, common))
        return _run_buf(*paths)


def _read(data: bytes) -> descriptor_pb2.FileDescriptorSet:
    return descriptor_pb2.FileDescriptorSet.FromString(data)


def _write_image(files: descriptor_pb2.FileDescriptorSet, common: set[str]) -> bytes:
    """Write a buf image in which everything that is not compared counts as an import."""
    image = b""
    for file in files.file:
        compared = file.package in common and not file.package.startswith("google.")
        body = file.SerializeToString() + (b"" if compared else _IS_IMPORT)
        image += b"\x0a" + _encode_varint(len(body)) + body
    return image


def _encode_varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _run_buf(old: Path, new: Path) -> tuple[Violation, ...]:
    program = Path(sysconfig.get_path("scripts")) / "buf"
    home = str(old.parent)
    command = [str(program), "breaking", str(new), "--against", str(old), "--config", _CONFIG]
    try:
        done = subprocess.run(
            [*command, "--exclude-imports", "--error-format", "json"],
            env={"HOME": home, "BUF_CACHE_DIR": home, "PATH": ""},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BufFailed(f"cannot run {program}: {error}; install buf-bin") from error
    if done.returncode not in (0, _FOUND):
        raise BufFailed(f"buf breaking failed with {done.returncode}: {done.stderr.strip()}")
    return tuple(_translate(json.loads(line)) for line in done.stdout.splitlines() if line.strip())


def _translate(found: dict[str, object]) -> Violation:
    where = f"{found.get('path', 'descriptor set')}:{found.get('start_line', 1)}"
    return Violation(
        where, f"{found['message']} ({found['type']}): keep it, or move to a new package version"
    )
