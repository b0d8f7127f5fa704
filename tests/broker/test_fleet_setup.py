"""The operator's classes become drivers; a weaker one only where it is allowed, and never quietly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from broker.fleet_setup import make_fleet, pool_terms
from broker.settings import Sandboxes, Settings, SettingsInvalid
from broker.store.records import Epoch
from sandboxes.pool_size import half_of_host_mib
from tests.sandboxes.yard import MemoryDriver

EPOCH = Epoch("test-installation", 3)


def settings(*, development: bool = False, **sandboxes: Any) -> Settings:
    server = {
        "certificate": Path("c"),
        "private_key": Path("k"),
        "client_ca": Path("ca"),
        "trust_domain": "example.org",
    }
    login = {"method": "approle", "role_id_file": Path("r"), "secret_id_file": Path("s")}
    return Settings.model_validate(
        {
            "environments": ["dev"],
            "run_dir": Path("run"),
            "development": development,
            "server": server,
            "state": {"path": Path("state"), "key_file": Path("key")},
            "vault": {"address": "https://vault.example.org", "login": login},
            "tenants": {"shop": {}},
            "sandboxes": Sandboxes.model_validate(sandboxes),
        }
    )


def names(classes: Mapping[str, str], **more: Any) -> dict[str, str]:
    return make_fleet(settings(classes=classes, **more), EPOCH).names


def test_uses_runc_where_nothing_is_said():
    assert make_fleet(settings(), EPOCH).names == {"container": "docker-runc"}


def test_gives_each_class_the_driver_that_the_operator_names():
    classes = {"container": "docker-runc", "strong": "docker-runsc"}
    assert names(classes) == classes


def test_makes_one_driver_for_two_classes_that_name_the_same():
    fleet = make_fleet(settings(classes={"container": "docker-runsc", "strong": "docker-runsc"}), EPOCH)
    assert fleet.drivers["container"] is fleet.drivers["strong"]


def test_refuses_a_weaker_driver():
    with pytest.raises(
        SettingsInvalid, match=r"sandboxes\.classes\.container: bubblewrap is for development"
    ):
        names({"container": "bubblewrap"}, image_dir=Path("images"))


def test_wants_to_know_where_a_weaker_driver_has_its_images():
    with pytest.raises(SettingsInvalid, match=r"sandboxes\.image_dir"):
        names({"container": "bubblewrap"}, allow_weak=True)


@pytest.mark.parametrize("allowing", [{"allow_weak": True}, {"development": True}])
def test_says_loudly_that_a_driver_is_weaker(allowing: dict[str, bool], caplog: pytest.LogCaptureFixture):
    classes = {"container": "bubblewrap"}
    assert names(classes, image_dir=Path("images"), **allowing) == {"container": "bubblewrap"}
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "weaker isolation")
    ]


def test_lets_a_test_make_what_runs_every_class():
    driver: Any = MemoryDriver()
    fleet = make_fleet(
        settings(classes={"container": "docker-runc", "strong": "docker-runsc"}), EPOCH, lambda *_: driver
    )
    assert fleet.names == {"container": "memory", "strong": "memory"}


def test_takes_half_of_the_hosts_memory_where_none_is_set():
    assert pool_terms(settings()).memory_mib == half_of_host_mib()
    assert pool_terms(settings(memory_mib=700)).memory_mib == 700


def test_hands_the_operators_terms_on():
    terms = pool_terms(
        settings(pool={"max_idle": 3, "idle_seconds": 20, "makers": 4, "max_wait_seconds": 0.5})
    )
    assert (terms.max_idle, terms.idle_seconds, terms.makers, terms.max_wait_seconds) == (3, 20.0, 4, 0.5)
