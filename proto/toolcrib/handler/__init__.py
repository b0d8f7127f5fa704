"""What a tool's handler needs: `Handler`, the context of a call, and `Failure`.

    from toolcrib.handler import Context, Failure, Handler, Login
    from shop.v1 import orders_pb2

    handler = Handler()

    @handler.tool("shop.v1.Orders/LookupOrder", orders_pb2.LookupOrderRequest)
    async def lookup_order(request, context):
        login = context.credential("orders_read", Login)
        ...
        return orders_pb2.LookupOrderResponse(...)

    if __name__ == "__main__":
        handler.run()

It needs protobuf only: a sandbox lives for one call, so every import is paid by that call.
"""

from toolcrib.handler.context import Context, SignatureRefused, Target
from toolcrib.handler.credentials import (
    ClientCertificate,
    Credential,
    Injected,
    KeyValues,
    Login,
    Signed,
    Signer,
    SshLogin,
)
from toolcrib.handler.failure import Effect, Failure
from toolcrib.handler.handler import Handler

__all__ = [
    "ClientCertificate",
    "Context",
    "Credential",
    "Effect",
    "Failure",
    "Handler",
    "Injected",
    "KeyValues",
    "Login",
    "SignatureRefused",
    "Signed",
    "Signer",
    "SshLogin",
    "Target",
]
