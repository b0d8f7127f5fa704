"""Puts a new object once for each idempotency key, and tells whether it did.

    .toolcrib/KEY    what is to be put (name, size and SHA-256), written first; names the object to look at
    NAME             put with `If-None-Match: *`, and with KEY in its metadata, in one request

So the object itself says whose write made it, and the server lets nobody's replace another's. The probe reads
the mark to learn the name, and then asks the object:

    no mark, or no object    nothing happened
    the object has KEY       it happened
    it has another's         nobody can tell any more: it was there before, or came after ours was replaced
    it was deleted           nor then: a bucket with versions says so

Nobody removes the marks; delete those that are older than the keys' retention.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from s3.v1 import objects_pb2

from toolcrib.handler import Failure

from .bucket import Answer, Bucket

if TYPE_CHECKING:
    from toolcrib.handler import Context

_KEY, _SHA256 = re.compile(r"[0-9a-f]{1,128}"), re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,79})*")
_FOLDER, _HEADER = ".toolcrib", "x-amz-meta-toolcrib-key"
_PUT, _EXISTS = (200, 201), 412
_CONFLICT = 409
"""Another request about the same object was at work: nothing was put by this one."""
_SURELY_NOT = (400, 404, 405, 411, 413, 501)


def put_object(request: objects_pb2.PutObjectRequest, context: Context) -> objects_pb2.PutObjectResponse:
    """Put a new object: once, however often it is asked with one key.

    Raises:
        Failure: OBJECT_EXISTS, KEY_TAKEN, PUT_UNKNOWN, or what `Bucket` raises.
    """
    bucket, key = Bucket(context), _check_key(context.idempotency_key)
    content = request.data if request.HasField("data") else request.text.encode()
    digest = hashlib.sha256(content).hexdigest()
    wanted = objects_pb2.PutObjectResponse(name=request.name, size_bytes=len(content), sha256=digest)
    _leave_mark(bucket, key, wanted)
    media_type = "application/octet-stream" if request.HasField("data") else "text/plain; charset=utf-8"
    headers = {"Content-Type": media_type, "If-None-Match": "*", _HEADER: key}
    answer = bucket.ask("PUT", request.name, body=content, headers=headers, effect_if_lost=True)
    if answer.status in (_CONFLICT, _EXISTS):
        return _read_own(bucket, key, wanted)
    if answer.status not in (*_PUT, *_SURELY_NOT):
        raise _unknown()
    bucket.expect(answer, *_PUT)
    return wanted


def lookup_put(request: objects_pb2.LookupPutRequest, context: Context) -> objects_pb2.LookupPutResponse:
    """Tell whether an object was put under a key.

    Raises:
        Failure: OBJECT_REPLACED where nobody can tell any more, MARK_UNREADABLE, or what `Bucket` raises.
    """
    key = request.idempotency_key
    if not _KEY.fullmatch(key):
        return objects_pb2.LookupPutResponse(put=False)
    bucket = Bucket(context)
    wanted = _read_mark(bucket, key)
    if wanted is None:
        return objects_pb2.LookupPutResponse(put=False)
    found = bucket.ask("HEAD", wanted.name)
    if found.status == 404:
        if found.headers.get("x-amz-delete-marker"):
            text = "An object of the write's name was deleted: nobody can tell whether it was the write's."
            raise Failure("OBJECT_REPLACED", text)
        return objects_pb2.LookupPutResponse(put=False)
    if not _is_of(bucket.expect(found, 200), key):
        text = f"The object {wanted.name} is somebody else's: look at what wrote it, and when."
        raise Failure("OBJECT_REPLACED", text)
    return objects_pb2.LookupPutResponse(put=True, object=wanted)


def _check_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise Failure("KEY_INVALID", "The idempotency key is not in hexadecimal.")
    return key


def _leave_mark(bucket: Bucket, key: str, wanted: objects_pb2.PutObjectResponse) -> None:
    """Write what is to be put, unless an earlier run of the key did.

    Raises:
        Failure: KEY_TAKEN or BUCKET_BUSY.
    """
    note = {"name": wanted.name, "size_bytes": wanted.size_bytes, "sha256": wanted.sha256}
    headers = {"Content-Type": "application/json", "If-None-Match": "*", _HEADER: key}
    answer = bucket.ask("PUT", f"{_FOLDER}/{key}", body=json.dumps(note).encode(), headers=headers)
    if answer.status == _CONFLICT:
        raise _busy()
    if answer.status != _EXISTS:
        bucket.expect(answer, *_PUT)
    elif _read_mark(bucket, key) != wanted:
        raise Failure("KEY_TAKEN", "The idempotency key holds another write; use a new key.")


def _read_mark(bucket: Bucket, key: str) -> objects_pb2.PutObjectResponse | None:
    answer = bucket.ask("GET", f"{_FOLDER}/{key}")
    if answer.status == 404:
        return None
    try:
        wanted = objects_pb2.PutObjectResponse(**json.loads(bucket.expect(answer, 200).body))
        # Whoever writes to the bucket past this tool could have changed it.
        if len(wanted.name) > 200 or not (_NAME.fullmatch(wanted.name) and _SHA256.fullmatch(wanted.sha256)):
            raise ValueError("no mark of ours")
        return wanted
    except (ValueError, TypeError, RecursionError) as error:
        text = "The mark of this key cannot be read; look at .toolcrib in the tenant's folder."
        raise Failure("MARK_UNREADABLE", text) from error


def _read_own(
    bucket: Bucket, key: str, wanted: objects_pb2.PutObjectResponse
) -> objects_pb2.PutObjectResponse:
    """There is such an object: it is what an earlier run of this key put, or somebody else's.

    Raises:
        Failure: OBJECT_EXISTS or BUCKET_BUSY; PUT_UNKNOWN where the object cannot be looked at.
    """
    try:
        found = bucket.ask("HEAD", wanted.name)
    except Failure as error:
        raise _unknown() from error
    if found.status == 404:
        raise _busy()
    if found.status != 200:
        raise _unknown()
    if _is_of(found, key):
        return wanted
    raise Failure("OBJECT_EXISTS", "There is such an object already; nothing was put.")


def _unknown() -> Failure:
    text = "The object store did not say clearly whether it put the object."
    return Failure("PUT_UNKNOWN", text, effect="unknown")


def _busy() -> Failure:
    text = "Another request about the same object was at work. Nothing was put."
    return Failure("BUCKET_BUSY", text, retryable=True)


def _is_of(found: Answer, key: str) -> bool:
    return found.headers.get(_HEADER) == key
