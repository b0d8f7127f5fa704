"""Limits hold before any work, by tenant, and a place comes back on every way out."""

from __future__ import annotations

import math

import pytest

from broker.errors import Refused
from broker.model import Caller, Role
from broker.request import Peer, Request
from broker.settings import Tenant
from broker.stages.admit import Admission


def make_caller(tenant: str) -> Caller:
    return Caller(tenant, "a", Role.AGENT, "", f"spiffe://x/tenant/{tenant}/agent/a")


def make_request(size: int = 10) -> Request:
    return Request(Peer(b""), "shop.v1.Orders/LookupOrder", b"x" * size, math.inf)


@pytest.fixture
def admit():
    return Admission({"shop": Tenant(max_concurrent_calls=2, max_request_bytes=100), "rival": Tenant()}, 3)


def test_refuses_a_request_over_the_tenants_size(admit):
    with pytest.raises(Refused) as refusal, admit(make_caller("shop"), make_request(101)):
        pass
    assert refusal.value.reason_name == "REQUEST_TOO_LARGE"


def test_refuses_the_call_over_the_tenants_limit_and_says_when_to_retry(admit):
    shop = make_caller("shop")
    with admit(shop, make_request()), admit(shop, make_request()):
        with pytest.raises(Refused) as refusal, admit(shop, make_request()):
            pass
        assert refusal.value.reason_name == "TOO_MANY_CALLS"
        assert refusal.value.retry_after_seconds


def test_lets_another_tenant_in_while_one_is_full(admit):
    shop = make_caller("shop")
    with (
        admit(shop, make_request()),
        admit(shop, make_request()),
        admit(make_caller("rival"), make_request()),
    ):
        assert admit.calls_in_flight == 3


def test_refuses_what_is_over_the_brokers_limit(admit):
    rival = make_caller("rival")
    with admit(rival, make_request()), admit(rival, make_request()), admit(rival, make_request()):
        with pytest.raises(Refused, match="the broker has 3"), admit(make_caller("shop"), make_request()):
            pass


def test_gives_the_place_back_when_the_call_fails(admit):
    with pytest.raises(ZeroDivisionError), admit(make_caller("shop"), make_request()):
        raise ZeroDivisionError
    assert admit.calls_in_flight == 0
