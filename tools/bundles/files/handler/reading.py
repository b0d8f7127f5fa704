"""Gives a file back as an artefact, and lists a folder."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from files.v1 import files_pb2

from toolcrib.handler import Failure

from .store import Store

if TYPE_CHECKING:
    from toolcrib.handler import Context

MOST_ENTRIES = 500
_MOST_NAME, _MOST_BYTES = 255, 2**63 - 1
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def read_file(request: files_pb2.ReadFileRequest, context: Context) -> files_pb2.ReadFileResponse:
    """Give a file back.

    Raises:
        Failure: FILE_UNKNOWN, or what `Store.read` raises.
    """
    found = Store(context).read(request.path)
    if found is None:
        raise Failure("FILE_UNKNOWN", "There is no such file.")
    name = _artefact_name(request.path)
    Path(context.artefact_folder, name).write_bytes(found.body)
    context.give_artefact(name)
    digest = hashlib.sha256(found.body).hexdigest()
    return files_pb2.ReadFileResponse(
        path=request.path, size_bytes=len(found.body), sha256=digest, artefact=name
    )


def list_folder(request: files_pb2.ListFolderRequest, context: Context) -> files_pb2.ListFolderResponse:
    """List a folder; what begins with a dot is not shown, because no tool can name it.

    Raises:
        Failure: FOLDER_UNKNOWN, LISTING_UNREADABLE, or what `Store` raises.
    """
    store = Store(context)
    path = f"{request.path}/" if request.path else ""
    answer = store.ask("GET", path, headers={"Accept": "application/json"})
    if answer.status == 404:
        raise Failure("FOLDER_UNKNOWN", "There is no such folder.")
    entries = _read_listing(store.expect(answer, 200).body)
    response = files_pb2.ListFolderResponse(more=len(entries) > MOST_ENTRIES)
    for name, is_folder, size_bytes in entries[:MOST_ENTRIES]:
        response.entries.add(name=name, is_folder=is_folder, size_bytes=size_bytes)
    return response


def _read_listing(body: bytes) -> list[tuple[str, bool, int]]:
    """Read nginx's JSON listing: a list of {"name", "type": "file" or "directory", "size"}."""
    try:
        entries = [_read_entry(entry) for entry in json.loads(body)]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        text = "The file server gave no listing that can be read; see `autoindex_format json`."
        raise Failure("LISTING_UNREADABLE", text) from error
    return sorted(entry for entry in entries if not entry[0].startswith("."))


def _read_entry(entry: Any) -> tuple[str, bool, int]:
    name, kind = entry["name"], entry["type"]
    if not isinstance(name, str) or kind not in ("file", "directory", "other"):
        raise ValueError("no entry of a listing")
    name.encode()  # a half of a surrogate pair is no text
    size_bytes = max(int(entry.get("size", 0)), 0)
    if size_bytes > _MOST_BYTES:
        raise ValueError("no size of a file")
    return name[:_MOST_NAME], kind == "directory", size_bytes


def _artefact_name(path: str) -> str:
    """Make the plain name that an artefact needs out of a path's last part."""
    return _NOT_IN_NAMES.sub("_", path.rpartition("/")[2]).lstrip("._-")[:100] or "file"
