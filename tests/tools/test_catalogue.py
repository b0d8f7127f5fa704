"""Versions: what loading gives, what the digest names, what breaks callers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.tools.protos import (
    HEAD,
    IMAGE_ID,
    SERVICE,
    compile_messages,
    compile_text,
    load_messages,
    write_manifest,
)
from tools.catalogue import ToolVersion, digest_version, find_breaking_changes, load_version
from tools.contract import Amount, Destination, Effect, Reach
from tools.errors import BundleInvalid, MessageInvalid
from tools.source import compile_bundle

SHOP = Path(__file__).parents[2] / "tools" / "bundles" / "shop"
REFUND = "shop.v1.Orders/IssueRefund"


@pytest.fixture(scope="module")
def shop() -> ToolVersion:
    source = compile_bundle(SHOP)
    return load_version(source.descriptor_set, source.manifest_yaml, IMAGE_ID)


def test_loads_the_shop(shop: ToolVersion) -> None:
    contract = shop.contracts[REFUND]

    assert (shop.bundle, shop.version, len(shop.contracts)) == ("shop", "1.0.0", 4)
    assert (contract.effect, contract.reach, contract.scope) == (
        Effect.WRITE,
        Reach.INTERNAL,
        "orders.refund",
    )
    assert contract.probe == "shop.v1.Orders/LookupRefund"
    assert contract.description == "Refunds a payment. Money moves."
    assert shop.contracts["shop.v1.Orders/LookupOrder"].untrusted


def test_reads_a_refund(shop: ToolVersion) -> None:
    contract = shop.contracts[REFUND]
    text = '{"orderId":"A-1042","amount":{"minorUnits":"500","currency":"EUR"},"payoutAccount":"iban:DE8937"}'

    message = contract.parse_request_json(text)

    assert contract.amounts(message) == (Amount("amount", 500, "EUR"),)
    assert contract.destinations(message) == (Destination("payout_account", "iban:DE8937"),)
    assert contract.canonical(message) == b"\x0a\x06A-1042\x12\x08\x08\xf4\x03\x12\x03EUR\x1a\x0biban:DE8937"


def test_tells_every_violation_of_a_refund_by_field(shop: ToolVersion) -> None:
    with pytest.raises(MessageInvalid) as caught:
        shop.contracts[REFUND].parse_request(
            b"\x0a\x01x\x12\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x1a\x01?"
        )

    assert [violation.field for violation in caught.value.violations] == [
        "order_id", "amount.minor_units", "amount.currency", "payout_account",
    ]  # fmt: skip


def test_digests_its_three_parts_behind_their_lengths() -> None:
    parts = (b"\x02" + b"d", b"m", b"i")
    expected = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()

    assert digest_version(b"\x02d", "m", "i") == expected
    assert digest_version(b"\x02", "dm", "i") != expected


def test_gives_the_same_content_the_same_digest(shop: ToolVersion) -> None:
    source = compile_bundle(SHOP)

    assert digest_version(source.descriptor_set, source.manifest_yaml, IMAGE_ID) == shop.digest


def test_keeps_two_versions_with_the_same_names_apart() -> None:
    one = load_messages("message Request { string text = 1; }")
    two = load_messages("message Request { int32 number = 1; }")

    schemas = [version.contracts["test.v1.Things/Do"].request_json_schema for version in (one, two)]

    assert "text" in schemas[0]
    assert "number" in schemas[1]


def test_tells_violations_of_every_part_at_once() -> None:
    with pytest.raises(BundleInvalid) as caught:
        load_version(b"\xff", "bundle: X", "python:3.11")

    fields = {violation.field for violation in caught.value.violations}
    assert {"tool.yaml: bundle", "descriptor set", "image_id"} <= fields


@pytest.mark.parametrize(
    ("methods", "problem"),
    [
        (("test.v1.Things/Other",), "tool.yaml: tools.test.v1.Things/Do: is missing"),
        (("test.v1.Things/Do", "test.v1.Things/Other"), "tools.test.v1.Things/Other: is no method"),
    ],
)
def test_wants_exactly_the_methods_of_the_services(methods: tuple[str, ...], problem: str) -> None:
    with pytest.raises(BundleInvalid, match=problem):
        load_version(compile_messages(""), write_manifest(*methods), IMAGE_ID)


@pytest.mark.parametrize("image_id", ["", "latest", "sha256:abc", "sha256:" + "A" * 64, IMAGE_ID + "\n"])
def test_wants_an_image_by_its_id(image_id: str) -> None:
    with pytest.raises(BundleInvalid, match="image_id"):
        load_version(compile_messages(""), write_manifest(), image_id)


BREAKING = {
    "FIELD_SAME_TYPE": "message Request { int32 text = 1; }",
    "FIELD_NO_DELETE": "message Request { }",
    "FIELD_SAME_NAME": "message Request { string words = 1; }",
    "FIELD_SAME_CARDINALITY": "message Request { repeated string text = 1; }",
}


@pytest.mark.parametrize(("rule", "messages"), BREAKING.items())
def test_finds_what_breaks_callers(rule: str, messages: str) -> None:
    found = find_breaking_changes(compile_messages(""), compile_messages(messages))

    assert any(rule in violation.description for violation in found)
    assert all(violation.field.startswith("test/v1/things.proto") for violation in found)


def test_finds_a_method_that_is_gone() -> None:
    other = SERVICE.replace("rpc Do(", "rpc Other(")

    found = find_breaking_changes(compile_messages(""), compile_messages("", other))

    assert ["RPC_NO_DELETE" in violation.description for violation in found] == [True]


@pytest.mark.parametrize(
    "messages",
    [
        "message Request { string text = 1; int32 more = 2; }",
        "message Request { string text = 1 [(buf.validate.field).string.max_len = 5]; }",
        "// Another comment.\nmessage Request { string text = 1; } message More { }",
    ],
)
def test_lets_compatible_changes_pass(messages: str) -> None:
    assert find_breaking_changes(compile_messages(""), compile_messages(messages)) == ()


def test_compares_only_packages_that_both_have() -> None:
    head = HEAD.replace("test.v1", "test.v2")
    new = compile_text(
        head + SERVICE + "message Request { } message Response { }", names=("test/v2/things.proto",)
    )

    assert find_breaking_changes(compile_messages(""), new) == ()


def test_sees_a_break_beside_a_new_package() -> None:
    one = HEAD + SERVICE + "message Request { int32 text = 1; } message Response { string text = 1; }"
    two = one.replace("test.v1", "test.v2")
    new = compile_text(one, two, names=("test/v1/things.proto", "test/v2/things.proto"))

    assert len(find_breaking_changes(compile_messages(""), new)) == 1
