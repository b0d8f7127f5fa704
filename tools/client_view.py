"""The client view: a bundle's descriptors as a client needs them.

Generated code imports what its `.proto` imports; with our option files in it, every client would need them.
So the view drops custom options and the imports that only options need. What goes over the wire is the
same, and comments stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError, Message

from tools.comments import is_option_place
from tools.descriptors import GOOGLE_FILES, OPTION_FILES, load_trusted_files
from tools.errors import BundleInvalid, Violation
from tools.proto_text import print_file

_File = descriptor_pb2.FileDescriptorProto

_DEPENDENCY, _PUBLIC, _WEAK = 3, 10, 11
"""Field numbers of FileDescriptorProto whose places move when imports go."""
_NEVER = (*OPTION_FILES, "google/protobuf/descriptor.proto")


def client_view(descriptor_set: bytes) -> bytes:
    """Make the client view of a descriptor set; google.protobuf files that are needed come along.

    Raises:
        BundleInvalid: The bytes are no descriptor set.
    """
    files = _decode(descriptor_set)
    own = [_strip(file) for file in files if file.name not in (*OPTION_FILES, *GOOGLE_FILES)]
    google = load_trusted_files()
    needed = {name for file in own for name in file.dependency if name in google}
    view = descriptor_pb2.FileDescriptorSet()
    view.file.extend(google[name] for name in GOOGLE_FILES if name in needed)
    view.file.extend(own)
    return view.SerializeToString(deterministic=True)


def write_proto_sources(client_descriptor_set: bytes, folder: Path) -> tuple[Path, ...]:
    """Write the view's files as `.proto` text below `folder`, for any language's protoc.

    The files of google.protobuf are left out: every protoc brings them.

    Returns:
        What was written, in the order of the imports.

    Raises:
        BundleInvalid: The bytes are no descriptor set, or a file's name would leave the folder.
    """
    written = []
    for file in _decode(client_descriptor_set):
        if file.name in GOOGLE_FILES:
            continue
        path = _place(folder, file.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(print_file(file), encoding="utf-8")
        written.append(path)
    return tuple(written)


def _decode(descriptor_set: bytes) -> list[_File]:
    try:
        return list(descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file)
    except DecodeError as error:
        problem = Violation("descriptor set", "is no google.protobuf.FileDescriptorSet")
        raise BundleInvalid([problem]) from error


def _place(folder: Path, name: str) -> Path:
    """Return where a file goes; a name comes from another party and may try to leave the folder."""
    parts = name.split("/")
    if not name.endswith(".proto") or any(
        part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts
    ):
        raise BundleInvalid([Violation(repr(name), "is no relative path of a .proto file")])
    return folder.joinpath(*parts)


def _strip(file: _File) -> _File:
    view = _File.FromString(file.SerializeToString())
    _strip_options(view)
    kept = [name for name in view.dependency if name not in _NEVER]
    public = {view.dependency[index] for index in view.public_dependency}
    del view.dependency[:], view.public_dependency[:], view.weak_dependency[:]
    view.dependency.extend(kept)
    view.public_dependency.extend(index for index, name in enumerate(kept) if name in public)
    locations = [location for location in view.source_code_info.location if _is_kept(location.path)]
    del view.source_code_info.location[:]
    view.source_code_info.location.extend(locations)
    return view


def _is_kept(path: Sequence[int]) -> bool:
    """Tell whether a place is still there: elements are, imports and options are not."""
    return not path or (path[0] not in (_DEPENDENCY, _PUBLIC, _WEAK) and not is_option_place(path))


def _strip_options(message: Message) -> None:
    """Drop extensions and unknown fields from the options of every element, at any depth."""
    for field, value in message.ListFields():
        if field.name == "options":
            value.DiscardUnknownFields()
            for option, _ in value.ListFields():
                if option.is_extension:
                    value.ClearExtension(option)
            if not value.ByteSize():
                message.ClearField("options")
        elif field.message_type is not None and field.name != "source_code_info":
            for inner in value if field.is_repeated else (value,):
                _strip_options(inner)
