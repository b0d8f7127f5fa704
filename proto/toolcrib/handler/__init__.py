"""What a tool's handler needs: `Handler`, the context of a call, and `Failure`.

    from toolcrib.handler import Context, Failure, Handler
    from shop.v1 import orders_pb2

    handler = Handler()

    @handler.tool("shop.v1.Orders/LookupOrder", orders_pb2.LookupOrderRequest)
    async def lookup_order(request, context):
        login = context.credentials["orders_read"]
        ...
        return orders_pb2.LookupOrderResponse(...)

    if __name__ == "__main__":
        handler.run()

It needs protobuf only: a sandbox lives for one call, so every import is paid by that call.
"""

from toolcrib.handler.context import Context, Login, Target
from toolcrib.handler.failure import Failure
from toolcrib.handler.handler import Handler

__all__ = ["Context", "Failure", "Handler", "Login", "Target"]
