"""Write docs/reference/: one page a proto file, made of the comments in it.

python -m deploy.site.reference          write the pages
python -m deploy.site.reference --check  fail when they are not what the protos say
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2

from toolcrib.v1 import options_pb2

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"
_Field = descriptor_pb2.FieldDescriptorProto
_TITLE = "# {name}\n\n<!-- Written by `make docs` from {source}; do not edit. -->\n\n"
_HEAD = """# Protocol reference

<!-- Written by `make docs`; do not edit. -->

Each page is one file of [proto/toolcrib](../../proto/toolcrib), made of its comments.
An agent needs `broker`, `reasons` and perhaps `status`; a tool author `options` and `handler`.

| file | what it is |
|---|---|
"""
# Field numbers of descriptor.proto, as SourceCodeInfo.Location.path has them.
_MESSAGE, _ENUM, _SERVICE, _EXTENSION, _SYNTAX = 4, 5, 6, 7, 12
_NESTED, _NESTED_ENUM = 3, 4
_MEMBER = 2


@dataclass(frozen=True, slots=True)
class Source:
    """One proto file and the comments in it, by the place of what they stand above."""

    file: descriptor_pb2.FileDescriptorProto
    comments: dict[tuple[int, ...], str]

    def say(self, *place: int) -> str:
        """Give a comment as one line; empty where there is none."""
        return " ".join(self.comments.get(place, "").split())

    def paragraphs(self, *place: int) -> str:
        """Give a comment as it was written, without its indentation where that is a blank."""
        lines = [line.removeprefix(" ") for line in self.comments.get(place, "").splitlines()]
        return "\n".join(lines).strip("\n")


def read_sources() -> list[Source]:
    """Compile our protos, with their comments."""
    names = sorted(
        path.relative_to(ROOT / "proto").as_posix() for path in ROOT.glob("proto/toolcrib/**/*.proto")
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "proto", "--include_source_info"]
        subprocess.run([*command, f"--descriptor_set_out={out}", *names], cwd=ROOT, check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    return [Source(file, _read_comments(file)) for file in files]


def write_page(source: Source) -> str:
    """Write the page of one file."""
    file = source.file
    lines = [_TITLE.format(name=_name(file), source=f"proto/{file.name}")]
    if head := source.paragraphs(_SYNTAX):
        lines.append(_prose(head) + "\n\n")
    lines.append(f"Package `{file.package}`.\n\n")
    for index, service in enumerate(file.service):
        lines += _write_service(source, service, (_SERVICE, index))
    for index, message in enumerate(file.message_type):
        lines += _write_message(source, message, (_MESSAGE, index), "")
    for index, enum in enumerate(file.enum_type):
        lines += _write_enum(source, enum, (_ENUM, index), "")
    lines += _write_extensions(source)
    return "".join(lines).rstrip("\n") + "\n"


def write_index(sources: list[Source]) -> str:
    """Write the list of all pages."""
    rows = []
    for source in sources:
        first = source.paragraphs(_SYNTAX).partition("\n\n")[0]
        rows.append(f"| [{_name(source.file)}]({_page_name(source.file)}) | {_cell(first)} |\n")
    return _HEAD + "".join(rows)


def write_pages() -> dict[Path, str]:
    """Write all pages, by where they belong."""
    sources = read_sources()
    pages = {FOLDER / _page_name(source.file): write_page(source) for source in sources}
    return {FOLDER / "README.md": write_index(sources), **pages}


def main() -> int:
    """Write or compare the pages; 1 when they differ."""
    pages = write_pages()
    old = set(FOLDER.glob("*.md"))
    if sys.argv[1:] == ["--check"]:
        wrong = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
        for path in [*wrong, *sorted(old - set(pages))]:
            print(
                f"error: {path.relative_to(ROOT)} is not what the protos say. Run: make docs", file=sys.stderr
            )
        return 1 if wrong or old - set(pages) else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in old - set(pages):
        path.unlink()
    for path, text in pages.items():
        path.write_text(text)
    return 0


def _write_service(
    source: Source, service: descriptor_pb2.ServiceDescriptorProto, place: tuple[int, ...]
) -> Iterator[str]:
    yield f"## Service {service.name}\n\n{_paragraph(source, place)}"
    for index, method in enumerate(service.method):
        options: Any = method.options
        access = options_pb2.Access.Name(options.Extensions[options_pb2.tool].access)
        takes, gives = _link(source, method.input_type), _link(source, method.output_type)
        yield f"### {method.name}\n\nTakes {takes}, gives {gives}{_say_access(access)}.\n\n"
        yield _paragraph(source, (*place, _MEMBER, index))


def _write_message(
    source: Source, message: descriptor_pb2.DescriptorProto, place: tuple[int, ...], scope: str
) -> Iterator[str]:
    if message.options.map_entry:
        return
    name = f"{scope}{message.name}"
    yield f"## {name}\n\n{_paragraph(source, place)}"
    if message.field:
        yield "| field | | type | |\n|---|---|---|---|\n"
    for index, item in enumerate(message.field):
        said = _cell(source.comments.get((*place, _MEMBER, index), ""))
        yield f"| `{item.name}` | {item.number} | {_type(source, message, item)} | {said} |\n"
    yield "\n" if message.field else ""
    for index, nested in enumerate(message.nested_type):
        yield from _write_message(source, nested, (*place, _NESTED, index), f"{name}.")
    for index, enum in enumerate(message.enum_type):
        yield from _write_enum(source, enum, (*place, _NESTED_ENUM, index), f"{name}.")


def _write_enum(
    source: Source, enum: descriptor_pb2.EnumDescriptorProto, place: tuple[int, ...], scope: str
) -> Iterator[str]:
    yield f"## {scope}{enum.name}\n\n{_paragraph(source, place)}| value | | |\n|---|---|---|\n"
    for index, value in enumerate(enum.value):
        said = _cell(source.comments.get((*place, _MEMBER, index), ""))
        yield f"| `{value.name}` | {value.number} | {said} |\n"
    yield "\n"


def _write_extensions(source: Source) -> Iterator[str]:
    if not source.file.extension:
        return
    yield "## Options\n\n| option | on | type | |\n|---|---|---|---|\n"
    for index, item in enumerate(source.file.extension):
        said = _cell(source.comments.get((_EXTENSION, index), ""))
        owner = item.extendee.rpartition(".")[2]
        name, type_name = f"{source.file.package}.{item.name}", _link(source, item.type_name)
        yield f"| `({name})` | {owner} | {type_name} | {said} |\n"
    yield "\n"


def _read_comments(file: descriptor_pb2.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    found = {}
    for location in file.source_code_info.location:
        # What stands above `syntax` speaks of the file.
        text = location.leading_comments or "\n\n".join(location.leading_detached_comments)
        if text:
            found[tuple(location.path)] = text
    return found


def _type(source: Source, message: descriptor_pb2.DescriptorProto, item: _Field) -> str:
    entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    entry = entries.get(item.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = (_type(source, entry, field) for field in entry.field)
        return f"map of {key} to {value}"
    word = _link(source, item.type_name) if item.type_name else _Field.Type.Name(item.type)[5:].lower()
    return f"repeated {word}" if item.label == _Field.LABEL_REPEATED else word


def _link(source: Source, type_name: str) -> str:
    """Name a type; one of this page as a link."""
    name = type_name.lstrip(".")
    inside = name.removeprefix(f"{source.file.package}.")
    if inside in _list_types(source.file):
        return f"[{inside}](#{inside.lower().replace('.', '')})"
    return f"`{inside}`"


def _list_types(file: descriptor_pb2.FileDescriptorProto) -> set[str]:
    names = {enum.name for enum in file.enum_type}
    for message in file.message_type:
        names.add(message.name)
        names |= {f"{message.name}.{nested.name}" for nested in message.nested_type}
        names |= {f"{message.name}.{nested.name}" for nested in message.enum_type}
    return names


def _paragraph(source: Source, place: tuple[int, ...]) -> str:
    text = source.paragraphs(*place)
    return f"{_prose(text)}\n\n" if text else ""


def _prose(text: str) -> str:
    """Keep what is indented, a table in a comment, as it was written."""
    blocks = [f"```text\n{block}\n```" if block.startswith("  ") else block for block in text.split("\n\n")]
    return "\n\n".join(blocks)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _say_access(access: str) -> str:
    return "" if access == "ACCESS_UNSPECIFIED" else f"; for: {access.lower().replace('_', ' ')}"


def _name(file: descriptor_pb2.FileDescriptorProto) -> str:
    return Path(file.name).stem


def _page_name(file: descriptor_pb2.FileDescriptorProto) -> str:
    return f"{_name(file)}.md"


if __name__ == "__main__":
    sys.exit(main())
