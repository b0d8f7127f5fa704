"""Descriptor sets that must not be registered, each refused with its place and remedy."""

# ruff: noqa: E501 - a contract reads better on one line
from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.protos import (
    HEAD,
    IMAGE_ID,
    SERVICE,
    compile_messages,
    compile_text,
    edit_set,
    write_manifest,
)
from tools.catalogue import load_version
from tools.errors import BundleInvalid

FileProto = descriptor_pb2.FileDescriptorProto
FieldProto = descriptor_pb2.FieldDescriptorProto


def refuse(descriptor_set: bytes) -> str:
    with pytest.raises(BundleInvalid) as caught:
        load_version(descriptor_set, write_manifest(), IMAGE_ID)
    return str(caught.value)


def rpc(name: str, options: str, request: str = "Request", response: str = "Response") -> str:
    return f"rpc {name}({request}) returns ({response}) {{ {options} }}"


def option(text: str) -> str:
    return f"option (toolcrib.v1.tool) = {{{text}}};"


METHODS = {
    "has no (toolcrib.v1.tool) option": rpc("Do", ""),
    "has no effect": rpc("Do", option('scope: "a.b"')),
    "has no scope": rpc("Do", option("effect: READ")),
    "has no scope of the form": rpc("Do", option('effect: READ, scope: "A B"')),
    "has an unknown reach": rpc("Do", option('effect: READ, scope: "a", reach: 9')),
    "sets access": rpc("Do", option('effect: READ, scope: "a", access: ANY_CALLER')),
    "is a READ and has nothing to probe": rpc("Do", option('effect: READ, scope: "a", probe: "Do"')),
    "names the probe Gone, which is no tool": rpc("Do", option('effect: WRITE, scope: "a", probe: "Gone"')),
    "names the probe Do, which is not a READ": rpc("Do", option('effect: WRITE, scope: "a", probe: "Do"')),
    "streams": rpc("Do", option('effect: READ, scope: "a"'), request="stream Request"),
    "Things/Do: streams": rpc("Do", option('effect: READ, scope: "a"'), response="stream Response"),
}


@pytest.mark.parametrize(("problem", "method"), METHODS.items())
def test_refuses_a_method(problem: str, method: str) -> None:
    assert problem in refuse(compile_messages("", f"service Things {{ {method} }}"))


MESSAGES = {
    "test.v1.Request.a: is a google.protobuf.Any": "message Request { google.protobuf.Any a = 1; }",
    "test.v1.Request.a: is a google.protobuf.Struct": "message Request { repeated google.protobuf.Struct a = 1; }",
    "is a google.protobuf.Value": "message Request { map<string, google.protobuf.Value> a = 1; }",
    "destination is for string": "message Request { int32 a = 1 [(toolcrib.v1.field).destination = true]; }",
    "untrusted is for string": "message Request { bytes a = 1 [(toolcrib.v1.field).untrusted = true]; }",
    "amount is for a message with": "message Request { int64 a = 1 [(toolcrib.v1.field).amount = true]; }",
    "Request.b: amount is for": "message M { int64 minor_units = 1; } "
    "message Request { M b = 1 [(toolcrib.v1.field).amount = true]; }",
    "a secret field cannot be": "message Request { string a = 1 [(toolcrib.v1.field) = {secret: true, destination: true}]; }",
    "set untrusted, or remove content": "message Request { string a = 1 [(toolcrib.v1.field) = {content: HTML}]; }",
    "content says how": "message Request { string a = 1 [(toolcrib.v1.field).content = TEXT]; }",
    "invalid perl operator": r'message Request { string a = 1 [(buf.validate.field).string.pattern = "(?=a)b"]; }',
    "invalid escape sequence": r'message Request { string a = 1 [(buf.validate.field).string.pattern = "(a)\\1"]; }',
    "invalid repetition size": 'message Request { string a = 1 [(buf.validate.field).string.pattern = "(a{1,999}){1,999}"]; }',
    "test.v1.Deep: a rule does not compile": r'message Deep { string a = 1 [(buf.validate.field).string.pattern = "(?<=a)"]; } '
    "message Request { repeated Deep deep = 1; }",
    "missing ): (a": 'message Request { string a = 1 [(buf.validate.field).cel = {id: "x", expression: "this.matches(\'(a\')"}]; }',
    "a rule fails on an empty message": 'message Request { string a = 1 [(buf.validate.field).cel = {id: "x", expression: "this.b > 3"}]; }',
    "more than 2 comprehensions": "message Request { option (buf.validate.message).cel_expression = "
    '"this.a.all(x, this.a.all(y, this.a.all(z, x < y || y < z)))"; repeated int32 a = 1; }',
    "longer than 1000 characters": "message Request { string a = 1 [(buf.validate.field).cel_expression = \"this != '"
    + "x" * 1000
    + "'\"]; }",
}


@pytest.mark.parametrize(("problem", "messages"), MESSAGES.items())
def test_refuses_a_message(problem: str, messages: str) -> None:
    assert problem in refuse(compile_messages(messages))


def test_refuses_types_that_nest_too_deep() -> None:
    chain = "".join(f"message M{n} {{ M{n + 1} next = 1; }}\n" for n in range(60)) + "message M60 {}\n"

    assert "test.v1.M0: nests deeper than 50 messages" in refuse(compile_messages(chain))


def test_refuses_a_request_that_is_endless_when_written_out() -> None:
    doubled = (
        "".join(f"message M{n} {{ M{n + 1} a = 1; M{n + 1} b = 2; }}\n" for n in range(40))
        + "message M40 {}\n"
    )

    problem = refuse(compile_messages(doubled + "message Request { M0 m = 1; }"))

    assert "test.v1.Request: has more than 1000 fields when every use of a type is written out" in problem


def test_loads_a_long_circle_of_types() -> None:
    circle = "".join(f"message M{n} {{ M{(n + 1) % 250} next = 1; }}\n" for n in range(250))
    data = compile_messages(circle + "message Request { M0 m = 1; }")

    version = load_version(data, write_manifest(), IMAGE_ID)

    assert version.contracts["test.v1.Things/Do"].policy_hidden == ("m",)


def test_refuses_a_schema_that_no_prompt_holds() -> None:
    fields = "".join(f"string a_rather_long_name_of_a_field_{n} = {n + 1};" for n in range(999))

    assert "its derived JSON Schema has more than" in refuse(
        compile_messages(f"message Request {{ {fields} }}")
    )


FILES = {
    "has syntax 'proto2'": 'syntax = "proto2"; package test.v1; message M { required string a = 1; }',
    "is a group": 'syntax = "proto2"; package test.v1; message M { optional group G = 1 { } }',
    "is required on the wire": 'syntax = "proto2"; package test.v1; message M { required string a = 1; }',
    "has syntax 'editions'": 'edition = "2023"; package test.v1; message M { string a = 1; }',
    "declares extensions": 'syntax = "proto3"; package test.v1; import "google/protobuf/descriptor.proto"; '
    "extend google.protobuf.FieldOptions { string mine = 50001; }",
    "must be lower case and end in a version": 'syntax = "proto3"; package test; message M {}',
    "belongs to a reserved package": 'syntax = "proto3"; package google.mine.v1; message M {}',
    "package ''": 'syntax = "proto3"; message M {}',
    "has no service": 'syntax = "proto3"; package test.v1; message M {}',
}


@pytest.mark.parametrize(("problem", "text"), FILES.items())
def test_refuses_a_file(problem: str, text: str) -> None:
    assert problem in refuse(compile_text(text))


@pytest.mark.parametrize("package", ["toolcrib.v1", "toolcrib", "grpc.health.v1", "google.x.v1", "buf.x.v1"])
def test_keeps_reserved_packages_for_their_owners(package: str) -> None:
    text = f'syntax = "proto3"; package {package}; message Mine {{}}'

    assert "belongs to a reserved package" in refuse(compile_text(text))


Craft = Callable[[descriptor_pb2.FileDescriptorSet, FileProto], object]


def add_field(file: FileProto, **values: object) -> None:
    file.message_type[0].field.add(name="extra", number=99, label=FieldProto.LABEL_OPTIONAL, **values)


CRAFTED: dict[str, Craft] = {
    "is in the set twice": lambda files, file: files.file.add().CopyFrom(file),
    "must be a relative path": lambda _, file: setattr(file, "name", "../../etc/x.proto"),
    "'/etc/x.proto': must be": lambda _, file: setattr(file, "name", "/etc/x.proto"),
    "'a\\nb.proto': must be": lambda _, file: setattr(file, "name", "a\nb.proto"),
    "imports other/v1/gone.proto, which is not in the set": lambda _, file: file.dependency.append(
        "other/v1/gone.proto"
    ),
    "imports itself in a circle": lambda _, file: file.dependency.append(file.name),
    "do not fit together": lambda _, file: file.message_type.add().CopyFrom(file.message_type[0]),
    "files do not fit": lambda _, file: add_field(
        file, type=FieldProto.TYPE_MESSAGE, type_name=".gone.v1.Gone"
    ),
    "is a group": lambda _, file: add_field(file, type=FieldProto.TYPE_GROUP, type_name=".test.v1.Response"),
    "is marked as a map's entry": lambda _, file: setattr(file.message_type[0].options, "map_entry", True),
    "duplicate json_name": lambda _, file: add_field(file, type=FieldProto.TYPE_STRING, json_name="text"),
    "an option that the broker does not know": lambda _, file: file.options.MergeFromString(
        b"\xfa\x84\x4f\x01a"
    ),
    "a text that is not UTF-8": lambda _, file: file.MergeFromString(b"\x12\x01\xff"),
}


@pytest.mark.parametrize(("problem", "craft"), CRAFTED.items())
def test_refuses_a_crafted_set(problem: str, craft: Craft) -> None:
    files, file = edit_set(compile_messages("message Request { string text = 1; }"))

    craft(files, file)

    assert problem in refuse(files.SerializeToString())


def test_refuses_options_of_a_newer_broker() -> None:
    files, file = edit_set(compile_messages(""))
    # Field 99 inside (toolcrib.v1.tool), whose number is 283041917.
    file.service[0].method[0].options.MergeFromString(bytes.fromhex("eafdd8b70803980601"))

    assert "has an option that the broker does not know" in refuse(files.SerializeToString())


def test_reads_options_as_its_own_files_define_them() -> None:
    """A bundle's own copy of an option file could call a WRITE a READ."""
    files, options = edit_set(compile_messages(""), "toolcrib/v1/options.proto")
    effect = next(enum for enum in options.enum_type if enum.name == "Effect")
    effect.value[1].number, effect.value[3].number = 3, 1

    version = load_version(files.SerializeToString(), write_manifest(), IMAGE_ID)

    assert version.contracts["test.v1.Things/Do"].effect == "READ"


@pytest.mark.parametrize("data", [b"\xff", b"", b"\x0a\x02\x0a\x05", b"\x0a\x00"])
def test_refuses_bytes_that_are_no_descriptor_set(data: bytes) -> None:
    assert "descriptor set" in refuse(data) or "must be a relative path" in refuse(data)


@pytest.mark.parametrize(
    ("problem", "grow"),
    [
        (
            "is larger than",
            lambda file: setattr(file.source_code_info.location.add(), "leading_comments", "x" * 5_000_000),
        ),
        (
            "more than 300 messages",
            lambda file: file.message_type.extend([descriptor_pb2.DescriptorProto()] * 301),
        ),
        ("more than 3000 fields", lambda file: file.message_type[0].field.extend([FieldProto()] * 3001)),
        (
            "more than 100 methods",
            lambda file: file.service[0].method.extend([file.service[0].method[0]] * 101),
        ),
    ],
)
def test_refuses_what_is_too_large_to_look_at(problem: str, grow: Callable[[FileProto], object]) -> None:
    files, file = edit_set(compile_messages(""))

    grow(file)

    assert problem in refuse(files.SerializeToString())


def test_tells_every_violation_at_once() -> None:
    text = refuse(
        compile_messages(
            MESSAGES["destination is for string"],
            "service Things { rpc Do(Request) returns (Response); rpc Also(Request) returns (Response); }",
        )
    )

    assert all(part in text for part in ("Things/Do", "Things/Also", "Request.a"))


FUZZED = compile_text(
    HEAD
    + SERVICE
    + 'message Request { map<string, Response> a = 1; } message Response { oneof b { string c = 1 [(buf.validate.field).string.pattern = "^a"]; int32 d = 2; } }'
)
OWN = FUZZED.index(b"test/v1/things.proto")


@given(st.lists(st.tuples(st.integers(OWN, len(FUZZED) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_answers_damaged_sets_with_violations_and_nothing_else(damage: list[tuple[int, int]]) -> None:
    data = bytearray(FUZZED)
    for place, value in damage:
        data[place] = value

    try:
        load_version(bytes(data), write_manifest(), IMAGE_ID)
    except BundleInvalid as error:
        assert error.violations
