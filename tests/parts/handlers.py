"""A bundle's handler loaded as in its image, to be run by `toolcrib.handler.testing` without a sandbox."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

from toolcrib.handler import Handler
from tools.source import compile_bundle


@contextmanager
def load_handler(bundle: Path, folder: Path, messages: str) -> Iterator[tuple[Handler, ModuleType]]:
    """Hold a bundle's handler and one module of its messages; both are forgotten afterwards.

    Args:
        bundle: Its folder.
        folder: An empty folder to unpack it into.
        messages: For example "files.v1.files_pb2".
    """
    for name, content in compile_bundle(bundle).files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    sys.path.insert(0, str(folder))
    try:
        yield import_module("handler.__main__").handler, import_module(messages)
    finally:
        sys.path.remove(str(folder))
        package = messages.partition(".")[0]
        for name in [name for name in sys.modules if name.partition(".")[0] in ("handler", package)]:
            del sys.modules[name]
