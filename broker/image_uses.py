"""Which images the registered versions of an installation use, of every tenant: read out of its state.

A profile shows the versions of one tenant, so no answer over it could say that an image is unused. The state
can; a broker may run on it meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from broker.store.database import connect
from broker.store.records import StoreError

_LIST_IMAGES = "SELECT tenant, bundle, version, image_id FROM versions WHERE state <> 'REJECTED'"


@dataclass(frozen=True, slots=True)
class ImageUses:
    """What an installation uses.

    Attributes:
        installation: Its id, as containers carry it.
        images: Names of versions, "tenant/bundle 1.0.0", by image id; rejected versions use none.
    """

    installation: str
    images: Mapping[str, frozenset[str]]


def read_image_uses(path: Path) -> ImageUses:
    """Read what an installation uses.

    Args:
        path: Its state.

    Raises:
        StoreError: It is not there, or cannot be read.
    """
    if not path.is_file():
        raise StoreError(f"{path}: is not there; `toolcrib serve` makes it at its first start")
    try:
        with closing(connect(path, writes=False)) as connection:
            rows = connection.execute(_LIST_IMAGES).fetchall()
            installation = connection.execute("SELECT id FROM installation").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    if installation is None:
        raise StoreError(f"{path}: no broker finished a start on it; start one")
    named = ((row["image_id"], f"{row['tenant']}/{row['bundle']} {row['version']}") for row in rows)
    return ImageUses(str(installation["id"]), join_uses(named))


def join_uses(named: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    """Join pairs of an image's id and the name of what uses it."""
    joined: dict[str, frozenset[str]] = {}
    for image_id, name in named:
        joined[image_id] = joined.get(image_id, frozenset()) | {name}
    return joined
