"""One whole call: a tool in a container logs in to the directory, and nothing of it is left."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sandboxes.engine import Engine
from tests.e2e.rehearsal import Rehearsal, rehearse
from tests.ldap.conftest import make_play
from tests.ldap.slapd import STATIC_DN, TOOLS
from tests.parts.crib import CACHE_DIR

WHO, WHO_IS_REPORTER = "directory.v1.Directory/WhoAmI", "directory.v1.Directory/WhoIsReporter"


@pytest.fixture
async def rehearsal(vault, slapd, engine: Engine) -> AsyncIterator[Rehearsal]:
    async with rehearse(vault, make_play(slapd, engine, CACHE_DIR)) as running:
        yield running


async def test_logs_in_as_a_user_of_its_own_that_is_gone_after_the_call(rehearsal, slapd, vault) -> None:
    replies = [await rehearsal.call(WHO, {}) for _ in range(2)]
    names = [reply.result["name"] for reply in replies]
    assert all(name.startswith("dn:cn=v_") and name.endswith(TOOLS) for name in names)
    assert names[0] != names[1]
    assert (slapd.list_users(), slapd.list_readers(), vault.count_tokens()) == ([], [], 0)


async def test_logs_in_as_the_user_that_calls_share(rehearsal, vault) -> None:
    replies = [await rehearsal.call(WHO_IS_REPORTER, {}) for _ in range(2)]
    assert [reply.result for reply in replies] == [{"name": f"dn:{STATIC_DN}"}] * 2
    assert vault.count_tokens() == 0


async def test_says_which_login_in_the_record_and_no_password(rehearsal) -> None:
    await rehearsal.call(WHO, {})
    calls = (await rehearsal.broker.store.list_calls("crib")).items
    [lease] = calls[0].leases
    assert (lease.engine, lease.role, lease.username.endswith(TOOLS)) == ("ldap", "staff-guest", True)
    assert lease.confirmed_dead is not None
