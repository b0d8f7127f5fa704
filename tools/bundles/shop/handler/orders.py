"""Looks orders up: the customer's name and note, what was paid and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.v1 import orders_pb2

from toolcrib.handler import Failure

from .database import open_transaction

if TYPE_CHECKING:
    from toolcrib.handler import Context

_ORDER = """
    SELECT o.order_id, o.state, o.total_minor, o.currency, o.note, o.placed, c.customer_id, c.name
    FROM orders AS o JOIN customers AS c USING (customer_id)
    WHERE o.order_id = $1
"""
_PAYMENTS = """
    SELECT payment_id, minor_units, currency, method
    FROM payments WHERE order_id = $1 ORDER BY payment_id LIMIT 100
"""


async def lookup_order(
    request: orders_pb2.LookupOrderRequest, context: Context
) -> orders_pb2.LookupOrderResponse:
    """Answer one order with its customer and payments.

    Raises:
        Failure: ORDER_UNKNOWN.
    """
    async with open_transaction(context, "orders_read", readonly=True) as connection:
        row = await connection.fetchrow(_ORDER, request.order_id)
        if row is None:
            raise order_unknown(request.order_id)
        payments = await connection.fetch(_PAYMENTS, request.order_id)
    response = orders_pb2.LookupOrderResponse()
    order = response.order
    order.order_id = row["order_id"]
    order.state = orders_pb2.OrderState.Value(f"ORDER_STATE_{row['state']}")
    order.total.CopyFrom(orders_pb2.Money(minor_units=row["total_minor"], currency=row["currency"]))
    order.customer.customer_id = row["customer_id"]
    order.customer.name = row["name"]
    order.customer.note = row["note"]
    order.placed.FromDatetime(row["placed"])
    for payment in payments:
        amount = orders_pb2.Money(minor_units=payment["minor_units"], currency=payment["currency"])
        order.payments.add(payment_id=payment["payment_id"], amount=amount, method=payment["method"])
    return response


def order_unknown(order_id: str) -> Failure:
    """Say that there is no such order, and that nothing was changed."""
    return Failure("ORDER_UNKNOWN", f"There is no order {order_id}.", effect="none")
