"""What broker and worker say to each other: a length, a head in JSON, and the strings behind it.

The worker reads what strangers wrote, so the broker takes what it says as what a stranger may say: every
length is bounded before anything is kept, kinds and problems are words of ours, counts are counts.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from tools.content.kinds import Cleaned, ContentInvalid, Format, Kind, Problem, Removed

LENGTH = struct.Struct("!I")
MAX_HEAD_BYTES = 16 * 1024 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_COUNT = 1 << 32


class Job(NamedTuple):
    """Strings to clean, and the origins to which links may stay."""

    origins: tuple[str, ...]
    items: tuple[tuple[Format, str], ...]


class Garbled(Exception):
    """The other side said something that is no message."""


class Rejected(Exception):
    """One of the strings was refused."""

    def __init__(self, at: int, problem: Problem) -> None:
        super().__init__(problem.value)
        self.at, self.problem = at, problem


def encode_job(job: Job) -> bytes:
    """Write a job."""
    bodies = [text.encode() for _, text in job.items]
    sizes = [[int(form), len(body)] for (form, _), body in zip(job.items, bodies, strict=True)]
    return _encode({"origins": list(job.origins), "items": sizes}, bodies)


def decode_job(head: bytes, body: bytes) -> Job:
    """Read a job, in the worker; the broker wrote it."""
    said = json.loads(head)
    texts = _cut(body, [size for _, size in said["items"]])
    forms = [Format(form) for form, _ in said["items"]]
    return Job(tuple(said["origins"]), tuple(zip(forms, texts, strict=True)))


def encode_done(cleaned: Sequence[Cleaned]) -> bytes:
    """Write what came out."""
    bodies = [text.encode() for text, _ in cleaned]
    counts = [{kind.name: count for kind, count in removed.items() if count} for _, removed in cleaned]
    items = [[len(body), count] for body, count in zip(bodies, counts, strict=True)]
    return _encode({"items": items}, bodies)


def encode_rejected(at: int, error: ContentInvalid) -> bytes:
    """Write that a string was refused."""
    return _encode({"at": at, "problem": error.problem.name, "items": []}, [])


def body_size(head: bytes, most: int = MAX_BODY_BYTES) -> int:
    """Tell how much follows a head.

    Raises:
        Garbled: It is none, or more follows than may.
    """
    try:
        items = json.loads(head)["items"]
        sizes = [item[-1] if isinstance(item[-1], int) else item[0] for item in items]
        if all(isinstance(size, int) and size >= 0 for size in sizes) and sum(sizes) <= most:
            return int(sum(sizes))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Garbled("it is no head") from error
    raise Garbled("it is too long")


def decode_done(head: bytes, body: bytes, count: int) -> list[Cleaned]:
    """Read what a job of `count` strings came to.

    Raises:
        Rejected: One of them was refused.
        Garbled: It is no answer to that job.
    """
    try:
        said = json.loads(head)
        if "problem" in said:
            rejected = Rejected(int(said["at"]), Problem[said["problem"]])
        else:
            texts = _cut(body, [size for size, _ in said["items"]])
            found = [_read_counts(counts) for _, counts in said["items"]]
            rejected = None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Garbled("it is no answer") from error
    if rejected is not None:
        if 0 <= rejected.at < count:
            raise rejected
        raise Garbled("it names a string that is not there")
    if len(texts) != count:
        raise Garbled("it has another number of strings")
    return [Cleaned(text, removed) for text, removed in zip(texts, found, strict=True)]


def _read_counts(counts: dict[str, Any]) -> Removed:
    removed = Removed()
    for name, number in counts.items():
        if type(number) is not int or not 0 < number < MAX_COUNT:
            raise ValueError("a count is none")
        removed[Kind[name]] = number
    return removed


def _encode(head: dict[str, Any], bodies: Sequence[bytes]) -> bytes:
    written = json.dumps(head).encode()
    return b"".join((LENGTH.pack(len(written)), written, *bodies))


def _cut(body: bytes, sizes: Sequence[int]) -> list[str]:
    texts, done = [], 0
    for size in sizes:
        texts.append(body[done : done + size].decode())
        done += size
    return texts
