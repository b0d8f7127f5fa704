"""Drafts refunds, issues them, and tells whether one was issued.

The broker runs an idempotency key once. The tables hold a key once as well, so that a second run of the same
key (after a crash, by hand) finds the first one's row instead of making another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shop.v1 import orders_pb2

from toolcrib.handler import Failure

from .database import open_transaction
from .orders import order_unknown

if TYPE_CHECKING:
    from toolcrib.handler import Context

_REFUNDABLE = """
    SELECT currency, sum(minor_units)::bigint AS minor_units FROM (
        SELECT currency, minor_units FROM payments WHERE order_id = $1
        UNION ALL SELECT currency, -minor_units FROM refunds WHERE order_id = $1
    ) AS moves GROUP BY currency
"""
_NEW_DRAFT = """
    INSERT INTO refund_drafts (order_id, minor_units, currency, comment, idempotency_key)
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING draft_id, order_id, minor_units, currency
"""
_DRAFT = "SELECT draft_id, order_id, minor_units, currency FROM refund_drafts WHERE idempotency_key = $1"
_NEW_REFUND = """
    INSERT INTO refunds (order_id, minor_units, currency, payout_account, idempotency_key)
    VALUES ($1, $2, $3, $4, $5)
    RETURNING refund_id, order_id, minor_units, currency, issued
"""
_ISSUED = """
    SELECT refund_id, order_id, minor_units, currency, issued FROM refunds WHERE idempotency_key = $1
"""
_REFUND = """
    SELECT refund_id, order_id, minor_units, currency, payout_account, issued
    FROM refunds WHERE idempotency_key = $1
"""


async def create_refund_draft(
    request: orders_pb2.CreateRefundDraftRequest, context: Context
) -> orders_pb2.CreateRefundDraftResponse:
    """Note that an order should be refunded: one row, however often it is asked with one key.

    Raises:
        Failure: ORDER_UNKNOWN, AMOUNT_ZERO, CURRENCY_OTHER, AMOUNT_OVER_PAID or KEY_TAKEN.
    """
    async with open_transaction(context, "orders_draft", readonly=False) as connection:
        row = await connection.fetchrow(_DRAFT, context.idempotency_key)
        if row is None:
            if not await connection.fetchval("SELECT 1 FROM orders WHERE order_id = $1", request.order_id):
                raise order_unknown(request.order_id)
            _check_amount(request.amount, await _refundable(connection, request.order_id))
            values = (request.order_id, request.amount.minor_units, request.amount.currency, request.comment)
            row = await connection.fetchrow(_NEW_DRAFT, *values, context.idempotency_key)
        if row is None:  # another run of this key came first
            row = await connection.fetchrow(_DRAFT, context.idempotency_key)
        _check_same(row, request)
    return orders_pb2.CreateRefundDraftResponse(
        draft_id=row["draft_id"], order_id=row["order_id"], amount=_money(row)
    )


async def issue_refund(
    request: orders_pb2.IssueRefundRequest, context: Context
) -> orders_pb2.IssueRefundResponse:
    """Issue a refund and move the order's state, in one transaction under the order's lock.

    Raises:
        Failure: ORDER_UNKNOWN, AMOUNT_ZERO, CURRENCY_OTHER, AMOUNT_OVER_PAID or KEY_TAKEN.
    """
    async with open_transaction(context, "orders_refund", readonly=False) as connection:
        # The lock makes refunds of one order wait for each other, so that two never share one payment.
        order = await connection.fetchval(
            "SELECT order_id FROM orders WHERE order_id = $1 FOR UPDATE", request.order_id
        )
        if order is None:
            raise order_unknown(request.order_id)
        row = await connection.fetchrow(_REFUND, context.idempotency_key)
        if row is None:
            row = await _add_refund(connection, request, context.idempotency_key)
        elif row["payout_account"] != request.payout_account:
            raise _key_taken()
        _check_same(row, request)
    return _issued(row)


async def lookup_refund(
    request: orders_pb2.LookupRefundRequest, context: Context
) -> orders_pb2.LookupRefundResponse:
    """Tell whether a refund was issued under the key that the tool got with the write, and which."""
    async with open_transaction(context, "orders_read", readonly=True) as connection:
        row = await connection.fetchrow(_ISSUED, request.idempotency_key)
    if row is None:
        return orders_pb2.LookupRefundResponse(issued=False)
    return orders_pb2.LookupRefundResponse(issued=True, refund=_issued(row))


async def _add_refund(connection: Any, request: orders_pb2.IssueRefundRequest, key: str) -> Any:
    refundable = await _refundable(connection, request.order_id)
    _check_amount(request.amount, refundable)
    amount = request.amount
    row = await connection.fetchrow(
        _NEW_REFUND, request.order_id, amount.minor_units, amount.currency, request.payout_account, key
    )
    if amount.minor_units == sum(refundable.values()):
        await connection.execute("UPDATE orders SET state = 'REFUNDED' WHERE order_id = $1", request.order_id)
    return row


async def _refundable(connection: Any, order_id: str) -> dict[str, int]:
    """Return what was paid and not refunded yet, in minor units by currency."""
    rows = await connection.fetch(_REFUNDABLE, order_id)
    return {row["currency"]: row["minor_units"] for row in rows}


def _check_amount(amount: orders_pb2.Money, refundable: dict[str, int]) -> None:
    if amount.minor_units == 0:
        raise Failure("AMOUNT_ZERO", "A refund needs an amount above zero.", effect="none")
    if amount.currency not in refundable:
        paid = " or ".join(sorted(refundable)) or "no currency"
        raise Failure(
            "CURRENCY_OTHER", f"The order was paid in {paid}, not in {amount.currency}.", effect="none"
        )
    left = refundable[amount.currency]
    if amount.minor_units > left:
        raise Failure(
            "AMOUNT_OVER_PAID",
            f"At most {left} minor units of {amount.currency} can still be refunded; "
            f"asked for {amount.minor_units}.",
            effect="none",
        )


def _check_same(row: Any, request: Any) -> None:
    """Refuse a key whose row says something else than the request."""
    asked = (request.order_id, request.amount.minor_units, request.amount.currency)
    if (row["order_id"], row["minor_units"], row["currency"]) != asked:
        raise _key_taken()


def _issued(row: Any) -> orders_pb2.IssueRefundResponse:
    response = orders_pb2.IssueRefundResponse(
        refund_id=row["refund_id"], order_id=row["order_id"], amount=_money(row)
    )
    response.issued.FromDatetime(row["issued"])
    return response


def _key_taken() -> Failure:
    return Failure("KEY_TAKEN", "The idempotency key holds another refund; use a new key.", effect="none")


def _money(row: Any) -> orders_pb2.Money:
    return orders_pb2.Money(minor_units=row["minor_units"], currency=row["currency"])
