"""The grants in force, by tenant: compiled once when they are applied or their tools change.

Rules:
1. Refreshes of a tenant run one after the other and each to its end, so that what was applied last is in
   force, also when who applied it hung up.
2. Until a refresh is done the grants before it decide; one that cannot be done leaves nothing allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from broker.catalogue import Catalogue
from broker.errors import Refused
from broker.policy.grants import GrantSet, GrantsInvalid, compile_grants
from broker.store.protocol import Store
from toolcrib.v1.reasons_pb2 import Reason


class GrantBook:
    """Keeps each tenant's compiled grants; a tenant without any is refused everything.

    Attributes:
        on_change: Called when other grants are in force.
        targets: Kinds of the operator's targets, by name.
    """

    def __init__(
        self, store: Store, catalogue: Catalogue, environments: tuple[str, ...], targets: Mapping[str, str]
    ) -> None:
        self.on_change: Callable[[], None] = _ignore_change
        self._store = store
        self._catalogue = catalogue
        self._environments = environments
        self.targets = targets
        self._sets: dict[str, GrantSet] = {}
        self._broken: dict[str, str] = {}
        self._refreshing: dict[str, asyncio.Lock] = {}

    @property
    def environments(self) -> tuple[str, ...]:
        """The broker's environments."""
        return self._environments

    @property
    def default_environment(self) -> str:
        """The environment of a call that names none."""
        return self._environments[0]

    async def load(self) -> None:
        """Compile every tenant's grants."""
        for tenant in await self._store.tenants():
            await self.refresh(tenant)

    async def refresh(self, tenant: str) -> None:
        """Compile a tenant's grants again. Grants that no longer check allow nothing until mended."""
        async with self._refreshing.setdefault(tenant, asyncio.Lock()):
            try:
                files = (await self._store.grant_files(tenant)).files
                compiled = await self.compile(tenant, dict(files))
            except GrantsInvalid as error:
                self._break(tenant, str(error))
            except BaseException as error:
                self._break(
                    tenant, f"they could not be read again ({type(error).__name__}); apply them again"
                )
                raise
            else:
                self._broken.pop(tenant, None)
                self._sets[tenant] = compiled
                self.on_change()

    def _break(self, tenant: str, why: str) -> None:
        self._sets.pop(tenant, None)
        self._broken[tenant] = why
        self.on_change()

    async def compile(self, tenant: str, files: dict[str, str]) -> GrantSet:
        """Compile files against the tenant's usable tools, without applying them.

        Raises:
            GrantsInvalid: With every fault.
        """
        contracts = self._catalogue.contracts(tenant)
        return await asyncio.to_thread(
            compile_grants, files, contracts, self._environments, tenant, known_targets=self.targets
        )

    def of(self, tenant: str) -> GrantSet:
        """Return a tenant's compiled grants.

        Raises:
            Refused: POLICY_FAILED, the grants in force no longer check against the tools.
        """
        if tenant in self._broken:
            raise Refused(
                Reason.REASON_POLICY_FAILED,
                f"the grants in force do not check against the tools, so nothing is allowed: "
                f"{self._broken[tenant]}",
            )
        if tenant not in self._sets:
            self._sets[tenant] = compile_grants({}, (), self._environments, tenant)
        return self._sets[tenant]

    def trusted_origins(self, tenant: str, environment: str) -> frozenset[str]:
        """Tell which hosts the tenant's registry trusts as a whole; none while its grants are broken.

        It is asked after a tool has run, when it is too late to refuse.
        """
        known = self._sets.get(tenant)
        return known.destinations(environment).origins if known is not None else frozenset()


def _ignore_change() -> None:
    """Nobody has to know."""
