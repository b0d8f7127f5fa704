"""An object store for `toolcrib dev`: moto's S3, which checks each request's AWS signature.

    python3 -P server.py FOLDER

It serves https with FOLDER/server.pem on a free port of 127.0.0.1, whose number it writes to FOLDER/port, and
keeps everything in memory. Two users: the reader may list and get, the writer may put as well; a request that
nobody signed is refused.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

# Read when moto is loaded: nothing is asked from an instance's metadata, nothing comes from a profile.
os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null"}  # noqa: TID251

from moto import settings
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

BUCKET = "tenant-objects"
REGION = "us-east-1"
_SEED = {
    "welcome.txt": ("text/plain", b"Welcome to this bucket.\n"),
    "reports/march.csv": ("text/csv", b"item,sold\nkettle,12\nlamp,7\n"),
    "logo.png": ("image/png", bytes.fromhex("89504e470d0a1a0a")),
}
_RIGHTS = {
    "s3-read": ["s3:ListBucket", "s3:ListObjectsV2", "s3:GetObject", "s3:HeadObject"],
    "s3-write": ["s3:ListBucket", "s3:ListObjectsV2", "s3:GetObject", "s3:HeadObject", "s3:PutObject"],
}
_DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
)
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Quiet(WSGIRequestHandler):
    """Logs nothing, and speaks HTTP/1.1."""

    protocol_version = "HTTP/1.1"

    def log(self, *_: object, **__: object) -> None:
        """Say nothing."""


def admit_signed(application: Application) -> Application:
    """Refuse what nobody signed for S3: moto would let some of it in, or answer with an error of its own."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        said = environ.get("HTTP_AUTHORIZATION", "")
        if said.startswith("AWS4-HMAC-SHA256 ") and "/s3/aws4_request" in said:
            return application(environ, start_response)
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(_DENIED)))]
        start_response("403 Forbidden", headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else _DENIED]

    return answer


def seed(tenants: Iterable[str], secrets: Mapping[str, Mapping[str, str]]) -> None:
    """Make the bucket with a few objects of each tenant, and the users with their access keys."""
    store = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    store.create_bucket(BUCKET, REGION)
    for tenant in tenants:
        for name, (media_type, content) in _SEED.items():
            made = store.put_object(BUCKET, f"{tenant}/{name}", content)
            made.set_metadata({"Content-Type": media_type})
    people = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for name, actions in _RIGHTS.items():
        statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        people.create_user(REGION, name)
        people.put_user_policy(name, "own", policy)
        key = people.create_access_key(name)
        key.access_key_id = secrets[name]["access_key_id"]
        key.secret_access_key = secrets[name]["secret_access_key"]
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0.0  # from now on each request is checked


def serve_objects(listening: int | None = None, tls: ssl.SSLContext | None = None) -> BaseWSGIServer:
    """Make the server.

    Args:
        listening: Descriptor of a socket that listens; None: a free port of 127.0.0.1.
        tls: None: plain HTTP.
    """
    application = admit_signed(DomainDispatcherApplication(create_backend_app))
    return make_server(
        "127.0.0.1", 0, application, True, request_handler=_Quiet, ssl_context=tls, fd=listening
    )


def main() -> None:
    """Serve until somebody ends this process."""
    folder = Path(sys.argv[1])
    known = json.loads((folder / "settings.json").read_text())
    seed(known["tenants"], known["secrets"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem")
    server = serve_objects(tls=tls)
    (folder / "port.new").write_text(str(server.server_address[1]))
    (folder / "port.new").rename(folder / "port")
    server.serve_forever()


if __name__ == "__main__":
    main()
