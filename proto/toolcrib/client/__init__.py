"""The thin client: call tools from Python with one key a call, safe retries, and errors as exceptions.

    with Client.from_profile("clients/refund-desk") as client:
        answer = client.invoke("shop.v1.Orders/LookupOrder", {"orderId": "A-1042"})

It needs grpcio and protobuf only. What is sent again, and when, stands in `toolcrib.client.rules`.
"""

from toolcrib.client.answers import Answer, CallReport, Tool, ToolDescription, Workflow
from toolcrib.client.async_client import AsyncClient
from toolcrib.client.attempts import make_key
from toolcrib.client.credentials import Certificates, Profile, ProfileInvalid, Token, read_profile
from toolcrib.client.errors import Failed, Refused, ToolcribError, Unreachable, Violation
from toolcrib.client.requests import CallTerms
from toolcrib.client.rules import rule_of
from toolcrib.client.sync_client import Client

__all__ = [
    "Answer",
    "AsyncClient",
    "CallReport",
    "CallTerms",
    "Certificates",
    "Client",
    "Failed",
    "Profile",
    "ProfileInvalid",
    "Refused",
    "Token",
    "Tool",
    "ToolDescription",
    "ToolcribError",
    "Unreachable",
    "Violation",
    "Workflow",
    "make_key",
    "read_profile",
    "rule_of",
]
