"""What is wrong with an installation, and how to mend it: for `toolcrib doctor`.

Rules:
1. It only looks: no epoch is taken, no lock, no container or lease is ended. A broker may run meanwhile. The
   one thing that it makes is a sandbox for each driver, of an installation of its own, and gone after it.
2. One part that is missing does not keep the others from being examined.
3. What it cannot find out is a problem, not silence.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from broker.doctor.engine import check_engine
from broker.doctor.files import check_certificates, check_files
from broker.doctor.finding import Finding, Level
from broker.doctor.identity import check_issuer
from broker.doctor.isolation import check_isolation
from broker.doctor.reach import check_target, check_tenants
from broker.doctor.state import check_run_dir, look_at_state
from broker.doctor.vault import check_vault
from broker.settings import Settings

__all__ = ["Finding", "Level", "examine"]


async def examine(settings: Settings) -> list[Finding]:
    """Look at every part that a broker with these settings needs."""
    view, findings = look_at_state(settings)
    findings += [*check_files(settings), *check_certificates(settings, datetime.now(UTC))]
    findings += [*check_run_dir(settings, view), *check_tenants(settings, view)]
    parts = await asyncio.gather(
        check_engine(settings, view),
        check_isolation(settings, view),
        check_vault(settings, view),
        *(check_target(name, target) for name, target in settings.targets.items()),
        *(check_issuer(issuer) for issuer in settings.identity.issuers),
    )
    return [*findings, *(finding for part in parts for finding in part)]
