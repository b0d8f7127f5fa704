import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from toolcrib.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GrantFile(_message.Message):
    __slots__ = ("name", "text")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    text: str
    def __init__(self, name: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class PlanGrantsRequest(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[GrantFile]
    def __init__(self, files: _Optional[_Iterable[_Union[GrantFile, _Mapping]]] = ...) -> None: ...

class PlanGrantsResponse(_message.Message):
    __slots__ = ("changes", "base_digest")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[GrantChange]
    base_digest: str
    def __init__(self, changes: _Optional[_Iterable[_Union[GrantChange, _Mapping]]] = ..., base_digest: _Optional[str] = ...) -> None: ...

class GrantChange(_message.Message):
    __slots__ = ("kind", "id", "before", "after")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[GrantChange.Kind]
        ADD: _ClassVar[GrantChange.Kind]
        REMOVE: _ClassVar[GrantChange.Kind]
        REPLACE: _ClassVar[GrantChange.Kind]
    KIND_UNSPECIFIED: GrantChange.Kind
    ADD: GrantChange.Kind
    REMOVE: GrantChange.Kind
    REPLACE: GrantChange.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    kind: GrantChange.Kind
    id: str
    before: str
    after: str
    def __init__(self, kind: _Optional[_Union[GrantChange.Kind, str]] = ..., id: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class ApplyGrantsRequest(_message.Message):
    __slots__ = ("files", "base_digest")
    FILES_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[GrantFile]
    base_digest: str
    def __init__(self, files: _Optional[_Iterable[_Union[GrantFile, _Mapping]]] = ..., base_digest: _Optional[str] = ...) -> None: ...

class ApplyGrantsResponse(_message.Message):
    __slots__ = ("changes", "digest")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[GrantChange]
    digest: str
    def __init__(self, changes: _Optional[_Iterable[_Union[GrantChange, _Mapping]]] = ..., digest: _Optional[str] = ...) -> None: ...

class ListGrantsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListGrantsResponse(_message.Message):
    __slots__ = ("grants", "next_page_token", "digest")
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    next_page_token: str
    digest: str
    def __init__(self, grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("id", "policy", "effect", "ask", "file", "applied", "applied_by")
    ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    APPLIED_BY_FIELD_NUMBER: _ClassVar[int]
    id: str
    policy: str
    effect: str
    ask: bool
    file: str
    applied: _timestamp_pb2.Timestamp
    applied_by: str
    def __init__(self, id: _Optional[str] = ..., policy: _Optional[str] = ..., effect: _Optional[str] = ..., ask: bool = ..., file: _Optional[str] = ..., applied: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., applied_by: _Optional[str] = ...) -> None: ...

class ExplainGrantsRequest(_message.Message):
    __slots__ = ("agent", "tool", "arguments_json", "environment", "subject")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    agent: str
    tool: str
    arguments_json: str
    environment: str
    subject: str
    def __init__(self, agent: _Optional[str] = ..., tool: _Optional[str] = ..., arguments_json: _Optional[str] = ..., environment: _Optional[str] = ..., subject: _Optional[str] = ...) -> None: ...

class ExplainGrantsResponse(_message.Message):
    __slots__ = ("decision", "grant_ids", "errors")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    GRANT_IDS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    decision: str
    grant_ids: _containers.RepeatedScalarFieldContainer[str]
    errors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, decision: _Optional[str] = ..., grant_ids: _Optional[_Iterable[str]] = ..., errors: _Optional[_Iterable[str]] = ...) -> None: ...

class ListAccessRequest(_message.Message):
    __slots__ = ("agent", "tool")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    agent: str
    tool: str
    def __init__(self, agent: _Optional[str] = ..., tool: _Optional[str] = ...) -> None: ...

class ListAccessResponse(_message.Message):
    __slots__ = ("access",)
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    access: _containers.RepeatedCompositeFieldContainer[GrantedAccess]
    def __init__(self, access: _Optional[_Iterable[_Union[GrantedAccess, _Mapping]]] = ...) -> None: ...

class GrantedAccess(_message.Message):
    __slots__ = ("decision", "agent", "tool", "effect", "grant_id", "file", "environments", "condition", "limits", "expires", "credentials", "targets", "last_used", "uses", "egress")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    LAST_USED_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    EGRESS_FIELD_NUMBER: _ClassVar[int]
    decision: str
    agent: str
    tool: str
    effect: str
    grant_id: str
    file: str
    environments: _containers.RepeatedScalarFieldContainer[str]
    condition: str
    limits: _containers.RepeatedScalarFieldContainer[str]
    expires: _timestamp_pb2.Timestamp
    credentials: _containers.RepeatedCompositeFieldContainer[CredentialUse]
    targets: _containers.RepeatedScalarFieldContainer[str]
    last_used: _timestamp_pb2.Timestamp
    uses: int
    egress: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, decision: _Optional[str] = ..., agent: _Optional[str] = ..., tool: _Optional[str] = ..., effect: _Optional[str] = ..., grant_id: _Optional[str] = ..., file: _Optional[str] = ..., environments: _Optional[_Iterable[str]] = ..., condition: _Optional[str] = ..., limits: _Optional[_Iterable[str]] = ..., expires: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., credentials: _Optional[_Iterable[_Union[CredentialUse, _Mapping]]] = ..., targets: _Optional[_Iterable[str]] = ..., last_used: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., uses: _Optional[int] = ..., egress: _Optional[_Iterable[str]] = ...) -> None: ...

class CredentialUse(_message.Message):
    __slots__ = ("credential", "engine", "role")
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    credential: str
    engine: str
    role: str
    def __init__(self, credential: _Optional[str] = ..., engine: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class ListUnusedGrantsRequest(_message.Message):
    __slots__ = ("days",)
    DAYS_FIELD_NUMBER: _ClassVar[int]
    days: int
    def __init__(self, days: _Optional[int] = ...) -> None: ...

class ListUnusedGrantsResponse(_message.Message):
    __slots__ = ("grants",)
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedCompositeFieldContainer[UnusedGrant]
    def __init__(self, grants: _Optional[_Iterable[_Union[UnusedGrant, _Mapping]]] = ...) -> None: ...

class UnusedGrant(_message.Message):
    __slots__ = ("grant_id", "file", "applied", "last_used", "uses")
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    LAST_USED_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    grant_id: str
    file: str
    applied: _timestamp_pb2.Timestamp
    last_used: _timestamp_pb2.Timestamp
    uses: int
    def __init__(self, grant_id: _Optional[str] = ..., file: _Optional[str] = ..., applied: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_used: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., uses: _Optional[int] = ...) -> None: ...

class ListDestinationsRequest(_message.Message):
    __slots__ = ("value", "environment", "page_size", "page_token")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    value: str
    environment: str
    page_size: int
    page_token: str
    def __init__(self, value: _Optional[str] = ..., environment: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDestinationsResponse(_message.Message):
    __slots__ = ("destinations", "next_page_token")
    DESTINATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    destinations: _containers.RepeatedCompositeFieldContainer[TrustedDestination]
    next_page_token: str
    def __init__(self, destinations: _Optional[_Iterable[_Union[TrustedDestination, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class TrustedDestination(_message.Message):
    __slots__ = ("value", "match", "environments", "note", "source")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    value: str
    match: str
    environments: _containers.RepeatedScalarFieldContainer[str]
    note: str
    source: str
    def __init__(self, value: _Optional[str] = ..., match: _Optional[str] = ..., environments: _Optional[_Iterable[str]] = ..., note: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...
