"""Crafted descriptor sets: each is refused with its code, none crashes, none is accepted."""

# ruff: noqa: E501 - a table reads better with a case on a line
from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf import descriptor_pb2

from tests.tools import crafted
from tests.tools.crafted import (
    NAME,
    Field,
    File,
    Set,
    add_field,
    add_file,
    add_held,
    add_map,
    add_method,
    build_set,
    encode,
    set_cel,
    set_string_rule,
)
from tests.tools.protos import IMAGE_ID, write_manifest
from toolcrib.v1 import options_pb2
from tools.catalogue import ToolVersion, load_version
from tools.errors import BundleInvalid

Craft = Callable[[Set, File], object]


def load(data: bytes) -> ToolVersion:
    return load_version(data, write_manifest(), IMAGE_ID)


def request(file: File) -> crafted.Message:
    return file.message_type[0]


# --- files ---
def import_in_circle(files: Set, file: File) -> None:
    add_file(files, "test/v1/other.proto", "test.v1", NAME)
    file.dependency.append("test/v1/other.proto")


def repeat_symbol(files: Set, file: File) -> None:
    add_file(files, "test/v1/other.proto", "test.v1").message_type.add(name="Request")


def define_options_again(files: Set, _file: File) -> None:
    add_file(files, "mine/v1/options.proto", "toolcrib.v1").message_type.add(name="ToolOptions")


def hide_in_option_folder(files: Set, _file: File) -> None:
    add_file(files, "google/protobuf/mine.proto", "test.v1")


def add_public_import(_files: Set, file: File) -> None:
    file.public_dependency.append(99)


def add_weak_import(_files: Set, file: File) -> None:
    file.weak_dependency.append(0)


FILES: dict[str, tuple[str, Craft]] = {
    "two files import each other": ("IMPORT_CIRCLE", import_in_circle),
    "a file imports itself": ("IMPORT_CIRCLE", lambda _, file: file.dependency.append(NAME)),
    "a file is there twice": ("FILE_TWICE", lambda files, file: files.file.add().CopyFrom(file)),
    "two files define one symbol": ("FILES_CLASH", repeat_symbol),
    "an import is not there": (
        "IMPORT_MISSING",
        lambda _, file: file.dependency.append("gone/v1/gone.proto"),
    ),
    "an import is there twice": ("FILES_CLASH", lambda _, file: file.dependency.append(file.dependency[0])),
    "a public import of nothing": ("IMPORT_KIND", add_public_import),
    "a weak import": ("IMPORT_KIND", add_weak_import),
    "a package of ours": ("PACKAGE_RESERVED", define_options_again),
    "a file in google's folder": ("PACKAGE_RESERVED", hide_in_option_folder),
    "a package of google": ("PACKAGE_RESERVED", lambda _, file: setattr(file, "package", "google.protobuf")),
    "a package without a version": ("PACKAGE_NAME", lambda _, file: setattr(file, "package", "test")),
    "a name that leaves the folder": ("FILE_NAME", lambda _, file: setattr(file, "name", "../../x.proto")),
    "an absolute name": ("FILE_NAME", lambda _, file: setattr(file, "name", "/etc/x.proto")),
    "a name with NUL": ("FILE_NAME", lambda _, file: setattr(file, "name", "a\0b.proto")),
    "a name with a backslash": ("FILE_NAME", lambda _, file: setattr(file, "name", "a\\..\\b.proto")),
    "a name that is no .proto": ("FILE_NAME", lambda _, file: setattr(file, "name", "handler.py")),
    "proto2": ("SYNTAX", lambda _, file: setattr(file, "syntax", "proto2")),
    "no syntax": ("SYNTAX", lambda _, file: file.ClearField("syntax")),
    "an edition": ("SYNTAX", lambda _, file: setattr(file, "edition", descriptor_pb2.EDITION_2023)),
    "a hundred and one files": (
        "SET_TOO_LARGE",
        lambda files, _: [add_file(files, f"test/v1/f{n}.proto", "test.v1") for n in range(101)],
    ),
    "no file": ("SET_EMPTY", lambda files, _: files.ClearField("file")),
}


# --- messages and fields ---
def forge_map(_files: Set, file: File) -> None:
    file.message_type.add(name="Forged").options.map_entry = True


def forge_entry_with_more(_files: Set, file: File) -> None:
    add_map(request(file), "named")
    add_field(request(file).nested_type[0], "more", 3)


def use_entry_as_request(_files: Set, file: File) -> None:
    add_map(request(file), "named")
    file.service[0].method[0].input_type = ".test.v1.Request.NamedEntry"


def nest_types(_files: Set, file: File) -> None:
    for depth in range(60):
        add_held(file.message_type.add(name=f"Deep{depth}"), "next", f".test.v1.Deep{depth + 1}")
    file.message_type.add(name="Deep60")


def nest_definitions(_files: Set, file: File) -> None:
    message = request(file)
    for depth in range(120):
        message = message.nested_type.add(name=f"Deep{depth}")


def double_types(_files: Set, file: File) -> None:
    for depth in range(40):
        message = file.message_type.add(name=f"Wide{depth}")
        add_held(message, "one", f".test.v1.Wide{depth + 1}")
        add_held(message, "two", f".test.v1.Wide{depth + 1}")
    file.message_type.add(name="Wide40")
    add_held(request(file), "wide", ".test.v1.Wide0")


def hold(type_name: str, path: str) -> Craft:
    """Put a message of google.protobuf behind two messages of the bundle's own."""

    def craft(_files: Set, file: File) -> None:
        file.dependency.append(f"google/protobuf/{path}.proto")
        inner = file.message_type.add(name="Inner")
        add_held(inner, "value", f".google.protobuf.{type_name}")
        add_held(file.message_type.add(name="Outer"), "inner", ".test.v1.Inner", label=Field.LABEL_REPEATED)
        add_held(request(file), "outer", ".test.v1.Outer")

    return craft


def map_to_any(_files: Set, file: File) -> None:
    file.dependency.append("google/protobuf/any.proto")
    add_map(request(file), "named", type=Field.TYPE_MESSAGE, type_name=".google.protobuf.Any")


def map_by_float(_files: Set, file: File) -> None:
    add_map(request(file), "named", key=Field.TYPE_DOUBLE)


def put_into_no_oneof(index: int) -> Craft:
    return lambda _, file: setattr(request(file).field[0], "oneof_index", index)


def collide_json_names(_files: Set, file: File) -> None:
    add_field(request(file), "other", json_name="text")


def make_proto2_group(_files: Set, file: File) -> None:
    add_field(request(file), "grouped", type=Field.TYPE_GROUP, type_name=".test.v1.Response")


def reserve_what_is_used(_files: Set, file: File) -> None:
    request(file).reserved_range.add(start=1, end=5)


def flag(option: str) -> Craft:
    return lambda _, file: setattr(request(file).field[0].options, option, True)


MESSAGES: dict[str, tuple[str, Craft]] = {
    "an extension": ("EXTENSION", lambda _, file: file.extension.add(name="mine", number=50001)),
    "an extension range": (
        "EXTENSION",
        lambda _, file: request(file).extension_range.add(start=100, end=200),
    ),
    "a nested extension": (
        "EXTENSION",
        lambda _, file: request(file).extension.add(name="mine", number=50001),
    ),
    "a field that extends": (
        "EXTENSION",
        lambda _, f: setattr(request(f).field[0], "extendee", ".test.v1.Response"),
    ),
    "a group": ("GROUP", make_proto2_group),
    "a required field": (
        "REQUIRED",
        lambda _, f: setattr(request(f).field[0], "label", Field.LABEL_REQUIRED),
    ),
    "a default value": ("DEFAULT", lambda _, file: setattr(request(file).field[0], "default_value", "x")),
    "a forged map entry": ("MAP_FORGED", forge_map),
    "a map entry with a third field": ("MAP_FORGED", forge_entry_with_more),
    "a map by floats": ("FILES_CLASH", map_by_float),
    "a map entry as a request": ("MAP_FORGED", use_entry_as_request),
    "a oneof that is not there": ("ONEOF", put_into_no_oneof(7)),
    "a oneof before the first": ("ONEOF", put_into_no_oneof(-1)),
    "two fields of one JSON name": ("FILES_CLASH", collide_json_names),
    "a JSON name with quotes": (
        "JSON_NAME",
        lambda _, f: setattr(request(f).field[0], "json_name", 'a"},{"'),
    ),
    "a field number twice": ("FILES_CLASH", lambda _, file: add_field(request(file), "other", 1)),
    "field number 0": ("FILES_CLASH", lambda _, file: setattr(request(file).field[0], "number", 0)),
    "a negative field number": ("FILES_CLASH", lambda _, file: add_field(request(file), "other", -5)),
    "a field number of protobuf's own": (
        "FILES_CLASH",
        lambda _, file: add_field(request(file), "other", 19_500),
    ),
    "a field number too large": ("FILES_CLASH", lambda _, file: add_field(request(file), "other", 2**29)),
    "a reserved number in use": ("FILES_CLASH", reserve_what_is_used),
    "a name twice": ("FILES_CLASH", lambda _, file: add_field(request(file), "text")),
    "a field of no type": ("FIELD_TYPE", lambda _, file: request(file).field[0].ClearField("type")),
    "a type of nobody": ("FILES_CLASH", lambda _, file: add_held(request(file), "gone", ".gone.v1.Gone")),
    "a message that is an enum": (
        "FILES_CLASH",
        lambda _, f: add_field(request(f), "other", type=Field.TYPE_ENUM, type_name=".test.v1.Response"),
    ),
    "four thousand fields": (
        "SET_TOO_LARGE",
        lambda _, file: [add_field(request(file), f"f{n}") for n in range(4_000)],
    ),
    "types sixty deep": ("TOO_DEEP", nest_types),
    "definitions a hundred and twenty deep": ("SET_UNREADABLE", nest_definitions),
    "types that double forty times": ("TOO_WIDE", double_types),
    "Any behind wrappers": ("UNBOUNDED_TYPE", hold("Any", "any")),
    "Struct behind wrappers": ("UNBOUNDED_TYPE", hold("Struct", "struct")),
    "a descriptor behind wrappers": ("UNBOUNDED_TYPE", hold("FileDescriptorSet", "descriptor")),
    "Any in a map": ("UNBOUNDED_TYPE", map_to_any),
    "lazy": ("WIRE_OPTION", flag("lazy")),
    "unverified_lazy": ("WIRE_OPTION", flag("unverified_lazy")),
    "weak": ("WIRE_OPTION", flag("weak")),
    "a message set": (
        "WIRE_OPTION",
        lambda _, f: setattr(request(f).options, "message_set_wire_format", True),
    ),
    "a name with a dot": ("NAME", lambda _, file: setattr(file.message_type.add(), "name", "a.b")),
    "a name with a space": ("NAME", lambda _, file: add_field(request(file), "a b")),
    "a name with NUL inside": ("NAME", lambda _, file: add_field(request(file), "a\0b")),
    "a name in another script": ("NAME", lambda _, file: add_field(request(file), "t\u0435xt")),
    "an endless name": ("NAME", lambda _, file: add_field(request(file), "x" * 10_000)),
    "no name": ("NAME", lambda _, file: file.message_type.add()),
}


# --- enums, services, options, comments ---
def add_enum(file: File, *numbers: int, alias: bool = False) -> None:
    enum = file.enum_type.add(name="Colour")
    for index, number in enumerate(numbers):
        enum.value.add(name=f"COLOUR_{index}", number=number)
    if alias:
        enum.options.allow_alias = True


def leave_option_unread(parts: bool) -> Craft:
    def craft(_files: Set, file: File) -> None:
        option = file.options.uninterpreted_option.add(identifier_value="x")
        if parts:
            option.name.add(name_part="mine", is_extension=True)
        else:
            option.name.add()

    return craft


def comment(part: str, text: str, path: tuple[int, ...] = (4, 0)) -> Craft:
    def craft(_files: Set, file: File) -> None:
        location = file.source_code_info.location.add(path=path, span=(1, 0, 5))
        if part == "leading_detached_comments":
            location.leading_detached_comments.append(text)
        else:
            setattr(location, part, text)

    return craft


def flood_source_info(_files: Set, file: File) -> None:
    file.source_code_info.location.extend([descriptor_pb2.SourceCodeInfo.Location()] * 150_000)


def rule(number: int, value: bytes | int) -> Craft:
    return lambda _, file: set_string_rule(request(file).field[0], number, value)


def cel(expression: str, message: str = "no") -> Craft:
    return lambda _, file: set_cel(request(file).field[0], expression, message)


def edit_tool(**values: object) -> Craft:
    def craft(_files: Set, file: File) -> None:
        tool = crafted.tool_of(file.service[0].method[0])
        for name, value in values.items():
            setattr(tool, name, value)

    return craft


PATTERN, THREE = 6, "this.all(a, this.all(b, this.all(c, a == b)))"
REST: dict[str, tuple[str, Craft]] = {
    "an enum of two names for one number": ("ENUM_ALIAS", lambda _, file: add_enum(file, 0, 1, 1, alias=True)),
    "such an enum that does not say so": ("ENUM_ALIAS", lambda _, file: add_enum(file, 0, 1, 1)),
    "an enum that begins with one": ("FILES_CLASH", lambda _, file: add_enum(file, 1)),
    "an enum of nothing": ("FILES_CLASH", lambda _, file: add_enum(file)),
    "an enum of too many": ("SET_TOO_LARGE", lambda _, file: add_enum(file, *range(3_100))),
    "a method twice": ("FILES_CLASH", lambda _, file: add_method(file.service[0], "Do")),
    "a method with a slash": ("NAME", lambda _, file: add_method(file.service[0], "Do/../Other")),
    "a method that takes a stream": (
        "STREAMING", lambda _, file: setattr(file.service[0].method[0], "client_streaming", True)
    ),
    "a method that gives a stream": (
        "STREAMING", lambda _, file: setattr(file.service[0].method[0], "server_streaming", True)
    ),
    "a method of another package's type": (
        "FILES_CLASH", lambda _, file: setattr(file.service[0].method[0], "input_type", ".other.v1.Request")
    ),
    "a method that takes an enum": (
        "FILES_CLASH", lambda _, file: setattr(file.service[0].method[0], "input_type", ".test.v1.Things")
    ),
    "too many methods": (
        "SET_TOO_LARGE", lambda _, file: [add_method(file.service[0], f"Do{n}") for n in range(101)]
    ),
    "no service": ("NO_SERVICE", lambda _, file: file.ClearField("service")),
    "no tool option": ("TOOL_OPTION", lambda _, file: file.service[0].method[0].ClearField("options")),
    "an effect of another version": ("EFFECT", edit_tool(effect=77)),
    "the broker's own option": ("ACCESS", edit_tool(access=options_pb2.ANY_CALLER)),
    "an option of nobody": ("OPTION_UNKNOWN", lambda _, file: file.options.MergeFromString(encode(50_001, b"x"))),
    "an option of a newer broker": (
        "OPTION_UNKNOWN",
        lambda _, file: file.service[0].method[0].options.MergeFromString(encode(283041917, encode(99, 1))),
    ),
    "an option that cannot be decoded": (
        "OPTION_UNREADABLE",
        lambda _, file: request(file).field[0].options.MergeFromString(encode(crafted.RULES, b"\x72\xff")),
    ),
    "an option that is not text": ("NOT_TEXT", rule(PATTERN, b"\xff\xfe")),
    "an option that nobody read": ("OPTION_UNREAD", leave_option_unread(parts=True)),
    "one that is not complete": ("OPTION_UNREAD", leave_option_unread(parts=False)),
    "features of editions": (
        "SYNTAX",
        lambda _, file: setattr(file.options.features, "message_encoding", 2),
    ),
    "a flood of source info": ("SET_TOO_LARGE", flood_source_info),
    "a comment of five megabytes": ("SET_TOO_LARGE", comment("leading_comments", "x" * 5_000_000)),
    "a comment with tag characters": ("INVISIBLE_CHARACTERS", comment("leading_comments", "a\U000e0041b")),
    "a comment that runs backwards": ("INVISIBLE_CHARACTERS", comment("trailing_comments", "a\u202eb")),
    "a loose comment with zero width": (
        "INVISIBLE_CHARACTERS", comment("leading_detached_comments", "a\u200bb", ())
    ),
    "a rule that speaks unseen": ("INVISIBLE_CHARACTERS", cel("this != 'x'", "no\u200d")),
    "a pattern bomb": ("RULE_BROKEN", rule(PATTERN, b"((a{1,1000}){1,1000}){1,1000}")),
    "a pattern of a megabyte": ("SCHEMA_TOO_LARGE", rule(PATTERN, b"(a|b)" * 200_000)),
    "a pattern with a lookahead": ("RULE_BROKEN", rule(PATTERN, b"(?=a)b")),
    "a pattern with a backreference": ("RULE_BROKEN", rule(PATTERN, b"(a)\\1")),
    "a pattern that does not end": ("RULE_BROKEN", rule(PATTERN, b"(" * 5_000)),
    "a CEL rule that is too long": ("CEL_UNBOUNDED", cel("this != '" + "x" * 1_000 + "'")),
    "a CEL rule that loops three deep": ("CEL_UNBOUNDED", cel(THREE)),
    "a CEL rule of parentheses": ("RULE_BROKEN", cel("(" * 450 + "true" + ")" * 450)),
    "a CEL rule of another type": ("RULE_BROKEN", cel("this + 1")),
    "a CEL rule that is none": ("RULE_BROKEN", cel("this is not CEL")),
}  # fmt: skip

CASES = {**FILES, **MESSAGES, **REST}


@pytest.mark.parametrize(("code", "craft"), CASES.values(), ids=CASES.keys())
def test_refuses(code: str, craft: Craft) -> None:
    files = build_set()
    craft(files, files.file[0])

    with pytest.raises(BundleInvalid) as caught:
        load(files.SerializePartialToString())

    assert code in {violation.code for violation in caught.value.violations}, caught.value
    assert all(violation.field and violation.description for violation in caught.value.violations)


def test_accepts_the_set_that_they_were_made_of() -> None:
    assert load(build_set().SerializeToString()).contracts.keys() == {"test.v1.Things/Do"}


def test_reads_its_own_option_files_whatever_a_set_brings() -> None:
    files = build_set()
    mine = add_file(files, "toolcrib/v1/options.proto", "toolcrib.v1")
    mine.message_type.add(name="Nothing")

    version = load(files.SerializeToString())

    assert version.contracts["test.v1.Things/Do"].effect == "READ"


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_refuses_a_set_that_was_cut(cut: int) -> None:
    with pytest.raises(BundleInvalid):
        load(build_set().SerializeToString()[:-cut])
