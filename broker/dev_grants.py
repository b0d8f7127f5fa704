"""The grants that sample bundles propose for trying them: files to look at and to apply, applied by nobody.

A bundle may have `dev/grants.cedar` and `dev/destinations.toml`; `toolcrib dev` puts those of all its bundles
into one folder, because applying a folder replaces all of a tenant's grants.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

GRANTS, DESTINATIONS = "grants.cedar", "destinations.toml"


def write_grants(folder: Path, bundles: Sequence[Path]) -> None:
    """Write BUNDLE.cedar for each bundle that proposes some, and one destinations.toml.

    Args:
        folder: Made if it is not there.
        bundles: Folders of bundles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    destinations = []
    for bundle in bundles:
        grants, known = (bundle / "dev" / name for name in (GRANTS, DESTINATIONS))
        if grants.exists():
            (folder / f"{bundle.name}.cedar").write_text(grants.read_text())
        if known.exists():
            destinations.append(known.read_text())
    if destinations:
        (folder / DESTINATIONS).write_text("\n".join(destinations))
