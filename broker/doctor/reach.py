"""The doctor's look at what tools may reach: targets, and the operator's patterns for each tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from broker.doctor.finding import Finding, bad, fine, warn
from broker.settings import Settings, Target
from broker.store.inspection import StateView
from broker.vault_wish import read_needs

CONNECT_SECONDS = 3


def check_tenants(settings: Settings, view: StateView | None) -> Iterator[Finding]:
    """Compare each tenant's patterns with what its registered tools name."""
    needs = read_needs(view.manifests if view else ())
    for name, tenant in settings.tenants.items():
        own = [need for need in needs if need.tenant == name]
        targets = {target for need in own for target in need.targets}
        yield from _find_idle(name, "targets", tenant.targets, settings.targets)
        for need in own:
            for what, key, names, patterns in (
                ("target", "targets", need.targets, tenant.targets),
                ("Vault role", "vault_roles", [role for _, role in need.roles], tenant.vault_roles),
            ):
                yield from _find_refused(f"{name}: bundle {need.bundle}", what, key, names, patterns)
        if own:
            roles = {role for need in own for _, role in need.roles}
            yield from _find_idle(name, "vault_roles", tenant.vault_roles, roles)
        for target in sorted(targets - set(settings.targets)):
            text = f"a bundle names the target {target}, which is not declared"
            yield bad(f"tenant {name}", text, f"declare [targets.{target}]")


def _find_refused(
    subject: str, what: str, key: str, names: Iterable[str], patterns: Iterable[str]
) -> Iterator[Finding]:
    for name in sorted(set(names)):
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            text = f"names the {what} {name}, which no pattern of the tenant covers: its calls are refused"
            yield bad(f"tenant {subject}", text, f"add it to the tenant's {key}, or reject the version")


def _find_idle(tenant: str, key: str, patterns: Iterable[str], names: Iterable[str]) -> Iterator[Finding]:
    known = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            text = f'{key}: the pattern "{pattern}" covers nothing that there is'
            yield warn(f"tenant {tenant}", text, "correct or remove it")


async def check_target(name: str, target: Target) -> list[Finding]:
    """Open a connection to a target."""
    subject, where = f"target {name}", f"{target.host}:{target.port}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(target.host, target.port)
    except (OSError, TimeoutError, ValueError):  # the last: a host that is no name in the DNS, "a..b"
        return [bad(subject, f"{where} takes no connection", f"start it, or correct targets.{name}")]
    writer.close()
    return [fine(subject, f"{where} takes connections")]
