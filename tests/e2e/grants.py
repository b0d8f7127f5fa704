"""Grants that the end-to-end tests apply."""

from __future__ import annotations

import uuid

READ = """
@id("read") @targets("orders-db")
permit (
    principal == Agent::"refund-desk",
    action in [Action::"shop.v1.Orders/LookupOrder", Action::"shop.v1.Orders/LookupRefund"],
    resource == Environment::"dev"
);
"""
DRAFT = """
@id("draft") @targets("orders-db")
permit (
    principal == Agent::"refund-desk",
    action == Action::"shop.v1.Orders/CreateRefundDraft",
    resource == Environment::"dev"
);
"""
REFUND = """
@id("refund-small") @targets("orders-db")
permit (
    principal == Agent::"refund-desk",
    action == Action::"shop.v1.Orders/IssueRefund",
    resource == Environment::"dev"
) when {
    context.request has amount &&
    context.request.amount.currency == "EUR" && context.request.amount.minor_units <= 5000
};
@id("refund-large") @targets("orders-db") @ask("refunds over 50.00 EUR need a person")
permit (
    principal == Agent::"refund-desk",
    action == Action::"shop.v1.Orders/IssueRefund",
    resource == Environment::"dev"
);
"""
MISCHIEF = """
@id("mischief") @targets("orders-db")
permit (
    principal == Agent::"refund-desk",
    action in [
        Action::"mischief.v1.Mischief/Read",
        Action::"mischief.v1.Mischief/Write",
        Action::"mischief.v1.Mischief/WriteProbed",
        Action::"mischief.v1.Mischief/WriteOnce",
        Action::"mischief.v1.Mischief/Cling"
    ],
    resource == Environment::"dev"
);
"""


def one_call_an_hour() -> str:
    """A grant with a budget of its own, whatever other tests used up."""
    return MISCHIEF.replace('@id("mischief")', f'@id("once-{uuid.uuid4().hex}") @limit_calls("1/1h")')


FAILING = (
    MISCHIEF
    + """
@id("overflows")
forbid (
    principal == Agent::"refund-desk",
    action == Action::"mischief.v1.Mischief/Read",
    resource == Environment::"dev"
) when { context.request.seconds * 9223372036854775807 > 10 };
"""
)
