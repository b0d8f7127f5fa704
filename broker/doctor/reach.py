"""The doctor's look at what tools may reach: targets, and the operator's patterns for each tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from broker.doctor.finding import Finding, bad, fine, warn
from broker.settings import Settings
from broker.store.inspection import StateView
from broker.target_settings import Target, TargetUnusable
from broker.vault_wish import read_needs
from sandboxes.proxy.dialing import Dialer, DialFailed, Obstacle

CONNECT_SECONDS = 3
_REMEDIES = {
    Obstacle.HOST: "write targets.{name}.host in its one form",
    Obstacle.NAME: "correct targets.{name}.host, or this machine's name server",
    Obstacle.ADDRESS: "if that is meant, name the network in targets.{name}.networks",
    Obstacle.CONNECT: "start it, or correct targets.{name}",
    Obstacle.TLS: "name the CA that signed its certificate in targets.{name}.ca_file, or correct its origins",
    Obstacle.TIME: "start it, or correct targets.{name}",
}


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
    """Open a connection to a target; to one of kind "http" as the HTTP proxy does."""
    if target.kind == "http":
        return await _check_http(name, target)
    subject, where = f"target {name}", f"{target.host}:{target.port}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(target.host, target.port)
    except (OSError, TimeoutError, ValueError):  # the last: a host that is no name in the DNS, "a..b"
        return [bad(subject, f"{where} takes no connection", f"start it, or correct targets.{name}")]
    writer.close()
    return [fine(subject, f"{where} takes connections")]


async def _check_http(name: str, target: Target) -> list[Finding]:
    """Resolve, judge the addresses, connect, and verify the certificate for each host of its origins."""
    subject, where = f"target {name}", f"{target.host}:{target.port}"
    try:
        declared = target.http(name)
    except TargetUnusable as error:
        return [bad(subject, str(error), "correct the file")]
    found = []
    for origin in target.all_origins:
        host = urlsplit(origin).hostname or ""
        dialing = Dialer().dial(declared, host, opened=target.is_tls, seconds=CONNECT_SECONDS)
        try:
            dialed = await dialing
        except DialFailed as error:
            found.append(bad(subject, f"{origin}: {error.text}", _REMEDIES[error.kind].format(name=name)))
            continue
        dialed.writer.close()
        how = "takes connections, and its certificate holds" if target.is_tls else "takes connections"
        found.append(fine(subject, f"{origin} at {where} {how}"))
    return found
