"""Says which extra a framework comes with, where it is not installed."""

from __future__ import annotations


def missing(extra: str, error: ImportError) -> ImportError:
    """Make the error of an adapter whose framework cannot be imported."""
    return ImportError(f'toolcrib.adapters needs a package ({error}): pip install "toolcrib[{extra}]"')
