"""Which sandbox a call needs, and which may wait for calls, as registry and grants are now.

A waiting sandbox is bound to its tenant, its tool version and what the tenant's grants say about limits. When
one of these is not in force any more, the kind is not wanted, and what waits of it is ended.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from broker.catalogue import Catalogue
from broker.errors import Refused
from broker.grant_book import GrantBook
from broker.policy.grants import GrantSet
from sandboxes.nests import HttpWish
from sandboxes.pool_stock import Kind
from tools.catalogue import ToolVersion
from tools.manifest import Manifest


class Stock:
    """Names the kind of a call's sandbox, and judges whether a kind may wait."""

    def __init__(self, catalogue: Catalogue, grants: GrantBook) -> None:
        self._catalogue, self._grants = catalogue, grants
        self._terms: WeakKeyDictionary[GrantSet, dict[str, str | None]] = WeakKeyDictionary()

    def kind(self, tenant: str, version: ToolVersion) -> Kind:
        """Say what a call of a tool version needs."""
        manifest = version.manifest
        return Kind(
            tenant=tenant,
            tool=f"{version.bundle} {version.version}",
            digest=version.digest,
            isolation=manifest.isolation,
            image_id=version.image_id,
            command=tuple(manifest.image.command),
            limits=manifest.limits,
            has_nest=any(tool.targets for tool in manifest.tools.values()),
            http=find_http(manifest),
            terms=self._terms_of(tenant, version) or "",
        )

    def is_wanted(self, kind: Kind) -> bool:
        """Tell whether sandboxes of a kind may wait: usable, granted, and with the limits of today."""
        bundle, _, name = kind.tool.partition(" ")
        entry = self._catalogue.find(kind.tenant, bundle, name)
        if entry is None or not entry.usable or entry.version.digest != kind.digest:
            return False
        terms = self._terms_of(kind.tenant, entry.version)
        return terms is not None and terms == kind.terms

    def _terms_of(self, tenant: str, version: ToolVersion) -> str | None:
        """Name the limits that the grants set for any tool of a version; None where no grant names one."""
        try:
            grants = self._grants.of(tenant)
        except Refused:  # they are broken: nothing is allowed
            return None
        known = self._terms.setdefault(grants, {})
        if version.digest not in known:
            known[version.digest] = _find_terms(grants, version)
        return known[version.digest]


def find_http(manifest: Manifest) -> HttpWish | None:
    """Say what sandboxes of a bundle need for HTTP; None where none of its tools speaks it."""
    used = {name for tool in manifest.tools.values() for name in tool.targets}
    spoken = [name for name in sorted(used) if manifest.targets[name].kind == "http"]
    return HttpWish(tuple(name for name in spoken if manifest.targets[name].opaque)) if spoken else None


def _find_terms(grants: GrantSet, version: ToolVersion) -> str | None:
    permits = [
        policy
        for policy in grants.policies
        if policy.effect == "permit" and (policy.methods is None or policy.methods & version.contracts.keys())
    ]
    if not permits:
        return None
    return ";".join(f"{policy.id}={policy.terms.limits}" for policy in permits if policy.terms.limits)
