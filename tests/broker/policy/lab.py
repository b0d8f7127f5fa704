"""A bundle of odd contracts: optional, nested, hidden and changing fields, to make schemas from."""

from __future__ import annotations

from pathlib import Path

from tools.catalogue import ToolVersion, load_version
from tools.source import compile_bundle

METHOD = "lab.v1.Lab/Try"

_PROTO = """
syntax = "proto3";
package lab.v1;
import "buf/validate/validate.proto";
import "toolcrib/v1/options.proto";
service Lab {
  // Tries something.
  rpc Try(TryRequest) returns (TryResponse) {
    option (toolcrib.v1.tool) = {effect: READ, reach: INTERNAL, scope: "lab.try"};
  }
}
message TryRequest {
  string name = 1 [(buf.validate.field).string.max_len = 100];
  optional string nick = 2 [(buf.validate.field).string.max_len = 100];
  double weight = 3;
  string pin = 4 [(buf.validate.field).string.max_len = 8, (toolcrib.v1.field).secret = true];
  Colour colour = 5;
  repeated Part parts = 6 [(buf.validate.field).repeated.max_items = 10];
  map<string, string> tags = 7 [(buf.validate.field).map.max_pairs = 10];
  int64 count = 8;
  %s
}
message Part {
  string id = 1 [(buf.validate.field).string.max_len = 100];
  repeated int64 sizes = 2 [(buf.validate.field).repeated.max_items = 10];
}
enum Colour {
  COLOUR_UNSPECIFIED = 0;
  COLOUR_RED = 1;
}
message TryResponse {}
"""

_MANIFEST = """
bundle: lab
version: {version}
description: Tries things.
image: {{command: ["python3", "-m", "handler"]}}
tools:
  lab.v1.Lab/Try: {{deadline_seconds: 5}}
"""


def load_lab(folder: Path, version: str = "1.0.0", more_fields: str = "") -> ToolVersion:
    """Write, compile and load one version of the bundle."""
    (folder / "proto" / "lab" / "v1").mkdir(parents=True)
    (folder / "proto" / "lab" / "v1" / "lab.proto").write_text(_PROTO % more_fields)
    (folder / "tool.yaml").write_text(_MANIFEST.format(version=version))
    (folder / "handler.py").write_text("")
    source = compile_bundle(folder)
    return load_version(source.descriptor_set, source.manifest_yaml, "sha256:" + "0" * 64)
