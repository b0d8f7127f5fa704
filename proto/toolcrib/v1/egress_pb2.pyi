from toolcrib.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ExplainEgressRequest(_message.Message):
    __slots__ = ("tool", "version", "method", "url", "headers", "agent", "environment")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TOOL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    tool: str
    version: str
    method: str
    url: str
    headers: _containers.ScalarMap[str, str]
    agent: str
    environment: str
    def __init__(self, tool: _Optional[str] = ..., version: _Optional[str] = ..., method: _Optional[str] = ..., url: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., agent: _Optional[str] = ..., environment: _Optional[str] = ...) -> None: ...

class ExplainEgressResponse(_message.Message):
    __slots__ = ("allowed", "why", "check", "target", "rule", "grant_rule", "grant_id", "opened", "injected", "injected_form", "dropped_headers")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    GRANT_RULE_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    INJECTED_FIELD_NUMBER: _ClassVar[int]
    INJECTED_FORM_FIELD_NUMBER: _ClassVar[int]
    DROPPED_HEADERS_FIELD_NUMBER: _ClassVar[int]
    allowed: bool
    why: str
    check: str
    target: str
    rule: str
    grant_rule: str
    grant_id: str
    opened: bool
    injected: str
    injected_form: str
    dropped_headers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, allowed: bool = ..., why: _Optional[str] = ..., check: _Optional[str] = ..., target: _Optional[str] = ..., rule: _Optional[str] = ..., grant_rule: _Optional[str] = ..., grant_id: _Optional[str] = ..., opened: bool = ..., injected: _Optional[str] = ..., injected_form: _Optional[str] = ..., dropped_headers: _Optional[_Iterable[str]] = ...) -> None: ...
