from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Effect(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EFFECT_UNSPECIFIED: _ClassVar[Effect]
    READ: _ClassVar[Effect]
    DRAFT: _ClassVar[Effect]
    WRITE: _ClassVar[Effect]

class Reach(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REACH_UNSPECIFIED: _ClassVar[Reach]
    INTERNAL: _ClassVar[Reach]
    OUTWARD: _ClassVar[Reach]

class Access(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCESS_UNSPECIFIED: _ClassVar[Access]
    ANY_CALLER: _ClassVar[Access]
    AUTHOR: _ClassVar[Access]
    REVIEWER: _ClassVar[Access]
    OPERATOR: _ClassVar[Access]
    ORCHESTRATOR: _ClassVar[Access]
    ANY_PERSON: _ClassVar[Access]

class ProbeRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROBE_ROLE_UNSPECIFIED: _ClassVar[ProbeRole]
    PROBE_KEY: _ClassVar[ProbeRole]
    PROBE_HAPPENED: _ClassVar[ProbeRole]
    PROBE_RESULT: _ClassVar[ProbeRole]

class Content(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTENT_UNSPECIFIED: _ClassVar[Content]
    TEXT: _ClassVar[Content]
    HTML: _ClassVar[Content]
    MARKDOWN: _ClassVar[Content]
    JSON: _ClassVar[Content]
EFFECT_UNSPECIFIED: Effect
READ: Effect
DRAFT: Effect
WRITE: Effect
REACH_UNSPECIFIED: Reach
INTERNAL: Reach
OUTWARD: Reach
ACCESS_UNSPECIFIED: Access
ANY_CALLER: Access
AUTHOR: Access
REVIEWER: Access
OPERATOR: Access
ORCHESTRATOR: Access
ANY_PERSON: Access
PROBE_ROLE_UNSPECIFIED: ProbeRole
PROBE_KEY: ProbeRole
PROBE_HAPPENED: ProbeRole
PROBE_RESULT: ProbeRole
CONTENT_UNSPECIFIED: Content
TEXT: Content
HTML: Content
MARKDOWN: Content
JSON: Content
TOOL_FIELD_NUMBER: _ClassVar[int]
tool: _descriptor.FieldDescriptor
FIELD_FIELD_NUMBER: _ClassVar[int]
field: _descriptor.FieldDescriptor

class ToolOptions(_message.Message):
    __slots__ = ("effect", "reach", "scope", "probe", "dedupes", "access")
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    REACH_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    DEDUPES_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    effect: Effect
    reach: Reach
    scope: str
    probe: str
    dedupes: bool
    access: Access
    def __init__(self, effect: _Optional[_Union[Effect, str]] = ..., reach: _Optional[_Union[Reach, str]] = ..., scope: _Optional[str] = ..., probe: _Optional[str] = ..., dedupes: bool = ..., access: _Optional[_Union[Access, str]] = ...) -> None: ...

class FieldOptions(_message.Message):
    __slots__ = ("secret", "destination", "amount", "untrusted", "content", "probe")
    SECRET_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    UNTRUSTED_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    secret: bool
    destination: bool
    amount: bool
    untrusted: bool
    content: Content
    probe: ProbeRole
    def __init__(self, secret: bool = ..., destination: bool = ..., amount: bool = ..., untrusted: bool = ..., content: _Optional[_Union[Content, str]] = ..., probe: _Optional[_Union[ProbeRole, str]] = ...) -> None: ...
