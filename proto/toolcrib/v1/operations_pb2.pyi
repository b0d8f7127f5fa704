import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from toolcrib.v1 import broker_pb2 as _broker_pb2
from toolcrib.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BrakeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BRAKE_KIND_UNSPECIFIED: _ClassVar[BrakeKind]
    BRAKE_KIND_AGENT: _ClassVar[BrakeKind]
    BRAKE_KIND_TOOL: _ClassVar[BrakeKind]
    BRAKE_KIND_TENANT: _ClassVar[BrakeKind]
    BRAKE_KIND_ALL: _ClassVar[BrakeKind]
    BRAKE_KIND_CERTIFICATE: _ClassVar[BrakeKind]
BRAKE_KIND_UNSPECIFIED: BrakeKind
BRAKE_KIND_AGENT: BrakeKind
BRAKE_KIND_TOOL: BrakeKind
BRAKE_KIND_TENANT: BrakeKind
BRAKE_KIND_ALL: BrakeKind
BRAKE_KIND_CERTIFICATE: BrakeKind

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

class Lease(_message.Message):
    __slots__ = ("state", "call_id", "tenant", "environment", "agent", "subject", "tool", "grant_id", "credential", "engine", "role", "username", "lease_id", "accessor", "minted", "expires", "tries", "last_error")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Lease.State]
        STATE_LIVE: _ClassVar[Lease.State]
        STATE_ENDING: _ClassVar[Lease.State]
        STATE_NOT_CONFIRMED: _ClassVar[Lease.State]
    STATE_UNSPECIFIED: Lease.State
    STATE_LIVE: Lease.State
    STATE_ENDING: Lease.State
    STATE_NOT_CONFIRMED: Lease.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    ACCESSOR_FIELD_NUMBER: _ClassVar[int]
    MINTED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    TRIES_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    state: Lease.State
    call_id: str
    tenant: str
    environment: str
    agent: str
    subject: str
    tool: str
    grant_id: str
    credential: str
    engine: str
    role: str
    username: str
    lease_id: str
    accessor: str
    minted: _timestamp_pb2.Timestamp
    expires: _timestamp_pb2.Timestamp
    tries: int
    last_error: str
    def __init__(self, state: _Optional[_Union[Lease.State, str]] = ..., call_id: _Optional[str] = ..., tenant: _Optional[str] = ..., environment: _Optional[str] = ..., agent: _Optional[str] = ..., subject: _Optional[str] = ..., tool: _Optional[str] = ..., grant_id: _Optional[str] = ..., credential: _Optional[str] = ..., engine: _Optional[str] = ..., role: _Optional[str] = ..., username: _Optional[str] = ..., lease_id: _Optional[str] = ..., accessor: _Optional[str] = ..., minted: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tries: _Optional[int] = ..., last_error: _Optional[str] = ...) -> None: ...

class ListLeasesRequest(_message.Message):
    __slots__ = ("agent", "tool", "all_tenants")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ALL_TENANTS_FIELD_NUMBER: _ClassVar[int]
    agent: str
    tool: str
    all_tenants: bool
    def __init__(self, agent: _Optional[str] = ..., tool: _Optional[str] = ..., all_tenants: bool = ...) -> None: ...

class ListLeasesResponse(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    def __init__(self, leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ...) -> None: ...

class Brake(_message.Message):
    __slots__ = ("id", "kind", "tenant", "value", "reason", "set_by", "set")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SET_BY_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: BrakeKind
    tenant: str
    value: str
    reason: str
    set_by: str
    set: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[_Union[BrakeKind, str]] = ..., tenant: _Optional[str] = ..., value: _Optional[str] = ..., reason: _Optional[str] = ..., set_by: _Optional[str] = ..., set: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SetBrakeRequest(_message.Message):
    __slots__ = ("kind", "value", "reason", "tenant")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    kind: BrakeKind
    value: str
    reason: str
    tenant: str
    def __init__(self, kind: _Optional[_Union[BrakeKind, str]] = ..., value: _Optional[str] = ..., reason: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class SetBrakeResponse(_message.Message):
    __slots__ = ("brake", "stopped_call_ids", "leases_ended", "leases_owed")
    BRAKE_FIELD_NUMBER: _ClassVar[int]
    STOPPED_CALL_IDS_FIELD_NUMBER: _ClassVar[int]
    LEASES_ENDED_FIELD_NUMBER: _ClassVar[int]
    LEASES_OWED_FIELD_NUMBER: _ClassVar[int]
    brake: Brake
    stopped_call_ids: _containers.RepeatedScalarFieldContainer[str]
    leases_ended: int
    leases_owed: int
    def __init__(self, brake: _Optional[_Union[Brake, _Mapping]] = ..., stopped_call_ids: _Optional[_Iterable[str]] = ..., leases_ended: _Optional[int] = ..., leases_owed: _Optional[int] = ...) -> None: ...

class LiftBrakeRequest(_message.Message):
    __slots__ = ("id", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class LiftBrakeResponse(_message.Message):
    __slots__ = ("brake",)
    BRAKE_FIELD_NUMBER: _ClassVar[int]
    brake: Brake
    def __init__(self, brake: _Optional[_Union[Brake, _Mapping]] = ...) -> None: ...

class ListBrakesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListBrakesResponse(_message.Message):
    __slots__ = ("brakes",)
    BRAKES_FIELD_NUMBER: _ClassVar[int]
    brakes: _containers.RepeatedCompositeFieldContainer[Brake]
    def __init__(self, brakes: _Optional[_Iterable[_Union[Brake, _Mapping]]] = ...) -> None: ...
