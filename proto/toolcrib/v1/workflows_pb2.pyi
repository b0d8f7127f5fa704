import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from toolcrib.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OpenWorkflowRequest(_message.Message):
    __slots__ = ("agent", "environment", "description", "ttl_seconds")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    agent: str
    environment: str
    description: str
    ttl_seconds: int
    def __init__(self, agent: _Optional[str] = ..., environment: _Optional[str] = ..., description: _Optional[str] = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class OpenWorkflowResponse(_message.Message):
    __slots__ = ("handle", "workflow_id", "expires")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    handle: str
    workflow_id: str
    expires: _timestamp_pb2.Timestamp
    def __init__(self, handle: _Optional[str] = ..., workflow_id: _Optional[str] = ..., expires: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetWorkflowRequest(_message.Message):
    __slots__ = ("workflow_id", "agent", "environment")
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    workflow_id: str
    agent: str
    environment: str
    def __init__(self, workflow_id: _Optional[str] = ..., agent: _Optional[str] = ..., environment: _Optional[str] = ...) -> None: ...

class GetWorkflowResponse(_message.Message):
    __slots__ = ("workflow",)
    WORKFLOW_FIELD_NUMBER: _ClassVar[int]
    workflow: Workflow
    def __init__(self, workflow: _Optional[_Union[Workflow, _Mapping]] = ...) -> None: ...

class Workflow(_message.Message):
    __slots__ = ("id", "tenant", "agent", "environment", "description", "opened_by", "opened", "expires", "labels", "holds_untrusted")
    ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    OPENED_BY_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    HOLDS_UNTRUSTED_FIELD_NUMBER: _ClassVar[int]
    id: str
    tenant: str
    agent: str
    environment: str
    description: str
    opened_by: str
    opened: _timestamp_pb2.Timestamp
    expires: _timestamp_pb2.Timestamp
    labels: _containers.RepeatedCompositeFieldContainer[WorkflowLabel]
    holds_untrusted: bool
    def __init__(self, id: _Optional[str] = ..., tenant: _Optional[str] = ..., agent: _Optional[str] = ..., environment: _Optional[str] = ..., description: _Optional[str] = ..., opened_by: _Optional[str] = ..., opened: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., labels: _Optional[_Iterable[_Union[WorkflowLabel, _Mapping]]] = ..., holds_untrusted: bool = ...) -> None: ...

class WorkflowLabel(_message.Message):
    __slots__ = ("label", "call_id", "since")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    label: str
    call_id: str
    since: _timestamp_pb2.Timestamp
    def __init__(self, label: _Optional[str] = ..., call_id: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
