"""Lists objects, and gives one back."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from s3.v1 import objects_pb2

from toolcrib.handler import Failure

from .bucket import Bucket

if TYPE_CHECKING:
    from toolcrib.handler import Context

_DEFAULT_LIMIT, _MOST_TEXT_BYTES, _MOST_NAME = 100, 128 * 1024, 1024
_MOST_SIZE = 2**63 - 1
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_OURS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,79})*")
_SPACE = re.compile(r"\{[^}]*\}")


def list_objects(
    request: objects_pb2.ListObjectsRequest, context: Context
) -> objects_pb2.ListObjectsResponse:
    """List a tenant's objects; the marks of writes are not shown, because no tool can name them.

    Raises:
        Failure: LISTING_UNREADABLE, or what `Bucket` raises.
    """
    bucket = Bucket(context)
    query = {
        "list-type": 2,
        "prefix": bucket.folder + request.prefix,
        "max-keys": request.limit or _DEFAULT_LIMIT,
        "encoding-type": "url",
    }
    # Names with a dot in front, the marks, come before all letters and digits.
    query["start-after"] = bucket.folder + (request.after or "/")
    answer = bucket.expect(bucket.list(query), 200)
    try:
        names, is_cut = _read_listing(answer.body, bucket.folder)
    except (ElementTree.ParseError, ValueError) as error:
        raise Failure("LISTING_UNREADABLE", "The object store gave no listing that can be read.") from error
    response = objects_pb2.ListObjectsResponse()
    for name, size_bytes in names[: int(query["max-keys"])]:
        response.objects.add(name=name[:_MOST_NAME], size_bytes=size_bytes)
    last = names[-1][0] if names else ""
    if is_cut and len(last) <= 200 and _OURS.fullmatch(last):
        response.next = last
    return response


def _read_listing(body: bytes, folder: str) -> tuple[list[tuple[str, int]], bool]:
    """Read the XML of ListObjectsV2: names below the tenant's folder with sizes, and if there are more.

    Raises:
        ValueError: It is none.
        ElementTree.ParseError: It is no XML.
    """
    text = body.decode()  # in UTF-16 a declaration would not be seen
    if "<!" in text:  # no listing declares anything; an entity could become gigabytes
        raise ValueError("a declaration in a listing")
    root = ElementTree.fromstring(text)  # noqa: S314 - no declarations, and of 2 MiB at most
    names, is_cut = [], False
    for part in root:
        tag = _SPACE.sub("", part.tag)
        if tag == "IsTruncated":
            is_cut = part.text == "true"
        elif tag == "Contents":
            fields = {_SPACE.sub("", field.tag): field.text or "" for field in part}
            names.append(_read_entry(fields, folder))
    return [entry for entry in names if entry is not None], is_cut


def _read_entry(fields: dict[str, str], folder: str) -> tuple[str, int] | None:
    name = unquote_plus(fields.get("Key", ""), errors="strict")  # S3 writes a space as "+"
    if not name.startswith(folder):
        raise ValueError("a name of somebody else's")
    size_bytes = int(fields.get("Size", "0"))
    if not 0 <= size_bytes <= _MOST_SIZE:
        raise ValueError("no size")
    own = name.removeprefix(folder)
    return (own, size_bytes) if own and not own.startswith(".") else None


def get_object(request: objects_pb2.GetObjectRequest, context: Context) -> objects_pb2.GetObjectResponse:
    """Give an object back.

    Raises:
        Failure: OBJECT_UNKNOWN, OBJECT_TOO_LARGE, or what `Bucket` raises.
    """
    bucket = Bucket(context)
    answer = bucket.ask("GET", request.name)
    if answer.status == 404:
        raise Failure("OBJECT_UNKNOWN", "There is no such object.")
    if answer.is_cut or answer.headers.get("toolcrib-egress") == "SIZE":  # the manifest's limits.response_kib
        raise Failure("OBJECT_TOO_LARGE", "The object is larger than 2 MiB.")
    bucket.expect(answer, 200)
    response = objects_pb2.GetObjectResponse(
        name=request.name, size_bytes=len(answer.body), sha256=hashlib.sha256(answer.body).hexdigest()
    )
    text = _read_text(answer.body, answer.headers.get("content-type") or "")
    if text is not None:
        response.text = text
        return response
    response.artefact = _NOT_IN_NAMES.sub("_", request.name.rpartition("/")[2])[:100]
    Path(context.artefact_folder, response.artefact).write_bytes(answer.body)
    context.give_artefact(response.artefact)
    return response


def _read_text(body: bytes, media_type: str) -> str | None:
    if len(body) > _MOST_TEXT_BYTES or not media_type.lower().startswith("text/"):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
