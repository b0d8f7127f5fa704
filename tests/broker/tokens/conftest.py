"""An issuer whose keys are in a file, and an authenticator that takes its tokens; the clock stands still."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.brakes import Brakes
from broker.identity_settings import Identity
from broker.model import Caller
from broker.request import Peer
from broker.stages.authenticate import Authenticator
from broker.tokens.verifier import Tokens
from tests.parts.issuer import Claims, Mint

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ISSUER = "https://id.example.org/realm"


def make_peer(*tokens: str) -> Peer:
    return Peer(b"", tuple(f"Bearer {token}" for token in tokens))


def make_identity(**issuer: Any) -> Identity:
    """Make the settings of one issuer; a change to None leaves a key out."""
    given = {
        "issuer": ISSUER, "audiences": ["toolcrib"], "tenant": "shop", "agent_prefix": "id-", **issuer,
    }  # fmt: skip
    known = {name: value for name, value in given.items() if value is not None}
    return Identity.model_validate({"listen": "127.0.0.1:0", "issuers": [known]})


class Desk:
    """A mint, and the authenticator that knows its keys."""

    def __init__(self, folder: Path, **issuer: Any) -> None:
        self.mint = Mint(ISSUER, issuer.get("algorithms", ["ES256"])[0])
        self.file = folder / "keys.json"
        self.publish()
        self.now, self.ticks, self.brakes = NOW, 0.0, Brakes()
        identity = make_identity(jwks_file=self.file, **issuer)
        self.tokens = Tokens(identity, lambda: self.now, lambda: self.ticks)
        self.authenticate = Authenticator("example.org", ["shop"], lambda: self.now, self.brakes, self.tokens)

    def publish(self, text: str | None = None) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self.mint.key_set()) if text is None else text)
        new.replace(self.file)

    def claims(self, **changes: Any) -> Claims:
        return self.mint.claims(NOW.timestamp(), **changes)

    def token(self, **changes: Any) -> str:
        return self.mint.sign(self.claims(**changes))

    def ask(self, token: str) -> Caller:
        return self.authenticate(make_peer(token))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path, algorithms=["ES256", "RS256"])
    async with made.tokens:
        yield made
