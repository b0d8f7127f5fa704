"""Serve one call of injection.v1.Injection: ask a target by urllib, then look for a secret everywhere."""

from __future__ import annotations

import contextlib
import os
import stat
import urllib.error
import urllib.request
from pathlib import Path

from injection.v1 import injection_pb2

from toolcrib.handler import Handler, Injected
from toolcrib.handler.frames import Frames

METHODS = (
    *("Bearer", "Basic", "Header", "Query", "Certificate", "Signed", "Application", "OnBehalf"),
    *("Plain", "Given"),
)
# Of the image alone, in which nothing can be written: /usr and what leads there.
ROOTS = ("dev", "etc", "home", "mnt", "opt", "root", "run", "srv", "tmp", "var")
MOST_BYTES = 4 * 1024 * 1024

handler = Handler()
frames_read: list[bytes] = []


class RecordedFrames(Frames):
    """Keeps every frame that came."""

    def read(self):
        frame = super().read()
        frames_read.append(frame.SerializeToString())
        return frame


def fetch(request, context):
    needle = bytes(byte ^ 0x5A for byte in request.needle)
    response = injection_pb2.FetchResponse()
    if request.plant:
        Path("/tmp/planted").write_bytes(b"x" + needle)
        os.environ["PLANTED"] = needle.decode()
    for credential in context.credentials.values():
        is_added = isinstance(credential, Injected)
        response.credentials.append(credential.form if is_added else type(credential).__name__)
    if request.target:
        url = context.targets[request.target].origins[0] + request.path
        status, headers, body = ask(urllib.request.Request(url, headers=dict(request.headers)))
        response.status, response.body = status, body.decode(errors="replace")[:20_000]
        response.in_answer = bool(needle) and needle in headers + b"\n" + body
    if needle:
        response.places.extend(look_for(needle, response))
    return response


def ask(request):
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.status, bytes(answer.headers), answer.read()
    except urllib.error.HTTPError as answer:
        return answer.code, bytes(answer.headers), answer.read()


def look_for(needle, response):
    """Name the places that hold it: variables, arguments, frames, files."""
    for place, data in (*list_frames(), *list_processes(), *list_files(response)):
        if needle in data:
            yield place


def list_frames():
    for frame in frames_read:
        yield "start frame", frame
    for name, value in os.environb.items():
        yield f"variable {name.decode()}", value


def list_processes():
    for entry in Path("/proc").glob("[0-9]*"):
        for part in ("environ", "cmdline"):
            with contextlib.suppress(OSError):
                yield f"{part} of {entry.name}", (entry / part).read_bytes()


def list_files(response):
    for root in ROOTS:
        for folder, _, names in os.walk(f"/{root}"):
            for path in (Path(folder, name) for name in names):
                content = read_file(path)
                response.files += content is not None
                yield f"file {path}", content or b""


def read_file(path):
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        with path.open("rb") as file:
            return file.read(MOST_BYTES)
    except OSError:
        return None


for name in METHODS:
    handler.tool(f"injection.v1.Injection/{name}", injection_pb2.FetchRequest)(fetch)

if __name__ == "__main__":
    handler.run(RecordedFrames())
