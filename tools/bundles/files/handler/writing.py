"""Writes a file once for each idempotency key, and tells whether it did.

A server that knows PUT and MOVE is enough; two names beside the tenant's files carry the once:

    .toolcrib/KEY.content    what is to be written; the MOVE takes it away to its place
    .toolcrib/KEY.json       what the request was, written after the content and before the MOVE

    neither, or the content alone    nothing happened
    both                             nothing happened yet
    KEY.json alone                   it happened: only the MOVE takes the content away

A MOVE within one file system is one rename: the file is there whole, or the old one still is. A run that was
killed anywhere can be looked at, and run again with the same key.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from files.v1 import files_pb2

from toolcrib.handler import Failure

from .store import Store

if TYPE_CHECKING:
    from toolcrib.handler import Context

_KEY = re.compile(r"[A-Za-z0-9]{1,128}")
_FOLDER = ".toolcrib"
_DONE, _SURELY_NOT = (201, 204), (400, 405, 409, 413, 414, 423, 507)
# Strong entity tags (RFC 9110, 8.8.3) without what the header If is made of; a weak one matches nothing.
_TAG = re.compile(r'"[!#-Z^-~]{0,200}"')


def write_file(request: files_pb2.WriteFileRequest, context: Context) -> files_pb2.WriteFileResponse:
    """Write a file: once, however often it is asked with one key.

    Raises:
        Failure: FILE_EXISTS, FILE_CHANGED, KEY_TAKEN, or what `Store` raises.
    """
    store, key = Store(context), context.idempotency_key
    content = request.data if request.HasField("data") else request.text.encode()
    digest = hashlib.sha256(content).hexdigest()
    response = files_pb2.WriteFileResponse(path=request.path, size_bytes=len(content), sha256=digest)
    earlier = _find_write(store, key)
    if earlier is not None:
        if earlier != response:
            raise Failure("KEY_TAKEN", "The idempotency key holds another write; use a new key.")
        return earlier
    condition = _check_current(store, request)
    _make_folders(store, request.path)
    store.expect(store.ask("PUT", f"{_FOLDER}/{key}.content", body=content), 200, 201, 204)
    note = json.dumps({"path": request.path, "size_bytes": len(content), "sha256": digest}).encode()
    store.expect(store.ask("PUT", f"{_FOLDER}/{key}.json", body=note), 200, 201, 204)
    _move(store, key, request.path, condition)
    return response


def lookup_write(request: files_pb2.LookupWriteRequest, context: Context) -> files_pb2.LookupWriteResponse:
    """Tell whether a file was written under a key."""
    if not _KEY.fullmatch(request.idempotency_key):
        return files_pb2.LookupWriteResponse(written=False)
    found = _find_write(Store(context), request.idempotency_key)
    return files_pb2.LookupWriteResponse(written=found is not None, file=found)


def _find_write(store: Store, key: str) -> files_pb2.WriteFileResponse | None:
    """Read what was written under a key; None where the MOVE did not happen."""
    note = store.read(f"{_FOLDER}/{key}.json")
    if note is None or store.read(f"{_FOLDER}/{key}.content") is not None:
        return None
    try:
        return files_pb2.WriteFileResponse(**json.loads(note.body))
    except (ValueError, TypeError, RecursionError) as error:
        # Cut off in the middle: then the MOVE cannot have happened, but somebody else took the content away.
        text = "The mark of this key cannot be read; look at .toolcrib in the tenant's folder."
        raise Failure("MARK_UNREADABLE", text, effect="unknown") from error


def _check_current(store: Store, request: files_pb2.WriteFileRequest) -> dict[str, str]:
    """Refuse to write over anything but what the caller has read; gives the MOVE's conditions."""
    current = store.read(request.path)
    if not request.if_match:
        if current is not None:
            text = "There is such a file already; read it, and give its sha256 as if_match to replace it."
            raise Failure("FILE_EXISTS", text)
        return {"Overwrite": "F"}
    if current is None or hashlib.sha256(current.body).hexdigest() != request.if_match:
        raise Failure("FILE_CHANGED", "The file is not the one that if_match names; read it again.")
    tag = current.headers.get("etag", "")
    condition = {"If": f"<{store.address(request.path)}> ([{tag}])"} if _TAG.fullmatch(tag) else {}
    return {"Overwrite": "T", **condition}


def _make_folders(store: Store, path: str) -> None:
    parts = path.split("/")[:-1]
    for folder in (_FOLDER, *("/".join(parts[:count]) for count in range(1, len(parts) + 1))):
        # 405: it is there already.
        answer = store.ask("MKCOL", f"{folder}/")
        if answer.status in (409, 415):
            raise Failure("PATH_TAKEN", "A file is where the path wants a folder.")
        store.expect(answer, 201, 405)


def _move(store: Store, key: str, path: str, condition: dict[str, str]) -> None:
    headers = {"Destination": store.address(path), **condition}
    answer = store.ask("MOVE", f"{_FOLDER}/{key}.content", headers=headers, effect_if_lost=True)
    if answer.status == 412:
        raise Failure("FILE_CHANGED", "Somebody else wrote that file in between; read it again.")
    if answer.status not in (*_DONE, *_SURELY_NOT) and not _is_refused(store, key, answer.status):
        text = "The file server did not say clearly whether it wrote."
        raise Failure("WRITE_UNKNOWN", text, effect="unknown")
    store.expect(answer, *_DONE)


def _is_refused(store: Store, key: str, status: int) -> bool:
    """Tell what a 404 means: there is no such place, or an earlier run's MOVE came late and took it all."""
    if status != 404:
        return False  # the rename may be done all the same
    try:
        return store.read(f"{_FOLDER}/{key}.content") is not None
    except Failure:
        return False
