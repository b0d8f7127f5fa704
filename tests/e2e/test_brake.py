"""The brake on real parts: what runs is stopped, its logins are gone, and nothing new is let in until lifted.

Each attack has its control beside it: the same call goes through before the brake is set, or after it is
lifted, or with what the brake does not name.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from broker.client import Profile
from broker.model import CallRecord, Mark
from broker.settings import read_settings
from tests.e2e import grants
from tests.e2e.caller import ToolCaller
from tests.e2e.stack import Crib
from tests.e2e.test_writes import effects
from tests.parts.crib import wait_until_clean

READ, WRITE = "mischief.v1.Mischief/Read", "mischief.v1.Mischief/Write"
PROBED, ONCE = "mischief.v1.Mischief/WriteProbed", "mischief.v1.Mischief/WriteOnce"
SLOW_READ = {"how": "sleep", "seconds": 2}
SLOW_WRITE = {"how": "sleep_after", "seconds": 4}
FINE = {"how": "fine"}


class Desk:
    """An operator at the command line."""

    def __init__(self, crib: Crib) -> None:
        self.crib = crib

    def run(self, *words: object, name: str = "olga", tenant: str = "shop") -> Result:
        folder = self.crib.profile(name, "operator", tenant).cert_path.parent
        environment = {"TOOLCRIB_PROFILE": str(folder), "COLUMNS": "80"}
        return CliRunner().invoke(main, [str(word) for word in words], env=environment)

    def read(self, *words: object, name: str = "olga", tenant: str = "shop") -> Any:
        result = self.run(*words, "-o", "json", name=name, tenant=tenant)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def revoke(self, *words: object, name: str = "olga") -> Any:
        return self.read("leases", "revoke", *words, "--reason", "drill", name=name)

    def lift(self, brake_id: str, name: str = "olga") -> Any:
        return self.read("leases", "lift", brake_id, "--reason", "over", name=name)

    def lift_all(self) -> None:
        for brake in self.read("leases", "brakes", name="pia"):
            self.lift(brake["id"], name="pia")


@pytest.fixture
def desk(crib: Crib) -> Iterator[Desk]:
    crib.grant(grants.MISCHIEF)
    desk = Desk(crib)
    yield desk
    desk.lift_all()


def key() -> str:
    return uuid.uuid4().hex


def find(crib: Crib, call_id: str) -> CallRecord:
    record = crib.run(crib.stack.broker.store.get_call("shop", call_id))
    assert record is not None
    return record


def wait_for(reached: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def start(desk: Desk, agent: ToolCaller, method: str, arguments: Any, **options: Any) -> Any:
    """Begin a call, and wait until its tool may have begun: its login is alive."""
    path = desk.crib.stack.broker.path
    before = {trail.call_id for trail in path.running}
    future = agent.start(method, arguments, **options)
    wait_for(lambda: any(trail.ran and trail.call_id not in before for trail in path.running))
    return future


# --- what runs -------------------------------------------------------------------------------------------
def test_stops_an_agents_read_and_write_and_ends_their_logins(crib: Crib, desk: Desk):
    with crib.caller() as agent:
        read = start(desk, agent, READ, SLOW_READ)
        write = start(desk, agent, WRITE, SLOW_WRITE, key=key())
        halt = desk.revoke("--agent", "refund-desk")
        assert crib.stack.postgres.count_v_roles() == 0
        assert crib.stack.vault.list_leases() == []
        replies = agent.finish(READ, read), agent.finish(WRITE, write)
    assert [reply.reason for reply in replies] == ["CALL_STOPPED", "IN_DOUBT"]
    assert sorted(halt["stopped_calls"]) == sorted(reply.call_id for reply in replies)
    assert (halt["credentials_ended"], halt["credentials_not_confirmed"]) == (2, 0)


def test_keeps_the_records_of_stopped_calls_right(crib: Crib, desk: Desk):
    with crib.caller() as agent:
        read = start(desk, agent, READ, SLOW_READ)
        write = start(desk, agent, WRITE, SLOW_WRITE, key=key())
        desk.revoke("--tool", "mischief.v1.Mischief")
        replies = agent.finish(READ, read), agent.finish(WRITE, write)
    failed, doubtful = (find(crib, reply.call_id) for reply in replies)
    assert (failed.state, doubtful.state) == ("FAILED", "IN_DOUBT")
    for record in (failed, doubtful):
        assert record.marks == (Mark.STOPPED,)
        assert all(lease.confirmed_dead for lease in record.leases)
        assert all(sandbox.gone for sandbox in record.sandboxes)


# --- what is new -----------------------------------------------------------------------------------------
def test_refuses_a_blocked_agent_on_its_open_channel_until_lifted(crib: Crib, desk: Desk):
    with crib.caller() as agent, crib.caller("somebody-else") as other:
        assert agent.call(READ, FINE).code == "OK"
        brake = desk.revoke("--agent", "refund-desk")["brake"]
        refused, ungranted = agent.call(READ, FINE), other.call(READ, FINE)
        desk.lift(brake)
        assert agent.call(READ, FINE).code == "OK"
    assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "CALLER_BLOCKED")
    assert "drill" in refused.message
    assert ungranted.reason == "NOT_GRANTED"  # the other one got past the brake


def test_refuses_a_blocked_agent_its_earlier_answer(crib: Crib, desk: Desk):
    used = key()
    with crib.caller() as agent:
        assert agent.call(WRITE, FINE, key=used).code == "OK"
        brake = desk.revoke("--agent", "refund-desk")["brake"]
        assert agent.call(WRITE, FINE, key=used).reason == "CALLER_BLOCKED"
        desk.lift(brake)
        assert agent.call(WRITE, FINE, key=used).replayed


def test_writes_no_record_of_whom_it_blocks(crib: Crib, desk: Desk):
    desk.revoke("--agent", "refund-desk")
    before = len(crib.run(crib.stack.broker.store.list_calls("shop", page_size=500)).items)
    with crib.caller() as agent:
        assert agent.call(READ, FINE).reason == "CALLER_BLOCKED"
    assert len(crib.run(crib.stack.broker.store.list_calls("shop", page_size=500)).items) == before


def test_holds_one_tool_back_and_no_other(crib: Crib, desk: Desk):
    brake = desk.revoke("--tool", READ)["brake"]
    with crib.caller() as agent:
        refused, other = agent.call(READ, FINE), agent.call(WRITE, FINE, key=key())
        desk.lift(brake)
        assert agent.call(READ, FINE).code == "OK"
    assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "BRAKE_SET")
    assert other.code == "OK"
    assert find(crib, refused.call_id).state == "REFUSED"


def test_holds_one_tenant_back_and_no_other(crib: Crib, desk: Desk):
    desk.revoke("--tenant")
    crib.grant(grants.MISCHIEF, tenant="rival")
    with crib.caller() as agent, crib.caller(tenant="rival") as rival:
        assert agent.call(READ, FINE).reason == "BRAKE_SET"
        assert rival.call(READ, FINE).code == "OK"


def test_holds_everything_back_for_a_platform_operator_only(crib: Crib, desk: Desk):
    refused = desk.run("leases", "revoke", "--all", "--reason", "drill")
    assert (refused.exit_code, "ROLE_REQUIRED" in refused.output) == (1, True)
    with crib.caller() as agent:
        assert agent.call(READ, FINE).code == "OK"
        brake = desk.revoke("--all", name="pia")["brake"]
        assert agent.call(READ, FINE).reason == "BRAKE_SET"
        assert "BRAKE_UNKNOWN" in desk.run("leases", "lift", brake, "--reason", "mine").output
        desk.lift(brake, name="pia")
        assert agent.call(READ, FINE).code == "OK"


# --- a stolen certificate --------------------------------------------------------------------------------
def test_blocks_a_stolen_certificate_and_not_its_agents_new_one(crib: Crib, desk: Desk):
    stolen = keep(crib.stack.profile("refund-desk"))
    with ToolCaller(stolen, crib.contracts) as thief:
        slow = start(desk, thief, READ, SLOW_READ)
        desk.read("agents", "block", "--certificate", stolen.cert_path, "--reason", "stolen")
        assert thief.finish(READ, slow).reason == "CALL_STOPPED"
        assert thief.call(READ, FINE).reason == "CALLER_BLOCKED"
        with ToolCaller(crib.stack.profile("refund-desk"), crib.contracts) as agent:
            assert agent.call(READ, FINE).code == "OK"
        desk.read("agents", "unblock", "--certificate", stolen.cert_path, "--reason", "a mistake")
        assert thief.call(READ, FINE).code == "OK"


def keep(profile: Profile) -> Profile:
    """Copy a profile away, so that the agent's next one does not replace it."""
    folder = profile.cert_path.parent.with_name(f"stolen-{key()}")
    folder.mkdir()
    for path in (profile.ca_path, profile.cert_path, profile.key_path):
        (folder / path.name).write_bytes(path.read_bytes())
    return Profile(profile.address, folder / "ca.pem", folder / "cert.pem", folder / "key.pem")


def test_blocks_a_stolen_certificate_of_a_person(crib: Crib, desk: Desk):
    stolen = crib.stack.profile("otto", "operator")
    assert desk.run("leases", "list", name="otto").exit_code == 0
    crib._profiles["otto", "operator", "shop"] = stolen
    desk.read("agents", "block", "--certificate", stolen.cert_path, "--reason", "stolen")
    said = desk.run("leases", "list", name="otto")
    assert (said.exit_code, "CALLER_BLOCKED" in said.output) == (1, True)


# --- what was in doubt -----------------------------------------------------------------------------------
def test_asks_no_probe_about_a_write_while_its_tool_is_held_back(crib: Crib, desk: Desk):
    used, before = key(), effects(crib)
    with crib.caller() as agent:
        write = start(desk, agent, PROBED, SLOW_WRITE, key=used)
        wait_for(lambda: effects(crib) > before)
        brake = desk.revoke("--tool", "mischief.v1.Mischief")["brake"]
        call_id = agent.finish(PROBED, write).call_id
        time.sleep(2)
        assert find(crib, call_id).state == "IN_DOUBT"
        desk.lift(brake)
        wait_for(lambda: find(crib, call_id).state == "SUCCEEDED")
        assert agent.call(PROBED, SLOW_WRITE, key=used).replayed


def test_never_sends_again_what_an_operator_stopped(crib: Crib, desk: Desk):
    before = effects(crib)
    with crib.caller() as agent:
        write = start(desk, agent, ONCE, {"how": "sleep_first", "seconds": 4}, key=key())
        desk.revoke("--agent", "refund-desk")
        call_id = agent.finish(ONCE, write).call_id
    wait_for(lambda: find(crib, call_id).state == "NEEDS_HUMAN")
    assert effects(crib) == before


# --- a broker that starts again --------------------------------------------------------------------------
def test_holds_over_a_restart(crib: Crib, desk: Desk):
    desk.revoke("--agent", "refund-desk")
    crib.run(crib.stack.restart_broker())
    crib.rest()
    with crib.caller() as agent:
        assert agent.call(READ, FINE).reason == "CALLER_BLOCKED"
        desk.lift_all()
        assert agent.call(READ, FINE).code == "OK"


# --- what is alive ---------------------------------------------------------------------------------------
def test_lists_what_is_alive_with_its_call(crib: Crib, desk: Desk):
    with crib.caller() as agent:
        slow = start(desk, agent, READ, SLOW_READ)
        (lease,) = desk.read("leases", "list", "--agent", "refund-desk")
        table = desk.run("leases", "list").stdout
        call_id = agent.finish(READ, slow).call_id
    assert (lease["call_id"], lease["tool"], lease["engine"]) == (call_id, READ, "database")
    assert lease["username"].startswith("v-")
    assert call_id in table
    assert all(len(line) <= 80 for line in table.splitlines())
    assert table.splitlines()[-1] == "1 credential: 1 live"


def test_flags_a_credential_that_will_not_end(crib: Crib, desk: Desk):
    with crib.caller() as agent:
        slow = start(desk, agent, READ, SLOW_READ)
        crib.stack.vault.seal()
        try:
            halt = desk.run("leases", "revoke", "--agent", "refund-desk", "--reason", "drill")
            table = desk.run("leases", "list").stdout
        finally:
            crib.stack.vault.unseal()
        agent.finish(READ, slow)
    assert (halt.exit_code, "may be alive" in halt.output) == (3, True)
    assert "NOT CONFIRMED" in table
    assert table.splitlines()[-1] == "1 credential: 1 NOT CONFIRMED"
    assert wait_until_clean(crib, 40) == {}


def test_shows_nothing_of_another_tenant(crib: Crib, desk: Desk):
    with crib.caller() as agent:
        slow = start(desk, agent, READ, SLOW_READ)
        rivals = desk.read("leases", "list", tenant="rival", name="rita")
        denied = desk.run("leases", "list", "--all-tenants", tenant="rival", name="rita")
        everything = desk.read("leases", "list", "--all-tenants", name="pia")
        agent.finish(READ, slow)
    assert (rivals, denied.exit_code, len(everything)) == ([], 1, 1)
    assert "ROLE_REQUIRED" in denied.output


def test_knows_its_platform_operators(crib: Crib):
    settings = read_settings(crib.stack.state_dir / "toolcrib.toml")
    assert settings.server.platform_operators == ("spiffe://toolcrib.dev/tenant/shop/operator/pia",)
