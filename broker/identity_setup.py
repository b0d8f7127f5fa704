"""Who callers are, put together from the settings: certificates always, tokens where there are issuers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime

from broker.brakes import Brakes
from broker.settings import Settings
from broker.stages.authenticate import Authenticator
from broker.tokens.verifier import Tokens


async def open_authenticator(
    settings: Settings, clock: Callable[[], datetime], brakes: Brakes, parts: AsyncExitStack
) -> Authenticator:
    """Make the first stage; what it keeps fresh is closed with `parts`.

    Raises:
        SettingsInvalid: A file of an issuer's keys cannot be used.
    """
    tokens = Tokens(settings.identity, clock) if settings.identity.issuers else None
    if tokens is not None:
        await parts.enter_async_context(tokens)
    return Authenticator(settings.server.trust_domain, settings.tenants, clock, brakes, tokens)
