"""Small contracts written as text, compiled in the test process."""

from __future__ import annotations

import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from tools.catalogue import ToolVersion, load_version
from tools.contract import Contract
from tools.descriptors import find_include_folders

IMAGE_ID = "sha256:" + "0" * 64

HEAD = """
syntax = "proto3";
package test.v1;
import "buf/validate/validate.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "toolcrib/v1/options.proto";
"""

SERVICE = """
service Things {
  // Does a thing.
  rpc Do(Request) returns (Response) { option (toolcrib.v1.tool) = {effect: READ, scope: "things.do"}; }
}
"""


def compile_text(*texts: str, names: tuple[str, ...] = ("test/v1/things.proto",)) -> bytes:
    """Compile files of protos into a descriptor set with imports and source info."""
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder), Path(folder) / "out.binpb"
        for name, text in zip(names, texts, strict=True):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        includes = [f"-I{path}" for path in (root, *find_include_folders())]
        flags = ["--include_imports", "--include_source_info", f"--descriptor_set_out={out}"]
        assert protoc.main(["protoc", *includes, *flags, *names]) == 0, "the test's proto does not compile"
        return out.read_bytes()


def compile_messages(messages: str, service: str = SERVICE) -> bytes:
    """Compile one file with `messages` and a service of one tool, Things/Do."""
    if "message Response" not in messages:
        messages += "\nmessage Response { string text = 1; }"
    if "message Request" not in messages:
        messages += "\nmessage Request { string text = 1; }"
    return compile_text(HEAD + service + messages)


def write_manifest(*methods: str, bundle: str = "things") -> str:
    """Write the manifest of a bundle that needs nothing."""
    tools = "".join(f"  {method}: {{deadline_seconds: 1}}\n" for method in methods or ("test.v1.Things/Do",))
    head = f'bundle: {bundle}\nversion: 1.0.0\ndescription: Things.\nimage: {{command: ["true"]}}\ntools:\n'
    return head + tools


def load_messages(messages: str, service: str = SERVICE) -> ToolVersion:
    """Load a version of a bundle with `messages` and one tool."""
    return load_version(compile_messages(messages, service), write_manifest(), IMAGE_ID)


def load_contract(messages: str) -> Contract:
    """Load the contract of Things/Do with `messages`."""
    return load_messages(messages).contracts["test.v1.Things/Do"]


def edit_set(
    descriptor_set: bytes, name: str = "test/v1/things.proto"
) -> tuple[descriptor_pb2.FileDescriptorSet, descriptor_pb2.FileDescriptorProto]:
    """Decode a set to craft a bad one of it: the set, and its file `name`."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
    return files, next(file for file in files.file if file.name == name)
