"""Whatever an answer lacks: nothing is left alive of what it was about, and nothing of it is told."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from credentials.dev_vault import DevVault
from credentials.errors import Cause, CredentialsUnavailable
from credentials.secret import Secret
from credentials.transport import AsyncTransport
from credentials.vault import SessionTuning, VaultSession
from tests.credentials.engines.conftest import NAMES, TAG, secret_path, wanted

GIVES = {**{name: secret_path(name, "a") for name in NAMES}, "transit": "toolcrib-sign/keys/transit-a"}


class SpoilingTransport(AsyncTransport):
    """Puts something odd in the place of each value of one answer."""

    odd: Any = None
    path = ""

    async def ask(
        self,
        method: str,
        path: str,
        token: Secret | None,
        body: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = True,
    ) -> dict[str, Any]:
        answer = await super().ask(method, path, token, body, repeatable=repeatable)
        if path != self.path or token is None:
            return answer
        return answer | {"data": dict.fromkeys(answer["data"], self.odd), "lease_duration": self.odd}


@pytest.fixture
async def session(engines_vault: DevVault) -> AsyncIterator[VaultSession]:
    tuning = SessionTuning(transport=SpoilingTransport)
    opened = VaultSession(engines_vault.address, engines_vault.login, tuning)
    await opened.open()
    yield opened
    await opened.close()


@pytest.mark.parametrize("odd", [None, "s3cret-of-vault", 7, [], {"a": "s3cret-of-vault"}], ids=repr)
@pytest.mark.parametrize("engine", NAMES)
async def test_ends_what_it_was_about_and_tells_nothing(session, engines_vault, monkeypatch, engine, odd):
    monkeypatch.setattr(SpoilingTransport, "odd", odd)
    assert await session.check(wanted(engine)) == []
    monkeypatch.setattr(SpoilingTransport, "path", GIVES[engine])
    with pytest.raises(CredentialsUnavailable) as caught:
        await session.mint(TAG, wanted(engine), 60)
    assert (caught.value.owed, engines_vault.count_tokens()) == ([], 0)
    assert caught.value.cause in (Cause.INVALID, Cause.ROLE_UNSAFE)
    said = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in said or engine == "transit"  # which tells the type of the key
    async with asyncio.timeout(10):
        while engines_vault.count_leases():
            await asyncio.sleep(0.05)
