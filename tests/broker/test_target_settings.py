"""What an operator may say of a target, and what the doctor finds out about one that speaks HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from broker.doctor.reach import check_target
from broker.target_settings import Target, TargetUnusable
from sandboxes.proxy.authority import make_authority
from tests.parts.web_origin import serving


def declare(**said: Any) -> Target:
    return Target.model_validate({"kind": "http", "host": "api.example", "port": 8080, **said})


def test_takes_what_an_operator_says_of_an_http_target(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(pem := make_authority().certificate_pem)
    said = {"origins": ["https://api.example"], "ca_file": "ca.pem", "networks": ["10.1.0.0/16"]}
    target = declare(**said, digests=True).resolve(tmp_path).http("api")
    assert (target.origins, target.is_tls, target.ca_pem) == (("https://api.example",), True, pem)
    assert (target.networks, target.digests) == (("10.1.0.0/16",), True)


@pytest.mark.parametrize(
    ("host", "port", "origin"),
    [
        ("api.example", 80, "http://api.example"),
        ("api.example", 8080, "http://api.example:8080"),
        ("2001:db8::7", 80, "http://[2001:db8::7]"),
    ],
)
def test_takes_a_targets_address_for_its_origin(host: str, port: int, origin: str) -> None:
    assert declare(host=host, port=port).http("api").origins == (origin,)


@pytest.mark.parametrize("kind", ["http", "postgresql", "tls"])
@pytest.mark.parametrize(
    "host",
    ["0x7f.1", "2130706433", "127.1", "a..b", "api.example.", "[::1]", "fe80::1%eth0", "user@host", "bücher"],
)
def test_refuses_a_host_that_could_be_another(kind: str, host: str) -> None:
    with pytest.raises(ValidationError, match="host"):
        declare(kind=kind, host=host)


@pytest.mark.parametrize(
    "origins",
    [
        ["https://API.example"],
        ["https://api.example/"],
        ["https://api.example/v1"],
        ["https://api.example:443"],
        ["https://user@api.example"],
        ["ftp://api.example"],
        ["api.example"],
        ["https://api.example", "http://api.example"],
        ["https://api.example", "https://api.example"],
        ["https://127.1"],
        ["https://*.example"],
    ],
)
def test_refuses_origins_that_are_not_in_one_form(origins: list[str]) -> None:
    with pytest.raises(ValidationError, match="origin|one stands twice"):
        declare(origins=origins)


def test_sends_nothing_in_clear_to_a_port_of_tls_unless_it_is_said() -> None:
    with pytest.raises(ValidationError, match="https://api.example"):
        declare(port=443)
    assert declare(port=443, origins=["http://api.example:443"]).is_tls is False


@pytest.mark.parametrize("host", ["Api.example", "api_1.example"])
def test_wants_origins_where_the_host_is_in_no_url(host: str) -> None:
    """Else each call that may reach it would fail."""
    with pytest.raises(ValidationError, match="origins: no URL can have the host"):
        declare(host=host, origins=[])
    assert declare(host=host, origins=["https://api.example"]).host == host


@pytest.mark.parametrize(
    "said",
    [
        {"origins": ["http://db.example"]},
        {"ca_file": "ca.pem"},
        {"networks": ["10.0.0.0/8"]},
        {"digests": True},
    ],
)
def test_keeps_what_is_http_s_from_other_kinds(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match='is for targets of kind "http" only'):
        declare(kind="postgresql", **said)


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/40", "here", "fe80::%1/64"])
def test_refuses_what_is_no_network(network: str) -> None:
    with pytest.raises(ValidationError, match="networks"):
        declare(networks=[network])


def test_refuses_a_ca_where_nothing_is_verified() -> None:
    with pytest.raises(ValidationError, match="nothing is verified"):
        declare(origins=["http://api.example"], ca_file="ca.pem")


@pytest.mark.parametrize("content", [None, "no certificate", "-----BEGIN CERTIFICATE-----\n" + "A" * 70_000])
def test_refuses_a_ca_file_that_is_none(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "ca.pem").write_text(content)
    target = declare(origins=["https://api.example"], ca_file="ca.pem").resolve(tmp_path)
    with pytest.raises(TargetUnusable, match="targets.api.ca_file"):
        target.http("api")


async def look(**said: Any) -> tuple[str, str]:
    [finding] = await check_target("api", declare(**said))
    return finding.level.name, f"{finding.text} {finding.remedy}"


async def test_doctor_verifies_an_https_target(tmp_path: Path) -> None:
    with serving(tls=True) as origin:
        assert origin.authority is not None
        (tmp_path / "ca.pem").write_text(origin.authority.certificate_pem)
        said = {"host": "127.0.0.1", "port": origin.server_port, "ca_file": tmp_path / "ca.pem"}
        good, text = await look(**said, origins=["https://api.example"])
        assert (good, "its certificate holds" in text) == ("OK", True)
        other, text = await look(**said, origins=["https://other.example"])
        assert (other, "ca_file" in text) == ("PROBLEM", True)


async def test_doctor_refuses_a_name_that_leads_to_this_machine() -> None:
    with serving() as origin:
        grade, text = await look(host="localhost", port=origin.server_port)
        assert (grade, "networks" in text) == ("PROBLEM", True)
        grade, _ = await look(host="localhost", port=origin.server_port, networks=["127.0.0.0/8", "::1/128"])
        assert grade == "OK", "the control"
