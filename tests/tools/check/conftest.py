"""Compiles equal protos once: most of these tests break the manifest, or ask twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.errors import BundleInvalid
from tools.source import compile_protos

Known = dict[tuple[tuple[str, str], ...], bytes | BundleInvalid]
_KNOWN: Known = {}


def compile_once(folder: Path) -> bytes:
    """Do what `compile_protos` does, or did for the same texts."""
    texts = sorted(
        (str(path.relative_to(folder)), path.read_text()) for path in folder.glob("proto/**/*.proto")
    )
    key = tuple(texts)
    if key not in _KNOWN:
        try:
            _KNOWN[key] = compile_protos(folder)
        except BundleInvalid as error:
            _KNOWN[key] = error
    found = _KNOWN[key]
    if isinstance(found, BundleInvalid):
        raise BundleInvalid(found.violations)
    return found


@pytest.fixture(autouse=True)
def _compiling_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.check.compile_protos", compile_once)
    monkeypatch.setattr("tests.tools.check.registry.compile_protos", compile_once)
