"""Nothing of a minted login is anywhere in an agent, and the search would see it if it were.

The same search, in the same four places, first finds a canary that is planted there.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.agent_process import AgentProcess
from tests.e2e import grants
from tests.e2e.agents.programs import KINDS, open_program
from tests.e2e.agents.search import Search
from tests.e2e.stack import Crib

CANARY = f"canary-{secrets.token_hex(12)}"
DRAFT: dict[str, Any] = {"orderId": "A-1042", "amount": {"minorUnits": "4000", "currency": "EUR"}}


def on_real_parts(test: Any) -> Any:
    for part in ("engine", "openbao", "postgres"):
        test = getattr(pytest.mark, part)(test)
    return test


@pytest.fixture
def minted(crib: Crib, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """User names and passwords of every login that the broker mints during the test, by place and kind."""
    vault = crib.stack.broker.vault
    mint, seen = vault.mint, dict[str, str]()

    async def note(*arguments: Any) -> Any:
        leases = await mint(*arguments)
        for lease in leases:
            seen[f"user name {len(seen)}"] = lease.username
            seen[f"password {len(seen)}"] = lease.secrets[0].reveal()
        return leases

    monkeypatch.setattr(vault, "mint", note)
    return seen


@asynccontextmanager
async def open_working_agent(
    kind: str, crib: Crib, folder: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[AgentProcess, list[Mapping[str, str]]]]:
    """An agent that has made calls that mint, and the bytes that crossed its wire."""
    crib.grant(grants.READ + grants.DRAFT)
    async with open_program(kind, crib, folder, environment) as agent:
        read = await agent.call("LookupOrder", {"orderId": "A-1042"}, wire=True)
        key = {"toolcrib-idempotency-key": f"{kind}-{folder.name}"}
        draft = await agent.call("CreateRefundDraft", {**DRAFT, "comment": CANARY}, metadata=key, wire=True)
        refused = await agent.call("IssueRefund", DRAFT, metadata=key, wire=True)
        assert [read.code, draft.code, refused.code] == ["OK", "OK", "PERMISSION_DENIED"]
        yield agent, [read.wire, draft.wire, refused.wire]


def search_everywhere(search: Search, pid: int, wires: list[Mapping[str, str]]) -> dict[str, set[str]]:
    return {
        "memory": search.in_memory(pid),
        "environment": search.in_environment(pid),
        "open files": search.in_open_files(pid),
        "wire": search.in_wire(wires),
    }


@on_real_parts
@pytest.mark.parametrize("kind", KINDS)
async def test_agent_never_has_a_minted_login(
    kind: str, crib: Crib, minted: dict[str, str], tmp_path: Path
) -> None:
    async with open_working_agent(kind, crib, tmp_path) as (agent, wires):
        assert len(minted) == 4
        found = search_everywhere(Search(minted), agent.pid, wires)
    assert found == {"memory": set(), "environment": set(), "open files": set(), "wire": set()}


@on_real_parts
@pytest.mark.parametrize("kind", KINDS)
async def test_search_finds_a_canary_in_each_place(kind: str, crib: Crib, tmp_path: Path) -> None:
    texts = {place: f"{CANARY}-{place}" for place in ("memory", "environment", "file")}
    (tmp_path / "file").write_text(texts["file"])
    async with open_working_agent(kind, crib, tmp_path, {"NOTE": texts["environment"]}) as (agent, wires):
        await agent.ask({"hold": texts["memory"]})
        await agent.ask({"open": str(tmp_path / "file")})
        search = Search({**texts, "wire": CANARY})
        found = search_everywhere(search, agent.pid, wires)
    assert "memory in raw" in found["memory"]
    assert "environment in raw" in found["environment"]
    assert "file in raw" in found["open files"]
    assert "wire in raw" in found["wire"]


@pytest.mark.parametrize("offset", [0, 1, 2])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_search_sees_base64_within_other_text(encode: Any, offset: int) -> None:
    text = "v-token-é?>ÿ-" + secrets.token_urlsafe(20)
    data = b"head " + encode(b"abc"[:offset] + text.encode() + b" and a tail") + b" tail"
    assert Search({"login": text}).in_bytes(data)


def test_search_sees_hex_of_either_case() -> None:
    search = Search({"login": "v-token-J"})
    assert search.in_bytes(b"x" + b"v-token-J".hex().encode()) == {"login in hex"}
    assert search.in_bytes(b"v-token-J".hex().upper().encode() + b"x") == {"login in HEX"}


def test_search_sees_the_three_parts_of_the_wire() -> None:
    search = Search({"login": "secret"})
    for part in ("request_hex", "answer_hex", "trailers_hex"):
        assert search.in_wire([{part: b"..secret..".hex()}]) == {"login in raw"}


def test_search_finds_nothing_where_nothing_is() -> None:
    assert Search({"login": "secret"}).in_bytes(b"something else") == set()
