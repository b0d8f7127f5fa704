"""The SDK compares what an author wrote with the service's definition, when the handler is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from toolcrib.handler import Handler, testing
from toolcrib.v1 import registry_pb2

MOVE = "toolcrib.v1.Registry/MoveAlias"


def move(request: registry_pb2.MoveAliasRequest, context: Any) -> registry_pb2.MoveAliasResponse:
    return registry_pb2.MoveAliasResponse(left=request.version)


def answer_request(request: registry_pb2.MoveAliasRequest, context: Any) -> registry_pb2.MoveAliasRequest:
    return request


def answer_unsaid(request, context):
    return request


def test_gives_the_response_as_its_class() -> None:
    handler = Handler()
    handler.tool(MOVE, registry_pb2.MoveAliasRequest)(move)
    run = testing.run(handler, MOVE, registry_pb2.MoveAliasRequest(version="1.0.0"))
    assert run.result == registry_pb2.MoveAliasResponse(left="1.0.0")


def test_refuses_the_request_of_another_method() -> None:
    with pytest.raises(TypeError, match=r"takes toolcrib\.v1\.MoveAliasRequest, not .*GetVersionRequest"):
        Handler().tool(MOVE, registry_pb2.GetVersionRequest)(move)


def test_refuses_an_annotation_of_another_message() -> None:
    with pytest.raises(TypeError, match=r"returns toolcrib\.v1\.MoveAliasResponse, not .*MoveAliasRequest"):
        Handler().tool(MOVE, registry_pb2.MoveAliasRequest)(answer_request)


def test_takes_a_response_type_that_is_named_over_the_annotation() -> None:
    with pytest.raises(TypeError, match="returns"):
        Handler().tool(MOVE, registry_pb2.MoveAliasRequest, registry_pb2.Version)(move)


def test_refuses_a_method_that_the_service_does_not_have() -> None:
    with pytest.raises(ValueError, match="has no method 'MoveAlia'; it has: .*MoveAlias"):
        Handler().tool("toolcrib.v1.Registry/MoveAlia", registry_pb2.MoveAliasRequest)(move)


def test_finds_another_message_at_the_call_where_nothing_is_annotated() -> None:
    handler = Handler()
    handler.tool(MOVE, registry_pb2.MoveAliasRequest)(answer_unsaid)
    run = testing.run(handler, MOVE, registry_pb2.MoveAliasRequest())
    assert run.failure is not None
    assert (run.failure.code, run.failure.effect) == ("RESPONSE_INVALID", "unknown")


def test_takes_what_it_cannot_compare() -> None:
    handler = Handler()
    handler.tool("other.v1.Other/Run", registry_pb2.MoveAliasRequest)(answer_unsaid)
    run = testing.run(handler, "other.v1.Other/Run", registry_pb2.MoveAliasRequest(version="1"))
    assert run.result == registry_pb2.MoveAliasRequest(version="1").SerializeToString()
