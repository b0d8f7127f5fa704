"""Registration as the broker does it, on a store in memory; whoever calls is the author."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from broker.api.registry_service import RegistryService
from broker.catalogue import Catalogue
from broker.model import Caller, Role
from broker.store.memory import MemoryStore
from broker.store.records import VersionRow
from tests.tools.protos import IMAGE_ID
from toolcrib.v1 import registry_pb2
from tools.source import compile_protos, read_manifest_text

AUTHOR = Caller("shop", "ada", Role.AUTHOR, "", "spiffe://toolcrib/tenant/shop/author/ada")
Handler = Callable[[Any, Any], Awaitable[Any]]


class OpenDoor:
    """Lets every request in; who may register is not what these tests ask."""

    def guard(self, _path: str, handler: Handler) -> Handler:
        return handler

    guard_reading = guard


class WillingVetting:
    """Has every credential."""

    async def find_violations(self, _tenant: str, _version: object) -> list[Any]:
        return []


class Registration:
    """Registers bundles, and tells what is registered."""

    def __init__(self) -> None:
        self._store = MemoryStore()
        door: Any = OpenDoor()
        vetting: Any = WillingVetting()
        grants: Any = None  # asked only when an alias moves
        catalogue = Catalogue(self._store)
        self._service = RegistryService(
            door, catalogue, grants, self._store, vetting, lambda: datetime.now(UTC)
        )

    async def register(self, folder: Path) -> None:
        """Do what `tools register` does, but for the image.

        Raises:
            BundleInvalid: It cannot be packed.
            Refused: The broker refuses it.
        """
        descriptor_set, manifest = compile_protos(folder), read_manifest_text(folder)
        await self._service.RegisterTool(
            registry_pb2.RegisterToolRequest(
                descriptor_set=descriptor_set, manifest_yaml=manifest, image_id=IMAGE_ID
            ),
            AUTHOR,
        )

    async def versions(self) -> list[VersionRow]:
        """List what is registered."""
        return list((await self._store.list_versions("shop")).items)
