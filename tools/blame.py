"""Which field's rule it is that does not compile: the engine names the message only.

Each field with rules is tried alone, in a pool of its own with every other rule taken out. That takes its
time, so `check` does it on the author's machine, and registration does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import protovalidate
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from tools.descriptors import TRUSTED_FILES, build_pool, load_trusted_files, read_options
from tools.elements import walk_file
from tools.errors import Violation
from tools.set_form import decode_set, order_files

MAX_TRIED = 50

_File = descriptor_pb2.FileDescriptorProto
_BROKEN = (protovalidate.CompilationError, protovalidate.EvaluationError, ValueError)


def blame_fields(descriptor_set: bytes, violations: Sequence[Violation]) -> list[Violation]:
    """Put violations of rules at the fields whose rules they are, where that can be told."""
    if not any(violation.code == "RULE_BROKEN" for violation in violations):
        return list(violations)
    own = [file for file in decode_set(descriptor_set) if file.name not in TRUSTED_FILES]
    pool = build_pool([*load_trusted_files().values(), *order_files(own)])
    return [placed for violation in violations for placed in _place(violation, pool)]


def _place(violation: Violation, pool: DescriptorPool) -> Iterator[Violation]:
    names: list[str] = []
    if violation.code == "RULE_BROKEN":
        names = _find_culprits(pool.FindMessageTypeByName(violation.field))
    for name in names or [violation.field]:
        yield dataclasses.replace(violation, field=name)


def _find_culprits(descriptor: Descriptor) -> list[str]:
    """Name the fields whose rules fail by themselves; none where it is another rule, or cannot be told."""
    files = {file.name: file for file in _list_files(descriptor.file)}
    with_rules = [
        field
        for field in descriptor.fields
        if read_options(field.GetOptions(), "buf.validate.field") is not None
    ]
    found = []
    for field in with_rules[:MAX_TRIED]:
        alone = _File.FromString(files[descriptor.file.name].SerializeToString())
        _strip_other_rules(alone, field.full_name)
        others = [file for name, file in files.items() if name != alone.name]
        if _is_broken([*others, alone], descriptor.full_name):
            found.append(field.full_name)
    return found


def _is_broken(files: list[_File], name: str) -> bool:
    try:
        message = build_pool(files).FindMessageTypeByName(name)
        protovalidate.Validator().collect_violations(GetMessageClass(message)())
    except _BROKEN:
        return True
    return False


def _list_files(file: FileDescriptor) -> Iterator[_File]:
    """Yield a file's imports, and theirs, before it."""
    seen: set[str] = set()

    def visit(each: FileDescriptor) -> Iterator[_File]:
        if each.name not in seen:
            seen.add(each.name)
            for imported in each.dependencies:
                yield from visit(imported)
            proto = _File()
            each.CopyToProto(proto)
            yield proto

    yield from visit(file)


def _strip_other_rules(file: _File, kept: str) -> None:
    """Take out the options of every message and field but one; what makes a map stays."""
    for element in walk_file(file):
        if isinstance(element.proto, descriptor_pb2.DescriptorProto):
            is_entry = element.proto.options.map_entry
            element.proto.ClearField("options")
            if is_entry:
                element.proto.options.map_entry = True
        elif isinstance(element.proto, descriptor_pb2.FieldDescriptorProto) and element.name != kept:
            element.proto.ClearField("options")
