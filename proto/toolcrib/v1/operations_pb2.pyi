from toolcrib.v1 import broker_pb2 as _broker_pb2
from toolcrib.v1 import options_pb2 as _options_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ResolveCallRequest(_message.Message):
    __slots__ = ("call_id", "happened", "result_json", "reason")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    HAPPENED_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    happened: bool
    result_json: str
    reason: str
    def __init__(self, call_id: _Optional[str] = ..., happened: bool = ..., result_json: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ResolveCallResponse(_message.Message):
    __slots__ = ("call",)
    CALL_FIELD_NUMBER: _ClassVar[int]
    call: _broker_pb2.Call
    def __init__(self, call: _Optional[_Union[_broker_pb2.Call, _Mapping]] = ...) -> None: ...

class EraseTenantRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class EraseTenantResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
