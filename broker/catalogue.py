"""Which tools there are now: the registered versions of every tenant, prepared for calls.

Versions never change, so one that is loaded stays loaded; what moves is state and aliases, and these are
read again from the store after every change that this broker makes.

A version that today's rules refuse (it was registered before they were) is left out: it cannot be run. Its
contracts are still known where they can be read, so that grants that name its tools go on to check: else one
old bundle would end all of a tenant's; and the names of its tools stay its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from broker.errors import Refused
from broker.store.protocol import Store
from broker.store.records import VersionRow
from toolcrib.v1.reasons_pb2 import Reason
from tools.catalogue import ToolVersion, load_contracts, load_version
from tools.contract import Contract
from tools.errors import BundleInvalid, ContractError

log = logging.getLogger(__name__)

STABLE = "stable"
USABLE = "USABLE"


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered version: what the store says of it, and its prepared contracts."""

    row: VersionRow
    version: ToolVersion

    @property
    def usable(self) -> bool:
        """True when another person reviewed and accepted it."""
        return self.row.state == USABLE


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A registered version that today's rules refuse.

    Attributes:
        contracts: By method; empty where not even these can be read.
    """

    row: VersionRow
    contracts: Mapping[str, Contract]


class Catalogue:
    """Finds the tool version of a call.

    Attributes:
        on_change: Called when a tenant's versions were read again.
    """

    def __init__(self, store: Store) -> None:
        self.on_change: Callable[[], None] = _ignore_change
        self._store = store
        self._entries: dict[str, dict[tuple[str, str], Entry]] = {}
        self._left_out: dict[str, dict[str, LeftOut]] = {}
        self._refreshing: dict[str, asyncio.Lock] = {}

    async def load(self) -> None:
        """Load every tenant's versions."""
        for tenant in await self._store.tenants():
            await self.refresh(tenant)

    async def refresh(self, tenant: str) -> None:
        """Read a tenant's versions again, one reader at a time: an older look never replaces a newer one."""
        async with self._refreshing.setdefault(tenant, asyncio.Lock()):
            rows = await self._read(tenant)
            loaded = {entry.row.digest: entry.version for entry in self.entries(tenant)}
            refused = self._left_out.get(tenant, {})
            new = [row for row in rows if row.digest not in loaded and row.digest not in refused]
            added, more = await asyncio.to_thread(_load, new)
            loaded |= added
            known = refused | more
            self._left_out[tenant] = {
                row.digest: replace(known[row.digest], row=row) for row in rows if row.digest in known
            }
            self._entries[tenant] = {
                (row.bundle, row.version): Entry(row, loaded[row.digest])
                for row in rows
                if row.digest in loaded
            }
        self.on_change()

    async def _read(self, tenant: str) -> list[VersionRow]:
        rows: list[VersionRow] = []
        token = ""
        while True:
            page = await self._store.list_versions(tenant, page_size=500, page_token=token)
            rows.extend(page.items)
            token = page.next_token
            if not token:
                return rows

    def entries(self, tenant: str) -> Iterable[Entry]:
        """All registered versions of a tenant, newest first."""
        return self._entries.get(tenant, {}).values()

    def registered(self, tenant: str) -> Iterable[tuple[VersionRow, Collection[str]]]:
        """All registered versions with the names of their methods, also those that are left out."""
        yield from ((entry.row, entry.version.contracts.keys()) for entry in self.entries(tenant))
        yield from ((one.row, one.contracts.keys()) for one in self._find_left_out(tenant))

    def find(self, tenant: str, bundle: str, version: str) -> Entry | None:
        """Find one registered version by its name."""
        return self._entries.get(tenant, {}).get((bundle, version))

    def stable(self, tenant: str) -> list[Entry]:
        """The versions that the alias "stable" names: what a tenant's agents see."""
        return [entry for entry in self.entries(tenant) if STABLE in entry.row.aliases and entry.usable]

    def contracts(self, tenant: str) -> list[Contract]:
        """The contracts of every usable version of a tenant, sorted by method: what grants can name."""
        usable = [entry.version.contracts for entry in self.entries(tenant) if entry.usable]
        usable += [one.contracts for one in self._find_left_out(tenant) if one.row.state == USABLE]
        found = [contract for contracts in usable for contract in contracts.values()]
        return sorted(found, key=lambda contract: contract.method)

    def find_method(self, tenant: str, method: str, version: str) -> ToolVersion | None:
        """Find the version of a tool by its name, usable or not: to read what was done with it."""
        for entry in self.entries(tenant):
            if entry.row.version == version and method in entry.version.contracts:
                return entry.version
        return None

    def is_usable(self, tenant: str, version: ToolVersion) -> bool:
        """True while a version may be run."""
        entry = self.find(tenant, version.bundle, version.version)
        return entry is not None and entry.usable

    def resolve(self, tenant: str, method: str, asked: str) -> ToolVersion:
        """Find the version of a tool: by name, by alias, or the one that "stable" names.

        Raises:
            Refused: TOOL_UNKNOWN, or TOOL_NOT_USABLE where it is registered but not reviewed.
        """
        having = [entry for entry in self.entries(tenant) if method in entry.version.contracts]
        self._refuse_left_out(tenant, method, asked)
        if not having:
            raise Refused(
                Reason.REASON_TOOL_UNKNOWN, f'the tenant has no tool "{method}"; ListTools names them'
            )
        wanted = asked or STABLE
        named = [e for e in having if wanted == e.row.version or wanted in e.row.aliases]
        if not named:
            waiting = [e.row.version for e in having if not e.usable]
            if not asked and waiting:
                raise not_usable(method, waiting[0])
            raise Refused(Reason.REASON_TOOL_UNKNOWN, f'"{method}" has no version or alias "{wanted}"')
        if not named[0].usable:
            raise not_usable(method, named[0].row.version)
        return named[0].version

    def _find_left_out(self, tenant: str) -> Iterable[LeftOut]:
        return self._left_out.get(tenant, {}).values()

    def _refuse_left_out(self, tenant: str, method: str, asked: str) -> None:
        """Say so where what was asked for is a version that is left out.

        Raises:
            Refused: TOOL_NOT_USABLE.
        """
        wanted = asked or STABLE
        for one in self._find_left_out(tenant):
            if method in one.contracts and (wanted == one.row.version or wanted in one.row.aliases):
                raise Refused(
                    Reason.REASON_TOOL_NOT_USABLE,
                    f"version {one.row.version} of {method} is left out: the rules of today refuse it, the "
                    "broker's log says which; register a new version",
                )

    def version_that_reads(
        self, tenant: str, version: ToolVersion, read: Callable[[ToolVersion], object]
    ) -> str | None:
        """Name another usable version of the same bundle that can read a request; None when none can."""
        for entry in self.entries(tenant):
            if entry.row.bundle != version.bundle or entry.row.version == version.version:
                continue
            try:
                read(entry.version)
            except (ContractError, KeyError):
                continue
            if entry.usable:
                return entry.row.version
        return None


def _ignore_change() -> None:
    """Nobody has to know."""


def _load(rows: Iterable[VersionRow]) -> tuple[dict[str, ToolVersion], dict[str, LeftOut]]:
    """Prepare versions, by digest; the second part are those that are left out."""
    loaded, left_out = {}, {}
    for row in rows:
        try:
            loaded[row.digest] = load_version(row.descriptor_set, row.manifest_yaml, row.image_id)
        except BundleInvalid as error:
            cause = f"{row.bundle} {row.version}: {error}"[:1000]
            log.error("version left out", extra={"tenant": row.tenant, "cause": cause})
            left_out[row.digest] = LeftOut(row, _read_contracts(row))
    return loaded, left_out


def _read_contracts(row: VersionRow) -> Mapping[str, Contract]:
    try:
        return load_contracts(row.descriptor_set)
    except BundleInvalid:
        return {}


def not_usable(method: str, version: str) -> Refused:
    """Say that a version may not be run now."""
    return Refused(
        Reason.REASON_TOOL_NOT_USABLE,
        f"version {version} of {method} is registered but not usable: another person has to review it",
    )
