"""Signatures are those that AWS publishes, and those that botocore makes, over thousands of requests."""

from __future__ import annotations

from datetime import UTC, datetime

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from credentials.injection import Form, Injection, NotInjectable
from sandboxes.proxy import sigv4
from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.injecting import Injector, OutgoingHead

EMPTY = sigv4.hash_body(b"")
# AWS, S3 API reference, "Signature calculations for the Authorization header: examples".
S3_KEYS = sigv4.Keys(
    "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "", "us-east-1", "s3"
)
S3_DATE = "20130524T000000Z"
S3_HOST = ("Host", "examplebucket.s3.amazonaws.com")
S3_EXAMPLES = {
    "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41": (
        "GET", "/test.txt", "", b"", [("Range", "bytes=0-9")]
    ),
    "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd": (
        "PUT", "/test$file.text", "", b"Welcome to Amazon S3.",
        [("Date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
    ),
    "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543": ("GET", "/", "lifecycle", b"", []),
    "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7": (
        "GET", "/", "max-keys=2&prefix=J", b"", []
    ),
}  # fmt: skip
# AWS, "Signature Version 4 test suite" (aws4_testsuite), and the example of the IAM guide, the last one.
SUITE_SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SUITE_DATE = "20150830T123600Z"
SUITE_EXAMPLES = {
    "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31": ("GET", "", "service", []),
    "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500": (
        "GET", "Param2=value2&Param1=value1", "service", []
    ),
    "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b": ("POST", "", "service", []),
    "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7": (
        "GET", "Action=ListUsers&Version=2010-05-08", "iam",
        [("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")],
    ),
}  # fmt: skip

SEGMENTS = st.text("abzAZ019-._~ +:$&()@é/%", max_size=8)
QUERIES = st.lists(st.tuples(SEGMENTS, st.none() | SEGMENTS), max_size=4)
NAMES = st.sampled_from(["x-amz-acl", "x-amz-meta-a", "X-Amz-Meta-Ab", "content-type", "content-md5"])
VALUES = st.text("abc ,;=/0129\t", max_size=12)
HEADERS = st.dictionaries(NAMES, VALUES.map(str.strip).filter(bool), max_size=3)
TEXTS = st.text("abcXYZ019/+", min_size=1, max_size=40)


@pytest.mark.parametrize("signature", S3_EXAMPLES)
def test_signs_the_published_examples_of_s3(signature: str):
    method, path, query, body, headers = S3_EXAMPLES[signature]
    body_hash = sigv4.hash_body(body)
    signed = [S3_HOST, ("x-amz-date", S3_DATE), ("x-amz-content-sha256", body_hash), *headers]
    request = sigv4.Signable(method, sigv4.tidy_path(path), sigv4.tidy_query(query), signed, body_hash)
    assert sigv4.sign(request, S3_KEYS, S3_DATE).endswith(f", Signature={signature}")


@pytest.mark.parametrize("signature", SUITE_EXAMPLES)
def test_signs_the_published_examples_of_other_services(signature: str):
    method, query, service, headers = SUITE_EXAMPLES[signature]
    host = "iam.amazonaws.com" if service == "iam" else "example.amazonaws.com"
    signed = [("Host", host), ("X-Amz-Date", SUITE_DATE), *headers]
    request = sigv4.Signable(method, "/", query, signed, EMPTY)
    keys = sigv4.Keys("AKIDEXAMPLE", SUITE_SECRET, "", "us-east-1", service)
    assert sigv4.sign(request, keys, SUITE_DATE).endswith(f", Signature={signature}")


def quote_all(text: str) -> str:
    """Write every byte of a text as %XX: what a tool may do."""
    return "".join(f"%{byte:02X}" for byte in text.encode())


def write_query(pairs: list[tuple[str, str | None]]) -> str:
    return "&".join(
        quote_all(name) + ("" if value is None else f"={quote_all(value)}") for name, value in pairs
    )


def make_injector(service: str, token: str, secret: str, date: str, scheme: str = "http") -> Injector:
    fields = {
        "access_key_id": "AKIDEXAMPLE",
        "secret_access_key": secret,
        "session_token": token,
        "region": "eu-central-1",
        "service": service,
    }
    target = HttpTarget("store", "store.example", 80, (f"{scheme}://store.example",))
    moment = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return Injector(Injection("store", Form.SIGV4, fields), target, lambda: moment)


def sign_with_botocore(
    service: str, head: OutgoingHead, body: bytes, token: str, secret: str, scheme: str = "http"
) -> AWSRequest:
    """Let botocore sign what an injector sent, without what that added."""
    theirs = AWSRequest(head.method, f"{scheme}://store.example{head.target}", dict(head.headers), body)
    for name in ("authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"):
        del theirs.headers[name]
    auth = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    auth(Credentials("AKIDEXAMPLE", secret, token or None), service, "eu-central-1").add_auth(theirs)
    return theirs


@pytest.mark.parametrize("service", ["s3", "execute-api"])
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE"]),
    segments=st.lists(SEGMENTS, max_size=4),
    pairs=QUERIES,
    headers=HEADERS,
    body=st.binary(max_size=20),
    token=st.just("") | TEXTS,
    secret=TEXTS,
)
def test_signs_as_botocore_does(service, method, segments, pairs, headers, body, token, secret):
    path = "/" + "/".join(quote_all(part) for part in segments)
    query = write_query(pairs) or None
    sent = (("host", "store.example"), *headers.items())
    date = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    ours = make_injector(service, token, secret, date).apply(OutgoingHead(method, path, query, sent), body)
    theirs = sign_with_botocore(service, ours, body, token, secret)
    again = make_injector(service, token, secret, theirs.headers["X-Amz-Date"])
    ours = again.apply(OutgoingHead(method, path, query, sent), body)
    assert dict(ours.headers)["authorization"] == theirs.headers["Authorization"]
    assert dict(ours.headers).get("x-amz-content-sha256") == theirs.headers.get("X-Amz-Content-SHA256")


def apply_without_body(scheme: str, service: str = "s3") -> OutgoingHead:
    head = OutgoingHead("PUT", "/b/k", None, (("host", "store.example"),))
    return make_injector(service, "", "secret", S3_DATE, scheme).apply(head, None)


def test_leaves_a_large_body_to_tls_and_to_nothing_else():
    headers = dict(apply_without_body("https").headers)
    assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    with pytest.raises(NotInjectable, match="only for S3 over https"):
        apply_without_body("http")
    with pytest.raises(NotInjectable, match="only for S3 over https"):
        apply_without_body("https", "execute-api")


CHUNKED = (("host", "store.example"), ("content-encoding", "aws-chunked"))


def test_signs_unsigned_chunks_over_tls_only():
    head = OutgoingHead("PUT", "/b/k", None, (*CHUNKED, ("X-Amz-Content-Sha256", sigv4.UNSIGNED_CHUNKS)))
    ready = make_injector("s3", "", "secret", S3_DATE, "https").apply(head, b"5\r\n")
    assert dict(ready.headers)["x-amz-content-sha256"] == sigv4.UNSIGNED_CHUNKS
    with pytest.raises(NotInjectable, match="aws-chunked"):
        make_injector("s3", "", "secret", S3_DATE, "http").apply(head, b"5\r\n")


def test_refuses_chunks_that_would_be_kept_as_content():
    head = OutgoingHead("PUT", "/b/k", None, CHUNKED)
    with pytest.raises(NotInjectable, match="request_checksum_calculation"):
        make_injector("s3", "", "secret", S3_DATE, "https").apply(head, b"5\r\n")


@pytest.mark.parametrize(
    ("sent", "tidied"), [("/a b", "/a%20b"), ("/%61/%2f%E9", "/a/%2F%E9"), ("/x//", "/x//")]
)
def test_writes_a_path_in_one_form(sent: str, tidied: str):
    assert sigv4.tidy_path(sent) == tidied


def test_writes_a_query_in_one_form_and_in_its_order():
    assert sigv4.tidy_query("&b=1+2&a=%2b%e9&uploads&&c==") == "b=1%202&a=%2B%E9&uploads&c=%3D"
