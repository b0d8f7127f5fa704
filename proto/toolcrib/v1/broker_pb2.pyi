import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from toolcrib.v1 import options_pb2 as _options_pb2
from toolcrib.v1 import reasons_pb2 as _reasons_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CallState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CALL_STATE_UNSPECIFIED: _ClassVar[CallState]
    CLAIMED: _ClassVar[CallState]
    RESERVED: _ClassVar[CallState]
    DISPATCHED: _ClassVar[CallState]
    SUCCEEDED: _ClassVar[CallState]
    FAILED: _ClassVar[CallState]
    IN_DOUBT: _ClassVar[CallState]
    REFUSED: _ClassVar[CallState]
    NEEDS_HUMAN: _ClassVar[CallState]
CALL_STATE_UNSPECIFIED: CallState
CLAIMED: CallState
RESERVED: CallState
DISPATCHED: CallState
SUCCEEDED: CallState
FAILED: CallState
IN_DOUBT: CallState
REFUSED: CallState
NEEDS_HUMAN: CallState

class ListToolsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListToolsResponse(_message.Message):
    __slots__ = ("tools", "next_page_token")
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tools: _containers.RepeatedCompositeFieldContainer[Tool]
    next_page_token: str
    def __init__(self, tools: _Optional[_Iterable[_Union[Tool, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Tool(_message.Message):
    __slots__ = ("name", "description", "effect", "reach", "scope", "version", "bundle")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    REACH_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    effect: _options_pb2.Effect
    reach: _options_pb2.Reach
    scope: str
    version: str
    bundle: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., effect: _Optional[_Union[_options_pb2.Effect, str]] = ..., reach: _Optional[_Union[_options_pb2.Reach, str]] = ..., scope: _Optional[str] = ..., version: _Optional[str] = ..., bundle: _Optional[str] = ...) -> None: ...

class DescribeToolRequest(_message.Message):
    __slots__ = ("name", "version", "strict_schema")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STRICT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    strict_schema: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., strict_schema: bool = ...) -> None: ...

class DescribeToolResponse(_message.Message):
    __slots__ = ("tool", "request_json_schema", "response_json_schema", "client_descriptor_set")
    TOOL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    CLIENT_DESCRIPTOR_SET_FIELD_NUMBER: _ClassVar[int]
    tool: Tool
    request_json_schema: str
    response_json_schema: str
    client_descriptor_set: bytes
    def __init__(self, tool: _Optional[_Union[Tool, _Mapping]] = ..., request_json_schema: _Optional[str] = ..., response_json_schema: _Optional[str] = ..., client_descriptor_set: _Optional[bytes] = ...) -> None: ...

class InvokeRequest(_message.Message):
    __slots__ = ("tool", "arguments_json", "idempotency_key", "environment", "tool_version", "workflow")
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    TOOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    WORKFLOW_FIELD_NUMBER: _ClassVar[int]
    tool: str
    arguments_json: str
    idempotency_key: str
    environment: str
    tool_version: str
    workflow: str
    def __init__(self, tool: _Optional[str] = ..., arguments_json: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., environment: _Optional[str] = ..., tool_version: _Optional[str] = ..., workflow: _Optional[str] = ...) -> None: ...

class InvokeResponse(_message.Message):
    __slots__ = ("call_id", "result_json", "replayed", "labels")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    result_json: str
    replayed: bool
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, call_id: _Optional[str] = ..., result_json: _Optional[str] = ..., replayed: bool = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class GetCallRequest(_message.Message):
    __slots__ = ("call_id",)
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    def __init__(self, call_id: _Optional[str] = ...) -> None: ...

class GetCallResponse(_message.Message):
    __slots__ = ("call", "result_json")
    CALL_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    call: Call
    result_json: str
    def __init__(self, call: _Optional[_Union[Call, _Mapping]] = ..., result_json: _Optional[str] = ...) -> None: ...

class GetArtefactRequest(_message.Message):
    __slots__ = ("call_id", "name", "offset")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    name: str
    offset: int
    def __init__(self, call_id: _Optional[str] = ..., name: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class GetArtefactResponse(_message.Message):
    __slots__ = ("content", "media_type", "sha256", "size_bytes", "next_offset")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    media_type: str
    sha256: str
    size_bytes: int
    next_offset: int
    def __init__(self, content: _Optional[bytes] = ..., media_type: _Optional[str] = ..., sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., next_offset: _Optional[int] = ...) -> None: ...

class ListCallsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "tool", "state")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    tool: str
    state: CallState
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., tool: _Optional[str] = ..., state: _Optional[_Union[CallState, str]] = ...) -> None: ...

class ListCallsResponse(_message.Message):
    __slots__ = ("calls", "next_page_token")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[Call]
    next_page_token: str
    def __init__(self, calls: _Optional[_Iterable[_Union[Call, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("call_id", "tenant", "environment", "agent", "subject", "tool", "tool_version", "effect", "state", "reason", "message", "started", "ended", "request_digest", "grant_id", "stages", "leases", "sandboxes", "labels", "tool_log", "marks", "artefacts", "removed", "workflow", "connections", "connections_dropped")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    TOOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    SANDBOXES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TOOL_LOG_FIELD_NUMBER: _ClassVar[int]
    MARKS_FIELD_NUMBER: _ClassVar[int]
    ARTEFACTS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    WORKFLOW_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    tenant: str
    environment: str
    agent: str
    subject: str
    tool: str
    tool_version: str
    effect: _options_pb2.Effect
    state: CallState
    reason: _reasons_pb2.Reason
    message: str
    started: _timestamp_pb2.Timestamp
    ended: _timestamp_pb2.Timestamp
    request_digest: str
    grant_id: str
    stages: _containers.RepeatedCompositeFieldContainer[StageTime]
    leases: _containers.RepeatedCompositeFieldContainer[LeaseRecord]
    sandboxes: _containers.RepeatedCompositeFieldContainer[SandboxRecord]
    labels: _containers.RepeatedScalarFieldContainer[str]
    tool_log: str
    marks: _containers.RepeatedScalarFieldContainer[str]
    artefacts: _containers.RepeatedCompositeFieldContainer[Artefact]
    removed: _containers.RepeatedScalarFieldContainer[str]
    workflow: str
    connections: _containers.RepeatedCompositeFieldContainer[Connection]
    connections_dropped: int
    def __init__(self, call_id: _Optional[str] = ..., tenant: _Optional[str] = ..., environment: _Optional[str] = ..., agent: _Optional[str] = ..., subject: _Optional[str] = ..., tool: _Optional[str] = ..., tool_version: _Optional[str] = ..., effect: _Optional[_Union[_options_pb2.Effect, str]] = ..., state: _Optional[_Union[CallState, str]] = ..., reason: _Optional[_Union[_reasons_pb2.Reason, str]] = ..., message: _Optional[str] = ..., started: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., request_digest: _Optional[str] = ..., grant_id: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[StageTime, _Mapping]]] = ..., leases: _Optional[_Iterable[_Union[LeaseRecord, _Mapping]]] = ..., sandboxes: _Optional[_Iterable[_Union[SandboxRecord, _Mapping]]] = ..., labels: _Optional[_Iterable[str]] = ..., tool_log: _Optional[str] = ..., marks: _Optional[_Iterable[str]] = ..., artefacts: _Optional[_Iterable[_Union[Artefact, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ..., workflow: _Optional[str] = ..., connections: _Optional[_Iterable[_Union[Connection, _Mapping]]] = ..., connections_dropped: _Optional[int] = ...) -> None: ...

class Connection(_message.Message):
    __slots__ = ("target", "address", "opened", "closed", "bytes_up", "bytes_down", "outcome", "detail", "method", "path_template", "status", "rule", "grant_rule", "injected", "stripped", "request_sha256", "response_sha256")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PATH_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    GRANT_RULE_FIELD_NUMBER: _ClassVar[int]
    INJECTED_FIELD_NUMBER: _ClassVar[int]
    STRIPPED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_SHA256_FIELD_NUMBER: _ClassVar[int]
    target: str
    address: str
    opened: _timestamp_pb2.Timestamp
    closed: _timestamp_pb2.Timestamp
    bytes_up: int
    bytes_down: int
    outcome: str
    detail: str
    method: str
    path_template: str
    status: int
    rule: str
    grant_rule: str
    injected: str
    stripped: int
    request_sha256: str
    response_sha256: str
    def __init__(self, target: _Optional[str] = ..., address: _Optional[str] = ..., opened: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., closed: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., bytes_up: _Optional[int] = ..., bytes_down: _Optional[int] = ..., outcome: _Optional[str] = ..., detail: _Optional[str] = ..., method: _Optional[str] = ..., path_template: _Optional[str] = ..., status: _Optional[int] = ..., rule: _Optional[str] = ..., grant_rule: _Optional[str] = ..., injected: _Optional[str] = ..., stripped: _Optional[int] = ..., request_sha256: _Optional[str] = ..., response_sha256: _Optional[str] = ...) -> None: ...

class Artefact(_message.Message):
    __slots__ = ("name", "media_type", "size_bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., media_type: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class StageTime(_message.Message):
    __slots__ = ("stage", "start_micros", "duration_micros")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    START_MICROS_FIELD_NUMBER: _ClassVar[int]
    DURATION_MICROS_FIELD_NUMBER: _ClassVar[int]
    stage: str
    start_micros: int
    duration_micros: int
    def __init__(self, stage: _Optional[str] = ..., start_micros: _Optional[int] = ..., duration_micros: _Optional[int] = ...) -> None: ...

class LeaseRecord(_message.Message):
    __slots__ = ("credential", "username", "minted", "confirmed_dead", "engine", "role")
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    MINTED_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_DEAD_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    credential: str
    username: str
    minted: _timestamp_pb2.Timestamp
    confirmed_dead: _timestamp_pb2.Timestamp
    engine: str
    role: str
    def __init__(self, credential: _Optional[str] = ..., username: _Optional[str] = ..., minted: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., confirmed_dead: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., engine: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class SandboxRecord(_message.Message):
    __slots__ = ("container_id", "image_id", "made", "gone")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    MADE_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    image_id: str
    made: _timestamp_pb2.Timestamp
    gone: _timestamp_pb2.Timestamp
    def __init__(self, container_id: _Optional[str] = ..., image_id: _Optional[str] = ..., made: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., gone: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
