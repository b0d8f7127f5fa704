"""The doctor's look at Vault: as the broker sees it, with a session of its own that is ended again."""

from __future__ import annotations

import asyncio

from broker.doctor.finding import Finding, bad, fine, warn
from broker.settings import Settings, SettingsInvalid
from broker.store.inspection import StateView
from broker.vault_wish import make_wish, open_session, read_needs
from credentials.bootstrap.review import review_as_broker
from credentials.errors import CredentialsError
from credentials.health import VaultHealth, VaultSilent, read_health

MAX_CLOCK_SECONDS = 10


async def check_vault(settings: Settings, view: StateView | None) -> list[Finding]:
    """Look at Vault, and at all that calls need of it."""
    vault = settings.vault
    try:
        health = await asyncio.to_thread(
            read_health, vault.address, ca_file=vault.ca_file, timeout_seconds=vault.timeout_seconds
        )
    except VaultSilent as error:
        return [bad("Vault", str(error), error.remedy)]
    if not health.initialized or health.sealed:
        what = "sealed" if health.initialized else "not initialized"
        return [bad("Vault", f"{vault.address} is {what}", "unseal it; until then no call can run")]
    findings = [fine("Vault", f"{health.version} at {vault.address}"), _check_clock(health)]
    try:
        return [*findings, *await _review(settings, view)]
    except SettingsInvalid:  # the files were examined before
        return findings


def _check_clock(health: VaultHealth) -> Finding:
    offset = health.clock_offset_seconds
    if abs(offset) > MAX_CLOCK_SECONDS:
        way = "ahead of" if offset > 0 else "behind"
        text = f"Vault's clock is {abs(offset):.0f} s {way} this machine's"
        return bad("clock", text, "let both follow the same time server")
    return fine("clock", f"within {MAX_CLOCK_SECONDS} s of Vault's")


async def _review(settings: Settings, view: StateView | None) -> list[Finding]:
    """Log in as the broker does, and see what it could mint."""
    wish = make_wish(settings, read_needs(view.manifests if view else ()))
    try:
        async with open_session(settings) as session:
            found = await session.ask("review", lambda api, token: review_as_broker(api, token, wish))
    except CredentialsError as error:
        return [bad("Vault", str(error), "compare it with docs/vault.md")]
    findings = [
        (warn if one.is_warning else bad)("Vault", f"{one.subject}: {one.problem}", one.remedy)
        for one in found
    ]
    if any(not one.is_warning for one in found):
        return findings
    text = f"the login, {len(wish.roles)} roles and {len(wish.tenants)} data keys are as they should be"
    return [fine("Vault", text), *findings]
