"""AWS Signature Version 4, in the header Authorization: what AWS and what speaks like S3 asks for.

Source: AWS, "Signature Version 4 signing process", and "Signature calculations for the Authorization header"
of the S3 reference. Rules:
1. What is signed is what is sent. Path (toward S3) and query are written in their one canonical form before
   (`tidy_path`, `tidy_query`), so that no server can read other names out of them than the signature covers.
2. Every header that is given is signed; the caller chooses.
3. Toward S3 the path is taken as it is; elsewhere dots go, and it is encoded once more than it was.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote, unquote_to_bytes

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
"""Stands for the body's hash where TLS alone keeps the body whole; S3 only."""
UNSIGNED_CHUNKS = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
"""The same for a body of the coding aws-chunked, whose chunks are not signed."""

_DATE = "%Y%m%dT%H%M%SZ"
_UNRESERVED = "-_.~"
_SPACES = re.compile(r"\s+")

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Keys:
    """An access key and where it is used. The token is empty for keys that do not end."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    region: str
    service: str


@dataclass(frozen=True, slots=True)
class Signable:
    """What is signed of a request.

    Attributes:
        path: As it is sent.
        query: As it is sent, without "?"; empty: none.
        headers: Those to sign, Host and X-Amz-Date among them.
        payload_hash: SHA-256 of the body in hex, or what stands for it.
    """

    method: str
    path: str
    query: str
    headers: Headers
    payload_hash: str


def write_date(moment: datetime) -> str:
    """Write a moment, which has to be in UTC, as the header X-Amz-Date has it."""
    return moment.strftime(_DATE)


def hash_body(body: bytes) -> str:
    """Give what stands for a body in the signature."""
    return hashlib.sha256(body).hexdigest()


def sign(request: Signable, keys: Keys, amz_date: str) -> str:
    """Sign a request.

    Args:
        request: What is signed.
        keys: With what.
        amz_date: What the header X-Amz-Date says; has to be among the headers as well.

    Returns:
        The value of the header Authorization.
    """
    scope = f"{amz_date[:8]}/{keys.region}/{keys.service}/aws4_request"
    canonical = write_canonical(request, is_s3=keys.service == "s3")
    text = "\n".join([ALGORITHM, amz_date, scope, hash_body(canonical.encode())])
    signature = hmac.new(_derive_key(keys, amz_date[:8]), text.encode(), hashlib.sha256).hexdigest()
    names = ";".join(name for name, _ in _collect(request.headers))
    return (
        f"{ALGORITHM} Credential={keys.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )


def write_canonical(request: Signable, *, is_s3: bool) -> str:
    """Write a request in the one form that both sides hash."""
    headers = _collect(request.headers)
    return "\n".join(
        [
            request.method,
            request.path or "/" if is_s3 else _encode_path(request.path),
            _order_query(request.query),
            *(f"{name}:{value}" for name, value in headers),
            "",
            ";".join(name for name, _ in headers),
            request.payload_hash,
        ]
    )


def tidy_path(path: str) -> str:
    """Write a path as S3 itself does before it compares signatures: each segment decoded and encoded anew."""
    return "/".join(quote(unquote_to_bytes(part), safe=_UNRESERVED) for part in path.split("/"))


def tidy_query(query: str) -> str:
    """Write a query's names and values encoded anew, in their order; "+" is a space, as forms have it."""
    parts = [part.split("=", 1) for part in query.split("&") if part]
    return "&".join("=".join(map(_tidy_text, part)) for part in parts)


def _tidy_text(text: str) -> str:
    return quote(unquote_to_bytes(text.replace("+", " ")), safe=_UNRESERVED)


def _order_query(query: str) -> str:
    pairs = (part.partition("=") for part in query.split("&") if part)
    return "&".join(f"{name}={value}" for name, value in sorted((name, value) for name, _, value in pairs))


def _encode_path(path: str) -> str:
    """Take dots and doubled slashes out of a path, and encode what is left."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    ends = "/" if kept and path.endswith("/") else ""
    return quote("/" + "/".join(kept) + ends, safe="/" + _UNRESERVED)


def _collect(headers: Headers) -> list[tuple[str, str]]:
    """Order headers by name, with the values of equal names joined and runs of spaces made one."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(_SPACES.sub(" ", value).strip())
    return [(name, ",".join(values)) for name, values in sorted(found.items())]


def _derive_key(keys: Keys, day: str) -> bytes:
    key = f"AWS4{keys.secret_access_key}".encode()
    for part in (day, keys.region, keys.service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
