"""No form of a forbidden address is connected to; each of them would be without the measure.

Everything runs once, in a network of its own (`forbidden_lab.py`): the real proxy, a name server that says
what an attacker wants, listeners at every forbidden address, and captures of the packets.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.sandboxes.proxy.forbidden import (
    ALLOWED_ADDRESS,
    ALLOWED_NAME,
    ASKED,
    FORBIDDEN_IPV4,
    FORBIDDEN_IPV6,
    REDIRECTED,
    RESOLVED,
    name_of,
)

ROOT = Path(__file__).parents[3]
NAME_SERVER = "udp 127.0.0.1 53"
ALLOWED = f"tcp {ALLOWED_ADDRESS} 80"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip", "curl"))),
    reason="needs root, unshare, ip and curl: it makes a network of its own",
)


@pytest.fixture(scope="module")
def lab() -> dict[str, Any]:
    """What happened to each form."""
    program = [sys.executable, "-P", "-m", "tests.sandboxes.proxy.forbidden_lab"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    ran = subprocess.run(
        ["unshare", "--mount", "--net", *program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def test_knows_more_than_eighty_forms() -> None:
    assert len(ASKED) + len(RESOLVED) + len(REDIRECTED) >= 80


@pytest.mark.parametrize("form", ASKED)
def test_connects_nowhere_when_asked_for(lab: dict[str, Any], form: str) -> None:
    found = lab["asked"][form]
    assert (found["status"][:1], found["forbidden"]) == ("4", 0)
    assert found["check"] in {"URL", "TARGET", "REQUEST"}
    assert found["control"] >= 1, "without the proxy it leads nowhere: it is no attack"


@pytest.mark.parametrize("form", RESOLVED)
def test_connects_nowhere_when_a_declared_name_stands_for(lab: dict[str, Any], form: str) -> None:
    found = lab["resolved"][form]
    assert (found["status"], found["check"], found["forbidden"]) == ("403", "ADDRESS", 0)
    assert found["control"] >= 1, "with every network declared it leads nowhere: it is no attack"


@pytest.mark.parametrize("form", REDIRECTED)
def test_connects_nowhere_when_redirected_to(lab: dict[str, Any], form: str) -> None:
    found = lab["redirected"][form]
    assert (found["location"], found["status"][:1], found["forbidden"]) == (ASKED[form], "4", 0)
    assert found["control"] >= 1, "a client that follows without the proxy gets nowhere: it is no attack"


def test_refuses_a_name_that_is_rebound(lab: dict[str, Any]) -> None:
    first, second, without = lab["rebound"]
    assert (first["status"], second["status"], second["check"]) == ("200", "403", "ADDRESS")
    assert (first["forbidden"], second["forbidden"], without["forbidden"]) == (0, 0, 1)


def test_opens_no_blind_tunnel_to_a_forbidden_address(lab: dict[str, Any]) -> None:
    with_it, without = lab["opaque"]
    assert (with_it["tunnel"], with_it["forbidden"]) == ("403", 0)
    assert (without["tunnel"], without["forbidden"]) == ("200", 1)


def test_looks_up_declared_names_alone_and_each_once_for_a_connection(lab: dict[str, Any]) -> None:
    declared = {ALLOWED_NAME, "rebinding-form", "opaque-form", *map(name_of, RESOLVED)}
    assert {question.partition(" ")[0] for question in lab["looked_up"]} <= declared
    assert lab["looked_up"]["rebinding-form A"] == 2
    assert all(lab["looked_up"][f"{name_of(form)} A"] == 1 for form in RESOLVED)


def test_sends_packets_to_allowed_targets_alone(lab: dict[str, Any]) -> None:
    assert set(lab["capture"]) == {ALLOWED, NAME_SERVER}


def test_the_capture_sees_forbidden_packets_where_there_are_some(lab: dict[str, Any]) -> None:
    seen = {ip_address(line.split()[1]) for line in lab["capture_control"] if line.startswith("tcp ")}
    addresses = ("127.0.0.1", "::1", *FORBIDDEN_IPV4.values(), *FORBIDDEN_IPV6.values())
    assert set(map(ip_address, addresses)) <= seen


def test_lets_a_sandbox_send_packets_to_its_own_proxy_alone(lab: dict[str, Any]) -> None:
    sandbox = lab["sandbox"]
    assert sandbox["answers"][0] == 200
    assert not set(sandbox["answers"][1:]) - {400, 403}
    assert set(sandbox["seen"]) == {"tcp 127.0.0.1 3128"}
    assert set(sandbox["control"]) == {"tcp 127.0.0.1 3128", NAME_SERVER}
