"""Clients that people have work unchanged through the proxy; the secret that is added is nowhere inside."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from broker.dev import DevOptions
from sandboxes.engine import Engine
from tests.e2e.client_image import add_programs, are_there
from tests.e2e.container_search import find_in_container
from tests.e2e.stack import ROOT, Crib, CribThread
from tests.e2e.waiting import wait_for_container
from tests.parts import without
from tests.parts.crib import CACHE_DIR
from toolcrib.v1 import registry_pb2, registry_pb2_grpc
from tools.source import compile_bundle

pytestmark = [pytest.mark.engine, pytest.mark.openbao, pytest.mark.postgres]

BUNDLE = ROOT / "tests" / "bundles" / "clients"
FETCH = "clients.v1.Clients/Fetch"
GRANTS = """
@id("clients") @targets("open, closed")
permit (principal == Agent::"refund-desk", action == Action::"clients.v1.Clients/Fetch",
        resource == Environment::"dev");
"""
CLIENTS = ["httpx", "requests", "urllib", "curl", "node", "go"]
ORIGINS = ["http://open.example", "https://closed.example"]
HOLD_SECONDS = 12


@pytest.fixture(scope="module")
def crib(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Crib]:
    for part in ("openbao", "postgres", "clients"):
        if without(part):
            pytest.skip(f"needs {part}")
    assert are_there(), "run: make clients"
    folder = tmp_path_factory.mktemp("clients")
    options = DevOptions(bundles=(BUNDLE,), tenants=("shop",), engine_url=engine.base_url)
    made = []
    try:
        with CribThread(folder / "state", CACHE_DIR, options) as running:
            made.append(add_programs(engine, find_image(running), folder))
            register(running, made[0])
            running.grant(GRANTS)
            yield running
    finally:
        for image_id in made:
            engine.client.remove_image(image_id, force=True)


def find_image(crib: Crib) -> str:
    with crib.profile("ada", "author").connect() as channel:
        request = registry_pb2.GetVersionRequest(bundle="clients", version="stable")
        return registry_pb2_grpc.RegistryStub(channel).GetVersion(request).version.image_id


def register(crib: Crib, image_id: str) -> None:
    """Register the bundle once more, with an image that has more programs."""
    source = compile_bundle(BUNDLE)
    manifest = source.manifest_yaml.replace("version: 1.0.0", "version: 1.1.0")
    with crib.profile("ada", "author").connect() as channel:
        request = registry_pb2.RegisterToolRequest(
            descriptor_set=source.descriptor_set, manifest_yaml=manifest, image_id=image_id
        )
        version = registry_pb2_grpc.RegistryStub(channel).RegisterTool(request).version
    with crib.profile("rob", "reviewer").connect() as channel:
        review = registry_pb2.ReviewVersionRequest(
            bundle=version.bundle, version=version.version, digest=version.digest, accept=True
        )
        registry_pb2_grpc.RegistryStub(channel).ReviewVersion(review)


def read_secret(crib: Crib) -> str:
    settings = Path(crib.stack.state_dir / "targets" / "open" / "settings.json").read_text()
    return str(json.loads(settings)["secrets"]["clients-key"]["token"])


def fetch(crib: Crib, client: str, url: str) -> tuple[int, str]:
    with crib.caller() as agent:
        reply = agent.call(FETCH, {"client": client, "url": url}, timeout=60, version="1.1.0")
    assert reply.code == "OK", reply
    return reply.result["status"], reply.result["body"]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("origin", ORIGINS)
def test_works_unchanged(crib: Crib, client: str, origin: str):
    status, body = fetch(crib, client, f"{origin}/echo?n=7")
    assert status == 200, body
    said = json.loads(body)
    assert (said["path"], said["headers"]["authorization"]) == ("/echo?n=7", "Bearer [redacted]")
    assert read_secret(crib) not in body


@pytest.mark.parametrize("client", ["urllib", "curl"])
@pytest.mark.parametrize("origin", ORIGINS)
def test_is_refused_what_no_rule_allows(crib: Crib, client: str, origin: str):
    status, body = fetch(crib, client, f"{origin}/other")
    assert (status, body.split()[0]) == (403, "toolcrib:")


@pytest.mark.parametrize(("client", "origin"), [("httpx", ORIGINS[0]), ("node", ORIGINS[1])])
def test_has_the_secret_nowhere(crib: Crib, client: str, origin: str):
    secret = read_secret(crib)
    marker = b"31415926535"  # stands in the answer: the search finds what is there
    arguments = {"client": client, "url": f"{origin}/echo?n={marker.decode()}", "hold_seconds": HOLD_SECONDS}
    with crib.caller() as agent:
        call = agent.start(FETCH, arguments, timeout=60, version="1.1.0")
        wait_for_container(crib)
        container = wait_for_answer(crib, marker)
        found = find_in_container(container, {"marker": marker, **spellings(secret)})
        assert agent.finish(FETCH, call).code == "OK"
    assert {name for name, places in found.items() if places} == {"marker"}


def wait_for_answer(crib: Crib, marker: bytes) -> str:
    """Wait until the echo's answer is in the container; returns its id."""
    (running,) = crib.stack.broker.path.running
    (sandbox,) = running.sandboxes_now()
    answer = b'"path": "/echo?n=' + marker
    until = time.monotonic() + 30
    while not find_in_container(sandbox.container_id, {"answer": answer})["answer"]:
        assert time.monotonic() < until, "the answer does not come"
    return sandbox.container_id


def spellings(secret: str) -> dict[str, bytes]:
    plain = secret.encode()
    texts = {"plain": plain, "hex": plain.hex().encode(), "percent": quote(secret, safe="").encode()}
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + plain)
        texts[f"base64 {shift}"] = encoded[4 * (shift > 0) : -4]
    return texts
