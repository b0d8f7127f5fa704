"""Serve one call of shop.v1.Orders, then end.

Run by the sandbox's init as `python3 -m handler` in the bundle's folder.
"""

from __future__ import annotations

from shop.v1 import orders_pb2

from toolcrib.handler import Handler

from .orders import lookup_order
from .refunds import create_refund_draft, issue_refund, lookup_refund

handler = Handler()
handler.tool("shop.v1.Orders/LookupOrder", orders_pb2.LookupOrderRequest)(lookup_order)
handler.tool("shop.v1.Orders/CreateRefundDraft", orders_pb2.CreateRefundDraftRequest)(create_refund_draft)
handler.tool("shop.v1.Orders/IssueRefund", orders_pb2.IssueRefundRequest)(issue_refund)
handler.tool("shop.v1.Orders/LookupRefund", orders_pb2.LookupRefundRequest)(lookup_refund)

if __name__ == "__main__":
    handler.run()
