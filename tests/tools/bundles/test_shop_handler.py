"""The shop's handler on a real PostgreSQL, with the rights that its Vault roles give and no others."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest

from tests.tools.bundles.shop import PASSWORD, Shop
from toolcrib.handler.v1 import handler_pb2
from tools.bundles.shop.dev.seed import DEMO_NOTE, ORDERS, seed_sql

pytestmark = pytest.mark.postgres

ORDER = "A-1042"


def refund(minor_units: int, currency: str = "EUR", order_id: str = ORDER, **more: str) -> dict[str, Any]:
    return {"orderId": order_id, "amount": {"minorUnits": str(minor_units), "currency": currency}, **more}


def draft(minor_units: int, **more: str) -> dict[str, Any]:
    return refund(minor_units, comment="it leaks", **more)


def key() -> str:
    return secrets.token_hex(8)


async def test_looks_an_order_up_with_customer_and_payments(shop: Shop) -> None:
    order = (await shop.ask("LookupOrder", {"orderId": ORDER}))["order"]
    assert order["state"] == "ORDER_STATE_PAID"
    assert order["total"] == {"minorUnits": "8990", "currency": "EUR"}
    assert order["customer"]["customerId"] == "C-42"
    assert [payment["method"] for payment in order["payments"]] == ["card:4242"]
    assert order["placed"].startswith("2026-03-")


async def test_hands_the_note_on_byte_for_byte(shop: Shop) -> None:
    answer = await shop.ask("LookupOrder", {"orderId": ORDER})
    assert answer["order"]["customer"]["note"] == DEMO_NOTE


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("LookupOrder", {"orderId": "Z-1"}),
        ("CreateRefundDraft", draft(1, order_id="Z-1")),
        ("IssueRefund", refund(1, order_id="Z-1")),
    ],
)
async def test_says_that_an_order_is_unknown(shop: Shop, name: str, request_: Mapping[str, Any]) -> None:
    failure = await shop.fail(name, request_)
    assert (failure.code, failure.effect) == ("ORDER_UNKNOWN", handler_pb2.EFFECT_NONE)


async def test_makes_one_draft_however_often_a_key_runs(shop: Shop) -> None:
    same = key()
    answers = [await shop.ask("CreateRefundDraft", draft(4000), same) for _ in range(2)]
    assert answers[0] == answers[1]
    assert shop.scalar("SELECT count(*) FROM refund_drafts") == "1"


async def test_makes_one_draft_when_a_key_runs_twice_at_once(shop: Shop) -> None:
    same = key()
    answers = await asyncio.gather(*(shop.ask("CreateRefundDraft", draft(4000), same) for _ in range(2)))
    assert answers[0] == answers[1]
    assert shop.scalar("SELECT count(*) FROM refund_drafts") == "1"


@pytest.mark.parametrize(("name", "make"), [("CreateRefundDraft", draft), ("IssueRefund", refund)])
async def test_refuses_a_key_that_holds_another_request(shop: Shop, name: str, make: Any) -> None:
    same = key()
    await shop.ask(name, make(4000), same)
    failure = await shop.fail(name, make(4100), same)
    assert (failure.code, failure.effect) == ("KEY_TAKEN", handler_pb2.EFFECT_NONE)


async def test_refuses_a_key_that_holds_another_account(shop: Shop) -> None:
    same = key()
    await shop.ask("IssueRefund", refund(4000), same)
    failure = await shop.fail("IssueRefund", refund(4000, payoutAccount="iban:NL91ABNA0417164300"), same)
    assert failure.code == "KEY_TAKEN"


@pytest.mark.parametrize(
    ("amount", "code"),
    [((8991, "EUR"), "AMOUNT_OVER_PAID"), ((0, "EUR"), "AMOUNT_ZERO"), ((1, "CHF"), "CURRENCY_OTHER")],
)
@pytest.mark.parametrize(
    ("name", "comment"), [("CreateRefundDraft", {"comment": "abc"}), ("IssueRefund", {})]
)
async def test_refuses_an_amount_that_was_not_paid(
    shop: Shop, name: str, comment: dict[str, str], amount: tuple[int, str], code: str
) -> None:
    failure = await shop.fail(name, {**refund(*amount), **comment})
    assert (failure.code, failure.effect) == (code, handler_pb2.EFFECT_NONE)
    assert shop.scalar("SELECT count(*) FROM refunds WHERE order_id = 'A-1042'") == "0"
    assert shop.scalar("SELECT count(*) FROM refund_drafts") == "0"


async def test_issues_a_part_and_leaves_the_order_paid(shop: Shop) -> None:
    answer = await shop.ask("IssueRefund", refund(4000))
    assert answer["amount"] == {"minorUnits": "4000", "currency": "EUR"}
    assert answer["refundId"].startswith("R-")
    assert shop.scalar("SELECT state FROM orders WHERE order_id = 'A-1042'") == "PAID"


async def test_marks_the_order_when_all_of_it_is_refunded(shop: Shop) -> None:
    await shop.ask("IssueRefund", refund(8000), key())
    await shop.ask("IssueRefund", refund(990), key())
    assert shop.scalar("SELECT state FROM orders WHERE order_id = 'A-1042'") == "REFUNDED"


async def test_issues_once_however_often_a_key_runs(shop: Shop) -> None:
    same = key()
    answers = [await shop.ask("IssueRefund", refund(4000), same) for _ in range(2)]
    assert answers[0] == answers[1]
    assert shop.scalar("SELECT sum(minor_units) FROM refunds WHERE order_id = 'A-1042'") == "4000"


async def test_gives_a_payment_back_once_when_two_refunds_race(shop: Shop) -> None:
    frames = await asyncio.gather(*(shop.run("IssueRefund", refund(5000), key()) for _ in range(3)))
    codes = sorted(frame.failure.code for frame in frames)
    assert codes == ["", "AMOUNT_OVER_PAID", "AMOUNT_OVER_PAID"]
    assert shop.scalar("SELECT sum(minor_units) FROM refunds WHERE order_id = 'A-1042'") == "5000"


async def test_finds_a_refund_by_its_key(shop: Shop) -> None:
    done = key()
    issued = await shop.ask("IssueRefund", refund(100), done)
    found = await shop.ask("LookupRefund", {"idempotencyKey": done})
    assert found == {"issued": True, "refund": issued}
    assert await shop.ask("LookupRefund", {"idempotencyKey": key()}) == {}


async def test_says_unknown_when_the_answer_to_a_commit_is_lost(shop: Shop) -> None:
    shop.relay.cut_at = b"COMMIT;"
    failure = await shop.fail("IssueRefund", refund(100), "lost")
    assert (failure.code, failure.effect) == ("COMMIT_UNKNOWN", handler_pb2.EFFECT_UNKNOWN)
    assert shop.scalar("SELECT count(*) FROM refunds WHERE idempotency_key = 'lost'") == "1"


async def test_says_none_when_the_connection_is_lost_before(shop: Shop) -> None:
    shop.relay.cut_at = b"INSERT"
    failure = await shop.fail("IssueRefund", refund(100), "lost")
    assert (failure.effect, failure.retryable) == (handler_pb2.EFFECT_NONE, True)
    assert shop.scalar("SELECT count(*) FROM refunds WHERE idempotency_key = 'lost'") == "0"


async def test_says_unavailable_when_there_is_no_socket(shop: Shop) -> None:
    (shop.relay.socket_dir / ".s.PGSQL.5432").unlink()
    failure = await shop.fail("LookupOrder", {"orderId": ORDER})
    assert (failure.code, failure.retryable) == ("DATABASE_UNAVAILABLE", True)


async def test_gives_up_within_its_time_when_the_order_is_locked(shop: Shop) -> None:
    owner = await asyncpg.connect(
        host=str(shop.relay.socket_dir), user="shop-orders-refund", password=PASSWORD, database="shop"
    )
    async with owner.transaction():
        await owner.execute("SELECT state FROM orders WHERE order_id = $1 FOR UPDATE", ORDER)
        failure = await shop.fail("IssueRefund", refund(100), remaining_seconds=1.5)
    await owner.close()
    assert (failure.code, failure.effect) == ("DATABASE_BUSY", handler_pb2.EFFECT_NONE)
    assert failure.retryable


FORBIDDEN = [
    ("shop-orders-read", "SELECT email FROM customers"),
    ("shop-orders-read", "SELECT provider_token FROM payments"),
    ("shop-orders-read", "UPDATE orders SET state = 'REFUNDED'"),
    ("shop-orders-draft", "SELECT note FROM orders"),
    ("shop-orders-draft", "UPDATE refund_drafts SET minor_units = 1"),
    ("shop-orders-draft", "INSERT INTO refunds (order_id) VALUES ('A-1042')"),
    ("shop-orders-refund", "UPDATE orders SET total_minor = 1"),
    ("shop-orders-refund", "DELETE FROM refunds"),
    ("shop-orders-refund", "SELECT note FROM orders"),
]


@pytest.mark.parametrize(("role", "sql"), FORBIDDEN)
async def test_gives_each_login_its_own_columns_only(shop: Shop, role: str, sql: str) -> None:
    login = await asyncpg.connect(
        host=str(shop.relay.socket_dir), user=role, password=PASSWORD, database="shop"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await login.execute(sql)
    await login.close()


def test_seeds_the_same_shop_at_every_run(shop_postgres: Any) -> None:
    assert seed_sql() == seed_sql()
    assert int(shop_postgres.query("SELECT count(*) FROM orders")[0][0]) == ORDERS


def test_seeds_payments_that_add_up(shop_postgres: Any) -> None:
    wrong = shop_postgres.query(
        "SELECT count(*) FROM orders o WHERE total_minor <> "
        "(SELECT sum(minor_units) FROM payments p WHERE p.order_id = o.order_id)"
    )
    assert wrong == [["0"]]
