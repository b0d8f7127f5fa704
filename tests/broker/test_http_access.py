"""What a call may ask of its HTTP targets: of manifest, grant and what was minted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from broker.model import Grant
from broker.stages.http_access import make_accesses
from broker.stages.reserve import NothingRan
from broker.stages.start_frame import credential_frames
from credentials.injection import Form
from credentials.lease import KeyValues, Lease
from credentials.secret import Secret
from tools.http_rules import HttpRule, parse_rule
from tools.manifest import read_manifest

METHOD = "desk.v1.Desk/Find"
MANIFEST = """
bundle: desk
version: 1.0.0
description: Finds tickets.
image: {command: [python3]}
credentials:
  key: {engine: kv, role: desk, target: api, inject: {form: bearer}}
  own: {engine: kv, role: own}
targets:
  api:
    kind: http
    allow: ["GET /tickets/{id}"]
    limits: {request_kib: 1, response_kib: 2, seconds: 3, requests: 4}
  blind: {kind: http, opaque: true}
  db: {kind: postgresql}
tools:
  desk.v1.Desk/Find: {credentials: [key, own], targets: [api, blind, db], deadline_seconds: 5}
"""
RULE = parse_rule("GET /tickets/{id:int}")


def call() -> Any:
    version = SimpleNamespace(manifest=read_manifest(MANIFEST))
    return SimpleNamespace(version=version, contract=SimpleNamespace(method=METHOD))


def lease(name: str, **values: str) -> Lease:
    now = datetime.now(UTC)
    payload = KeyValues({key: Secret(value) for key, value in values.items()}, version=1)
    return Lease(name, f"none:{name}", "a", "kv", name, payload, now, now + timedelta(minutes=1))


LEASES = (lease("key", token="s3cret"), lease("own", token="mine"))


def test_takes_rules_and_limits_of_the_manifest_for_http_targets_alone() -> None:
    api, blind = make_accesses(call(), Grant("g"), LEASES)
    assert (api.target, [rule.text for rule in api.allow], api.narrowed) == (
        "api",
        ["GET /tickets/{id}"],
        None,
    )
    assert (api.caps.request_bytes, api.caps.response_bytes, api.caps.seconds, api.caps.requests) == (
        1024,
        2048,
        3.0,
        4,
    )
    assert (blind.target, blind.opaque, blind.allow, blind.injection) == ("blind", True, (), None)


@pytest.mark.parametrize(
    ("egress", "narrowed"),
    [(None, None), ((("api", RULE),), (RULE,)), ((("blind", RULE),), ()), ((), ())],
)
def test_narrows_by_what_the_grant_names(
    egress: tuple[tuple[str, HttpRule], ...] | None, narrowed: tuple[HttpRule, ...] | None
) -> None:
    assert make_accesses(call(), Grant("g", egress=egress), LEASES)[0].narrowed == narrowed


def test_adds_a_credential_toward_its_own_target_and_hands_only_the_other_over() -> None:
    injection = make_accesses(call(), Grant("g"), LEASES)[0].injection
    assert injection is not None
    assert (injection.form, dict(injection.fields)) == (Form.BEARER, {"token": "s3cret"})
    frames = credential_frames(call().version.manifest, LEASES)
    assert frames["key"].injected.form == "bearer"
    assert b"s3cret" not in frames["key"].SerializeToString()
    assert frames["own"].key_values.values["token"] == "mine"


def test_runs_nothing_where_a_credential_cannot_be_added() -> None:
    with pytest.raises(NothingRan, match="cannot be used as the tool's manifest wants it") as caught:
        make_accesses(call(), Grant("g"), (lease("key", other="s3cret"),))
    assert caught.value.reason_name == "CREDENTIALS_UNAVAILABLE"
    assert "s3cret" not in str(caught.value)
