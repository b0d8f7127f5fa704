"""The client view: no options of ours, nothing else lost; and its text compiles to the same."""

# ruff: noqa: E501 - a contract reads better on one line
from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

from tests.tools.protos import HEAD, SERVICE, compile_messages, compile_text, edit_set
from tools.client_view import client_view, write_proto_sources
from tools.errors import BundleInvalid

RICH = (
    "// About this file.\n"
    + HEAD
    + 'option java_package = "org.test";\noption deprecated = true;\n'
    + """
// The service.
service Things {
  // Does a thing, "quoted" \\ and all.
  rpc Do(Request) returns (Response) { option (toolcrib.v1.tool) = {effect: READ, scope: "a"}; option deprecated = true; }
  rpc Also(google.protobuf.Empty) returns (Response) { option (toolcrib.v1.tool) = {effect: READ, scope: "a"}; }
}
// The request.
// Two lines.
message Request {
  option deprecated = true;
  reserved 5, 7 to 9;
  reserved "gone";
  // Money.
  message Inner { int64 a = 1; enum Kind { KIND_NONE = 0; KIND_SOME = 1; } Kind kind = 2; }
  Inner inner = 1 [(toolcrib.v1.field).secret = true];
  repeated int32 numbers = 2 [packed = false, deprecated = true];
  map<string, Inner> by_name = 3;
  optional string maybe = 4 [(buf.validate.field).string.max_len = 3, json_name = "perhaps"];
  // A choice.
  oneof choice { option (buf.validate.oneof).required = true; /* Left. */ string left = 10; Response right = 11; }
  google.protobuf.Timestamp when_ = 12;
  bytes _data_2x = 13;
  map<int32, bytes> raw = 14;
}
message Response { string text = 1; }
enum Color {
  option allow_alias = true;
  // None.
  COLOR_UNSPECIFIED = 0;
  COLOR_RED = 1 [deprecated = true];
  COLOR_ROSSO = 1;
  COLOR_MINUS = -1;
  reserved 5 to 6;
}
"""
)


def find_file(data: bytes, name: str = "test/v1/things.proto") -> descriptor_pb2.FileDescriptorProto:
    return edit_set(data, name)[1]


def test_drops_our_options_and_their_imports_and_nothing_else() -> None:
    file = find_file(client_view(compile_text(RICH)))

    text = str(file)
    assert list(file.dependency) == [
        f"google/protobuf/{name}.proto"
        for name in ("any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers")
    ]
    assert not any(
        word in text for word in ("toolcrib", "buf.validate", "buf/validate", "283041917", "1159:")
    )
    assert file.options.java_package == "org.test"
    assert file.service[0].method[0].options.deprecated


def test_holds_everything_that_it_imports() -> None:
    view = descriptor_pb2.FileDescriptorSet.FromString(client_view(compile_text(RICH)))

    names = [file.name for file in view.file]
    assert not {"buf/validate/validate.proto", "toolcrib/v1/options.proto"} & set(names)
    assert all(needed in names for file in view.file for needed in file.dependency)


def test_encodes_on_the_wire_as_the_contract_does() -> None:
    data = compile_messages(
        "message Request { string text = 1; repeated int32 numbers = 2; map<string, int64> m = 3; }"
    )
    encoded = []
    for files in (data, client_view(data)):
        pool = DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(files).file:
            pool.Add(file)
        request = message_factory.GetMessageClass(pool.FindMessageTypeByName("test.v1.Request"))
        encoded.append(request(text="a", numbers=[1, 2], m={"k": -1}).SerializeToString(deterministic=True))

    assert encoded[0] == encoded[1]


def test_is_the_same_when_made_again() -> None:
    view = client_view(compile_text(RICH))

    assert client_view(view) == view


def strip_places(file: descriptor_pb2.FileDescriptorProto) -> tuple[str, dict[tuple[int, ...], str]]:
    comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    file.ClearField("source_code_info")
    return str(file), {path: comment for path, comment in comments.items() if comment}


def test_writes_text_that_compiles_to_the_same_descriptors_and_comments(tmp_path: Path) -> None:
    view = client_view(compile_text(RICH))

    (written,) = write_proto_sources(view, tmp_path)
    again = compile_text(written.read_text())

    assert written == tmp_path / "test" / "v1" / "things.proto"
    assert strip_places(find_file(again)) == strip_places(find_file(view))


def test_writes_no_files_of_google(tmp_path: Path) -> None:
    write_proto_sources(client_view(compile_text(RICH)), tmp_path)

    assert [path.name for path in tmp_path.rglob("*.proto")] == ["things.proto"]


@pytest.mark.parametrize(
    "name", ["../x.proto", "/etc/x.proto", "a/../../x.proto", "a//x.proto", "x.txt", "a\\..\\x.proto"]
)
def test_writes_nothing_outside_the_folder(tmp_path: Path, name: str) -> None:
    files, file = edit_set(client_view(compile_messages("", SERVICE)))
    file.name = name

    with pytest.raises(BundleInvalid, match="is no relative path"):
        write_proto_sources(files.SerializeToString(), tmp_path / "inner")

    assert not list(tmp_path.rglob("x.*"))


def test_refuses_bytes_that_are_no_descriptor_set(tmp_path: Path) -> None:
    with pytest.raises(BundleInvalid):
        write_proto_sources(b"\xff", tmp_path)


def test_writes_a_comment_that_tries_to_end_itself_as_a_comment(tmp_path: Path) -> None:
    files, file = edit_set(client_view(compile_messages("")))
    place = next(place for place in file.source_code_info.location if list(place.path) == [4, 0])
    place.leading_comments = "one\nmessage Evil {}\r\nmessage Worse {}\u2028*/"

    (written,) = write_proto_sources(files.SerializeToString(), tmp_path)

    assert len(find_file(compile_text(written.read_text())).message_type) == 2
