"""The manifest: a closed list of fields, with the remedy for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from broker import settings
from sandboxes.rootfs import EXTRAS
from tools.errors import BundleInvalid
from tools.manifest import Manifest, PackageName, TargetName, read_manifest

SHOP = Path(__file__).parents[2] / "tools" / "bundles" / "shop" / "tool.yaml"

GOOD = {
    "bundle": "things",
    "version": "1.0.0",
    "description": "Things.",
    "image": {"command": ["true"]},
    "limits": {"memory_mib": 64},
    "credentials": {"db_read": {"engine": "database", "role": "db-read", "target": "db"}},
    "targets": {"db": {"kind": "postgresql"}},
    "tools": {"test.v1.Things/Do": {"credentials": ["db_read"], "targets": ["db"], "deadline_seconds": 1}},
}


def refuse(text: str) -> list[tuple[str, str]]:
    with pytest.raises(BundleInvalid) as caught:
        read_manifest(text)
    return [(violation.field, violation.description) for violation in caught.value.violations]


def refuse_change(path: str, value: object) -> list[tuple[str, str]]:
    data = yaml.safe_load(yaml.safe_dump(GOOD))
    *parents, last = path.split(":")
    place = data
    for parent in parents:
        place = place[parent]
    place[last] = value
    return refuse(yaml.safe_dump(data))


def test_reads_the_shop_manifest() -> None:
    manifest = read_manifest(SHOP.read_text())

    runtime = manifest.method("shop.v1.Orders/IssueRefund")
    assert (manifest.bundle, manifest.version) == ("shop", "1.0.0")
    assert (runtime.credentials, runtime.targets) == (("orders_refund",), ("orders-db",))
    assert (runtime.deadline_seconds, runtime.settle_seconds) == (10, 5)


def test_fills_limits_in() -> None:
    manifest = read_manifest(
        yaml.safe_dump({name: value for name, value in GOOD.items() if name != "limits"})
    )

    assert (manifest.limits.memory_mib, manifest.limits.pids) == (128, 32)


def test_tells_every_violation_at_once() -> None:
    found = refuse("bundle: Shop\nversion: 1.0\nimage: {command: []}\ntools: {}\n")

    assert [field for field, _ in found] == [
        "tool.yaml: bundle", "tool.yaml: version", "tool.yaml: description", "tool.yaml: image.command",
        "tool.yaml: tools",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("descripton", "did you mean description?"),
        ("limits:memory", "did you mean memory_mib?"),
        ("limits:zzzz", "known here: memory_mib, pids, cpus, tmp_mib, output_kib, log_kib"),
        ("tools:test.v1.Things/Do:deadline", "did you mean deadline_seconds?"),
        ("credentials:db_read:roles", "did you mean role?"),
        ("targets:db:zzzz", "known here: kind, allow, opaque, limits"),
        ("image:cmd", "did you mean command?"),
    ],
)
def test_names_the_nearest_valid_field(path: str, hint: str) -> None:
    ((field, description),) = refuse_change(path, 1)

    assert field == f"tool.yaml: {path.replace(':', '.')}"
    assert hint in description


@pytest.mark.parametrize(
    "path",
    [
        "mounts", "volumes", "capabilities", "devices", "privileged", "network", "env", "image:env",
        "limits:privileged", "secrets", "user", "targets:db:hosts", "tools:test.v1.Things/Do:effect",
    ],
)  # fmt: skip
def test_refuses_what_a_tool_must_not_have_and_says_what_instead(path: str) -> None:
    ((_, description),) = refuse_change(path, [])

    assert description.startswith("is not possible: ")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("bundle", "Shop"), ("bundle", "a/b"), ("bundle", "x" * 64), ("bundle", "shop\n"), ("version", 1.0),
        ("version", "1.0"), ("version", "01.0.0"), ("version", "v1.0.0"), ("description", ""),
        ("description", "x" * 501), ("image:command", "true"), ("image:command", ["a\x00b"]),
        ("image:command", ["x"] * 33),
        ("limits:memory_mib", 8), ("limits:memory_mib", "64"),
        ("limits:memory_mib", True), ("limits:cpus", 64),
        ("limits:cpus", float("nan")), ("limits:output_kib", 1_000_000), ("limits", None),
        ("credentials:db_read:engine", "aws"), ("credentials:db_read:role", "Admin"),
        ("credentials:db_read:role", "../sys"), ("targets:db:kind", "gopher"),
        ("tools:test.v1.Things/Do:deadline_seconds", 0), ("tools:test.v1.Things/Do:deadline_seconds", 1e9),
        ("tools:test.v1.Things/Do:settle_seconds", -1), ("tools", None),
        ("tools:/test.v1.Things/Do", {"deadline_seconds": 1}),
    ],
)  # fmt: skip
def test_names_the_field_of_an_ill_formed_value(path: str, value: object) -> None:
    found = refuse_change(path, value)

    assert all(field.startswith(f"tool.yaml: {path.replace(':', '.')}") for field, _ in found)


@pytest.mark.parametrize("field", ["credentials:db_read:target", "tools:test.v1.Things/Do:targets"])
def test_says_how_a_target_is_named(field: str) -> None:
    value: object = ["the_db"] if field.endswith("targets") else "the_db"
    ((_, description),) = refuse_change(field, value)

    assert description == "must be of small letters, digits and -, the first a letter"


@pytest.mark.parametrize("name", ["a", "a-1", "a" * 63, "a" * 64, "a_b", "1a", "-a", "A", "a\n", ""])
def test_takes_those_names_of_targets_that_an_operator_can_declare(name: str) -> None:
    def takes(type_: Any) -> bool:
        try:
            TypeAdapter(type_).validate_python(name)
        except ValidationError:
            return False
        return True

    assert takes(TargetName) == takes(settings.Name)


def test_refuses_names_that_nothing_defines() -> None:
    runtime = "tools:test.v1.Things/Do:"

    assert refuse_change(f"{runtime}credentials", ["other"]) == [
        ("tool.yaml: tools.test.v1.Things/Do.credentials", "other is not under `credentials`")
    ]
    assert ("tool.yaml: credentials.db_read.target", "x is not under `targets`") in refuse_change(
        "credentials:db_read:target", "x"
    )


def test_refuses_a_credential_whose_target_the_tool_cannot_reach() -> None:
    ((field, description),) = refuse_change("tools:test.v1.Things/Do:targets", [])

    assert field == "tool.yaml: tools.test.v1.Things/Do.targets"
    assert description == "lacks db, where credential db_read is good"


@pytest.mark.parametrize(
    ("text", "field", "description"),
    [
        ("a: [1", "tool.yaml:1", "',' or ']'"),
        ("bundle: x\nbundle: y", "tool.yaml:2", "'bundle' stands twice"),
        ("a: &x [1]\nb: *x", "tool.yaml:2", "aliases are not allowed"),
        ("a: !!python/object:os.system {}", "tool.yaml:1", "could not determine a constructor"),
        ("- a", "tool.yaml", "must be a mapping"),
        ("", "tool.yaml", "must be a mapping"),
        ("a: \x07", "tool.yaml:1", "has characters that nobody sees (1 control)"),
        ("[" * 5000, "tool.yaml", "is not valid YAML"),
        ("? [a]\n: 1", "tool.yaml", "unhashable"),
        ("x" * 70_000, "tool.yaml", "is larger than 65536 bytes"),
        ("a: 2027-99-99", "tool.yaml", "is not valid YAML"),
    ],
)
def test_refuses_text_that_is_no_plain_yaml(text: str, field: str, description: str) -> None:
    ((found_field, found_description),) = refuse(text)

    assert found_field == field
    assert description in found_description


def test_reads_the_packages_of_an_image() -> None:
    manifest = read_manifest((SHOP.parents[1] / "git" / "tool.yaml").read_text())
    assert manifest.image.packages == ("git", "openssh-client", "libnss-wrapper")
    assert set(get_args(PackageName)) == set(EXTRAS)


@pytest.mark.parametrize("name", ["bash", "git=1.0", "", 7])
def test_refuses_a_package_that_is_not_listed(name: object) -> None:
    (violation,) = refuse_change("image", {"command": ["true"], "packages": [name]})
    assert violation == (
        "tool.yaml: image.packages.0",
        "should be 'git', 'openssh-client', 'libnss-wrapper' or 'busybox-static'",
    )


API = {"kind": "http", "allow": ["GET /a/{id:int}", {"rule": "PUT /b?c={int}", "require": ["c"]}]}


def read_api(credentials: dict[str, object], **target: object) -> Manifest:
    names = sorted(credentials)
    tool = {"credentials": names, "targets": ["api"], "deadline_seconds": 1}
    more = {"credentials": credentials, "targets": {"api": {**API, **target}}, "tools": {"a.v1.B/C": tool}}
    return read_manifest(yaml.safe_dump({**GOOD, **more}))


def test_reads_rules_as_lines_and_as_mappings() -> None:
    manifest = read_api({}, limits={"requests": 3})

    assert [rule.text for rule in manifest.targets["api"].rules] == ["GET /a/{id:int}", "PUT /b?c={int}"]
    assert manifest.targets["api"].rules[1].require == {"c"}
    assert (manifest.targets["api"].limits.requests, manifest.targets["api"].limits.seconds) == (3, 30)


@pytest.mark.parametrize(
    ("engine", "inject"),
    [
        ("kv", {"form": "bearer"}), ("oauth2", {"form": "bearer"}),
        ("oauth2", {"form": "header", "name": "X-Key"}),
        ("kv", {"form": "header", "name": "Authorization", "prefix": "Token ", "key": "api"}),
        ("kv", {"form": "query", "name": "key"}), ("ldap", {"form": "basic"}),
        ("database", {"form": "basic"}),
        ("pki", {"form": "client_certificate"}), ("kv", {"form": "sigv4", "region": "eu-1", "service": "s3"}),
    ],
)  # fmt: skip
def test_takes_each_form_with_its_engine(engine: str, inject: dict[str, str]) -> None:
    manifest = read_api({"key": {"engine": engine, "role": "r", "target": "api", "inject": inject}})

    assert manifest.credentials["key"].inject is not None


@pytest.mark.parametrize(
    "inject",
    [
        {"name": "X-HTTP-Method-Override"}, {"name": "X_Forwarded_Host"}, {"name": "Host"},
        {"name": "Transfer_Encoding"}, {"name": "Range"}, {"name": "X-Key", "prefix": " Token"},
    ],
)  # fmt: skip
def test_adds_no_credential_where_the_proxy_would_refuse_to(inject: dict[str, str]) -> None:
    wanted = {"engine": "kv", "role": "r", "target": "api", "inject": {"form": "header", **inject}}
    with pytest.raises(BundleInvalid) as caught:
        read_api({"key": wanted})

    assert {violation.code for violation in caught.value.violations} <= {"INJECT_FORM", "MANIFEST_VALUE"}


def test_adds_one_credential_to_a_target_and_method() -> None:
    wanted = {"engine": "kv", "role": "r", "target": "api", "inject": {"form": "bearer"}}
    with pytest.raises(BundleInvalid) as caught:
        read_api({"key": wanted, "other": dict(wanted, inject={"form": "basic"})})

    (violation,) = caught.value.violations
    assert (violation.code, violation.field) == ("INJECT_TARGET", "tool.yaml: tools.a.v1.B/C.credentials")


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ({"limits": {"request": 1}}, "did you mean requests?"),
        ({"limits": {"seconds": 0.0001}}, "greater than or equal to 0.1"),
        ({"allow": [{"rules": "GET /"}]}, "did you mean rule?"),
    ],
)
def test_knows_the_fields_of_what_is_nested(target: dict[str, object], hint: str) -> None:
    with pytest.raises(BundleInvalid) as caught:
        read_api({}, **target)

    assert hint in str(caught.value)


def test_tells_names_and_rules_that_are_wrong_at_once() -> None:
    with pytest.raises(BundleInvalid) as caught:
        read_api({"key": {"engine": "kv", "role": "r", "target": "gone"}}, allow=["GET"], opaque=True)

    assert {violation.code for violation in caught.value.violations} == {
        "MANIFEST_NAME",
        "HTTP_ALLOW",
        "HTTP_RULE",
    }
