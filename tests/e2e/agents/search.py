"""Looks for a text wherever an agent could hold it: memory, environment, open files, bytes on the wire.

Each text is looked for raw, in hex (both cases), and in base64 at each of the three alignments that it can
have within a longer text (both alphabets).
"""

from __future__ import annotations

import base64
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_CHUNK = 8 * 1024 * 1024


def write_forms(text: str) -> dict[str, bytes]:
    """Write every form of a text, by its name."""
    raw = text.encode()
    forms = {"raw": raw, "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode()}
    for offset in range(3):
        padded = b"\0" * offset + raw
        # Characters at both ends mix with what stands beside the text: keep those that only it decides.
        first, last = -(-offset * 8 // 6), len(padded) * 8 // 6
        forms[f"base64+{offset}"] = base64.b64encode(padded)[first:last]
        forms[f"base64url+{offset}"] = base64.urlsafe_b64encode(padded)[first:last]
    return forms


class Search:
    """A search for some texts; each place answers with what it found, as "name in form"."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._needles = {
            f"{name} in {form}": needle
            for name, text in texts.items()
            for form, needle in write_forms(text).items()
        }
        self._overlap = max(map(len, self._needles.values()), default=1) - 1

    def in_bytes(self, data: bytes) -> set[str]:
        """Search bytes that are all there."""
        return {name for name, needle in self._needles.items() if needle in data}

    def in_memory(self, pid: int) -> set[str]:
        """Search every readable mapping of a process."""
        return self._in_chunks(_read_memory(pid, self._overlap))

    def in_environment(self, pid: int) -> set[str]:
        """Search the environment that a process was started with."""
        return self.in_bytes(Path(f"/proc/{pid}/environ").read_bytes())

    def in_open_files(self, pid: int) -> set[str]:
        """Search the whole content of every regular file that a process has open."""
        files = [link for link in Path(f"/proc/{pid}/fd").iterdir() if _is_file(link)]
        return self._in_chunks(link.read_bytes() for link in files)

    def in_wire(self, wires: Iterable[Mapping[str, str]]) -> set[str]:
        """Search the plaintext of requests, answers and trailers, as the agents report them in hex."""
        return self._in_chunks(bytes.fromhex(part) for wire in wires for part in wire.values())

    def _in_chunks(self, chunks: Iterable[bytes]) -> set[str]:
        found: set[str] = set()
        for chunk in chunks:
            found |= self.in_bytes(chunk)
        return found


def _read_memory(pid: int, overlap: int) -> Iterator[bytes]:
    ranges = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) r", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end in ((int(a, 16), int(b, 16)) for a, b in ranges):
            for position in range(start, end, _CHUNK):
                try:
                    memory.seek(position)
                    yield memory.read(min(_CHUNK + overlap, end - position))
                except (OSError, OverflowError, ValueError):  # [vvar], or unmapped since
                    break


def _is_file(link: Path) -> bool:
    try:
        return stat.S_ISREG(link.stat().st_mode)
    except OSError:
        return False
