"""Each form of injection, from a door of the real proxy process to a real server that takes what is added."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.dev_targets import DevTarget, DevTargets
from credentials.injection import Form, Injection
from sandboxes.egress.records import ConnectionRecord
from sandboxes.proxy.access import HttpAccess, HttpTarget
from tests.parts import without
from tests.parts.file_stores import PASSWORD, READER, FileStore
from tests.parts.nginx import NginxTarget, empty_crl, make_authority
from tests.parts.web_origin import WebOrigin
from tests.parts.web_origin import serving as serving_origin
from tests.sandboxes.proxy.doors import Serve, opening, permit, proxying, read_request, running, serving
from tests.tools.bundles.door import BUNDLES
from tools.http_rules import parse_rule

SECRET = "s3cret-4e1c/+9=Z"
BEARER = Injection("crm", Form.BEARER, {"token": SECRET})
BASIC = Injection("crm", Form.BASIC, {"username": "reader", "password": SECRET})
HEADER = Injection("crm", Form.HEADER, {"name": "X-Api-Key", "prefix": "Token ", "value": SECRET})
QUERY = Injection("crm", Form.QUERY, {"name": "api_key", "value": SECRET})
RULES = ("GET /{path:rest}?*", "PUT /{path:rest}")


class Answer(NamedTuple):
    """What came back, and what the record says of it."""

    status: int
    head: str
    body: bytes
    record: ConnectionRecord

    @property
    def echo(self) -> dict[str, Any]:
        """The request as the server says it got it."""
        return dict(json.loads(self.body))


async def ask(
    target: HttpTarget,
    injection: Injection | None,
    path: str = "/a",
    headers: str = "",
    method: str = "GET",
    body: bytes = b"",
) -> Answer:
    """Send one request through the door of a target, in a call and a process of its own."""
    access = permit(*RULES, target=target.name, injection=injection)
    return await send(target, access, f"{method} {path}", headers, body)


async def send(target: HttpTarget, access: HttpAccess, line: str, headers: str, body: bytes = b"") -> Answer:
    host = target.origins[0].partition("://")[2]
    length = f"content-length: {len(body)}\r\n" if body else ""
    raw = f"{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}{length}\r\n".encode() + body
    async with running(target) as child, opening(child, access) as doors:
        said = await doors.say(raw, target.name)
        record = await doors.record()
    head, _, rest = said.partition(b"\r\n\r\n")
    return Answer(int(head.split()[1]), head.decode("latin-1"), _unchunk(head, rest), record)


def _unchunk(head: bytes, rest: bytes) -> bytes:
    if b"chunked" not in head.lower():
        return rest
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


@pytest.fixture(scope="module", params=[False, True], ids=["http", "https"])
def origin(request: pytest.FixtureRequest) -> Iterator[WebOrigin]:
    with serving_origin(tls=request.param) as server:
        yield server


@pytest.mark.parametrize(("form", "name"), [(BEARER, "authorization"), (BASIC, "authorization")])
async def test_adds_a_login_that_the_tool_never_sees(origin: WebOrigin, form: Injection, name: str):
    answer = await ask(origin.target("crm"), form)
    assert answer.echo["headers"][name] in {"Bearer [redacted]", "Basic [redacted]"}
    assert (answer.record.injected, answer.record.stripped) == ("crm", 1)


async def test_adds_a_header_and_a_parameter(origin: WebOrigin):
    header, query = await ask(origin.target("crm"), HEADER), await ask(origin.target("crm"), QUERY, "/a?q=1")
    assert header.echo["headers"]["x-api-key"] == "Token [redacted]"
    assert query.echo["path"] == "/a?q=1&api_key=[redacted]"
    assert origin.asked[-1] == "GET /a?q=1&api_key=s3cret-4e1c%2F%2B9%3DZ"


async def test_gives_back_the_same_where_it_is_no_secret(origin: WebOrigin):
    """The positive control: this server does repeat what it is sent."""
    answer = await ask(origin.target("crm"), None, f"/a?q={SECRET}")
    assert SECRET in answer.echo["path"]
    assert answer.record.stripped == 0


async def test_replaces_the_tools_own_login(origin: WebOrigin):
    mine = "Authorization: Bearer mine\r\nPROXY-AUTHORIZATION: Basic mine\r\nCookie: id=mine\r\n"
    answer = await ask(origin.target("crm"), BEARER, "/a?access_token=mine&q=1", mine)
    assert "mine" not in json.dumps(answer.echo)
    assert answer.echo["path"] == "/a?q=1"
    assert answer.echo["headers"]["authorization"] == "Bearer [redacted]"


async def test_cannot_be_told_to_leave_the_login_out(origin: WebOrigin):
    """A header that Connection names goes no further: the tool must not name ours."""
    answer = await ask(origin.target("crm"), BEARER, headers="Connection: authorization\r\n")
    assert answer.echo["headers"]["authorization"] == "Bearer [redacted]"


def repeating(write: str) -> Serve:
    """Answer with the Authorization header, written somewhere."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while raw := await read_request(reader):
            value = raw.partition(b"authorization: ")[2].partition(b"\r\n")[0]
            await _REPEATS[write](writer, value)

    return serve


async def _in_a_header(writer: asyncio.StreamWriter, value: bytes) -> None:
    writer.write(b"HTTP/1.1 302 Found\r\nlocation: /?" + value + b"\r\ncontent-length: 0\r\n\r\n")


async def _in_a_headers_name(writer: asyncio.StreamWriter, value: bytes) -> None:
    name = value.replace(b"Bearer ", b"x-")
    writer.write(b"HTTP/1.1 200 OK\r\n" + name + b": 1\r\ncontent-length: 2\r\n\r\nok")


async def _in_the_reason(writer: asyncio.StreamWriter, value: bytes) -> None:
    writer.write(b"HTTP/1.1 200 " + value + b"\r\ncontent-length: 2\r\n\r\nok")


async def _packed(writer: asyncio.StreamWriter, value: bytes) -> None:
    body = gzip.compress(b"you sent " + value + b"!")
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


async def _in_pieces(writer: asyncio.StreamWriter, value: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for number in range(len(value)):
        writer.write(b"1\r\n" + value[number : number + 1] + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.001)
    writer.write(b"0\r\n\r\n")


async def _in_a_trailer(writer: asyncio.StreamWriter, value: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-a\r\n\r\n"
    writer.write(head + b"2\r\nok\r\n0\r\nx-a: " + value + b"\r\n\r\n")


_REPEATS = {
    "header": _in_a_header,
    "header's name": _in_a_headers_name,
    "reason": _in_the_reason,
    "packed": _packed,
    "pieces": _in_pieces,
    "trailer": _in_a_trailer,
}
TOKEN = "tok-4e1c99zz"
ASKED = b"GET /a HTTP/1.1\r\nhost: pages.example\r\nconnection: close\r\n"


async def repeat(where: str, access: HttpAccess, asked: bytes) -> bytes:
    """Ask a target that repeats what it gets, and see that it got the token."""
    async with serving(repeating(where)) as target:
        async with proxying(target, access) as doors:
            said = await doors.say(asked + b"\r\n", "pages")
    assert f"Bearer {TOKEN}".encode() in target.bytes_heard
    assert said.startswith((b"HTTP/1.1 200", b"HTTP/1.1 302"))
    head, _, body = said.partition(b"\r\n\r\n")
    return head + _unchunk(head, body)


@pytest.mark.parametrize("where", ["header", "header's name", "packed", "pieces"])
async def test_would_give_it_back_where_it_is_the_tools_own(where: str):
    """The positive control; a reason and a trailer of a target's never pass."""
    rule = parse_rule("GET /a", headers={"authorization": "{text}"})
    asked = ASKED + f"authorization: Bearer {TOKEN}\r\n".encode()
    assert TOKEN.encode() in await repeat(where, HttpAccess("pages", (rule,)), asked)


@pytest.mark.parametrize("where", _REPEATS)
async def test_does_not_give_the_secret_back(where: str):
    injection = Injection("crm", Form.BEARER, {"token": TOKEN})
    assert TOKEN.encode() not in await repeat(where, permit("GET /a", injection=injection), ASKED)


@pytest.mark.nginx
async def test_logs_in_at_nginx():
    if without("nginx"):
        pytest.skip("needs nginx")
    store = FileStore("nginx")
    try:
        (store.files / "shop" / "note").write_text("Measure twice.")
        target = HttpTarget("files", "127.0.0.1", store.port, ("http://files.example",))
        login = Injection("files", Form.BASIC, {"username": READER, "password": PASSWORD})
        wrong = Injection("files", Form.BASIC, {"username": READER, "password": "wrong"})
        answers = [await ask(target, one, "/shop/note") for one in (login, wrong, None)]
    finally:
        store.stop()
    assert [answer.status for answer in answers] == [200, 401, 401]
    assert answers[0].body == b"Measure twice."


@pytest.mark.nginx
async def test_gives_nginx_its_key(nginx: NginxTarget):
    nginx.require_api_key("Token key-81f3")
    target = HttpTarget(
        "quotes", "127.0.0.1", nginx.api_port, (f"https://nginx.test:{nginx.api_port}",), nginx.ca_pem
    )
    key = Injection("quotes", Form.HEADER, {"name": "X-Api-Key", "prefix": "Token ", "value": "key-81f3"})
    assert (await ask(target, key, "/quote")).body == b"Measure twice, cut once."
    # The same from the tool is no use: no rule lists it, so it goes no further.
    assert (await ask(target, None, "/quote", "X-Api-Key: Token key-81f3\r\n")).status == 401


def issue_login() -> tuple[Injection, str, str]:
    """Make a client certificate, the CA that nginx has to trust for it, and the CA's empty list."""
    authority, key = make_authority("clients")
    own, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "reader-7")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(authority.subject)
    builder = builder.public_key(own.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=1)).not_valid_after(now + timedelta(days=1))
    pem = serialization.Encoding.PEM
    fields = {
        "certificate_pem": builder.sign(key, hashes.SHA256()).public_bytes(pem).decode(),
        "private_key_pem": own.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        "chain_pem": "",
    }
    trusted = authority.public_bytes(pem).decode()
    return Injection("mtls", Form.CLIENT_CERTIFICATE, fields), trusted, empty_crl(authority, key)


@pytest.mark.nginx
async def test_shows_nginx_a_certificate(nginx: NginxTarget):
    injection, trusted, revoked = issue_login()
    nginx.trust(trusted, revoked)
    origins = (f"https://nginx.test:{nginx.port}",)
    target = HttpTarget("mtls", "127.0.0.1", nginx.port, origins, nginx.ca_pem)
    answers = [await ask(target, one, "/whoami") for one in (injection, None)]
    assert (answers[0].status, answers[0].body) == (200, b"CN=reader-7")
    assert answers[1].status == 400  # no required certificate was sent


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DevTarget, dict[str, dict[str, str]]]]:
    targets = DevTargets(tmp_path_factory.mktemp("store") / "targets", [BUNDLES / "s3"], ["shop"])
    targets.start()
    try:
        yield targets.targets["s3"], targets.secrets
    finally:
        targets.stop()


def keys(logins: dict[str, dict[str, str]], **changes: str) -> Injection:
    scope = {"session_token": "", "region": "us-east-1", "service": "s3"}
    return Injection("s3", Form.SIGV4, {**logins["s3-write"], **scope, **changes})


def declare(target: DevTarget) -> HttpTarget:
    ca_pem = (target.folder / "ca.pem").read_text()
    return HttpTarget("s3", "127.0.0.1", target.port, tuple(target.origins), ca_pem)


@pytest.mark.parametrize("name", ["a.txt", "a%20b%2Bc.txt", "a(b)~c.txt", "%C3%A9t%C3%A9"])
async def test_signs_what_s3_takes(store, name: str):
    target, logins = store
    path, media = f"/tenant-objects/shop/{name}", "content-type: text/plain\r\n"
    put = await ask(declare(target), keys(logins), path, media, "PUT", b"Measure twice.")
    got = await ask(declare(target), keys(logins), path)
    assert (put.status, got.status, got.body) == (200, 200, b"Measure twice.")


async def test_signs_a_query_that_is_out_of_order(store):
    target, logins = store
    answer = await ask(declare(target), keys(logins), "/tenant-objects?prefix=shop%2fre&list-type=2")
    assert answer.status == 200
    assert b"shop/reports/march.csv" in answer.body and b"welcome" not in answer.body


async def test_passes_chunks_whose_sum_comes_last(store):
    """What boto3 sends over https unless it is told otherwise, where the rule lists its headers."""
    target, logins = store
    listed = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": "{int}",
    }
    rule = parse_rule("PUT /tenant-objects/{path:rest}", headers=listed)
    headers = (
        "content-encoding: aws-chunked\r\nx-amz-decoded-content-length: 14\r\n"
        "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n"
    )
    access = HttpAccess("s3", (rule,), injection=keys(logins))
    body = b"e\r\nMeasure twice.\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    put = await send(declare(target), access, "PUT /tenant-objects/shop/chunks.txt", headers, body)
    got = await ask(declare(target), keys(logins), "/tenant-objects/shop/chunks.txt")
    assert (put.status, got.body) == (200, b"Measure twice.")


async def test_is_refused_by_s3_without_the_right_keys(store):
    target, logins = store
    wrong = keys(logins, secret_access_key="wrong")
    answers = [await ask(declare(target), one, "/tenant-objects/shop/welcome.txt") for one in (wrong, None)]
    assert [answer.status for answer in answers] == [403, 403]
    assert b"SignatureDoesNotMatch" in answers[0].body
