from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EffectDone(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EFFECT_DONE_UNSPECIFIED: _ClassVar[EffectDone]
    EFFECT_NONE: _ClassVar[EffectDone]
    EFFECT_APPLIED: _ClassVar[EffectDone]
    EFFECT_UNKNOWN: _ClassVar[EffectDone]
EFFECT_DONE_UNSPECIFIED: EffectDone
EFFECT_NONE: EffectDone
EFFECT_APPLIED: EffectDone
EFFECT_UNKNOWN: EffectDone

class BrokerFrame(_message.Message):
    __slots__ = ("start", "cancel", "signature")
    START_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    start: Start
    cancel: Cancel
    signature: Signature
    def __init__(self, start: _Optional[_Union[Start, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., signature: _Optional[_Union[Signature, _Mapping]] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("protocol_version", "context", "method", "request", "credentials", "targets")
    class CredentialsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Credential
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Credential, _Mapping]] = ...) -> None: ...
    class TargetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Target
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Target, _Mapping]] = ...) -> None: ...
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    context: CallContext
    method: str
    request: bytes
    credentials: _containers.MessageMap[str, Credential]
    targets: _containers.MessageMap[str, Target]
    def __init__(self, protocol_version: _Optional[int] = ..., context: _Optional[_Union[CallContext, _Mapping]] = ..., method: _Optional[str] = ..., request: _Optional[bytes] = ..., credentials: _Optional[_Mapping[str, Credential]] = ..., targets: _Optional[_Mapping[str, Target]] = ...) -> None: ...

class CallContext(_message.Message):
    __slots__ = ("call_id", "tenant", "environment", "agent", "subject", "idempotency_key", "attempt", "remaining_millis", "traceparent")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REMAINING_MILLIS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    tenant: str
    environment: str
    agent: str
    subject: str
    idempotency_key: str
    attempt: int
    remaining_millis: int
    traceparent: str
    def __init__(self, call_id: _Optional[str] = ..., tenant: _Optional[str] = ..., environment: _Optional[str] = ..., agent: _Optional[str] = ..., subject: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., attempt: _Optional[int] = ..., remaining_millis: _Optional[int] = ..., traceparent: _Optional[str] = ...) -> None: ...

class Credential(_message.Message):
    __slots__ = ("username_password", "key_values", "client_certificate", "ssh_login", "signer", "injected")
    USERNAME_PASSWORD_FIELD_NUMBER: _ClassVar[int]
    KEY_VALUES_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SSH_LOGIN_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    INJECTED_FIELD_NUMBER: _ClassVar[int]
    username_password: UsernamePassword
    key_values: KeyValues
    client_certificate: ClientCertificate
    ssh_login: SshLogin
    signer: Signer
    injected: Injected
    def __init__(self, username_password: _Optional[_Union[UsernamePassword, _Mapping]] = ..., key_values: _Optional[_Union[KeyValues, _Mapping]] = ..., client_certificate: _Optional[_Union[ClientCertificate, _Mapping]] = ..., ssh_login: _Optional[_Union[SshLogin, _Mapping]] = ..., signer: _Optional[_Union[Signer, _Mapping]] = ..., injected: _Optional[_Union[Injected, _Mapping]] = ...) -> None: ...

class Injected(_message.Message):
    __slots__ = ("form",)
    FORM_FIELD_NUMBER: _ClassVar[int]
    form: str
    def __init__(self, form: _Optional[str] = ...) -> None: ...

class UsernamePassword(_message.Message):
    __slots__ = ("username", "password")
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    username: str
    password: str
    def __init__(self, username: _Optional[str] = ..., password: _Optional[str] = ...) -> None: ...

class KeyValues(_message.Message):
    __slots__ = ("values", "version")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    values: _containers.ScalarMap[str, str]
    version: int
    def __init__(self, values: _Optional[_Mapping[str, str]] = ..., version: _Optional[int] = ...) -> None: ...

class ClientCertificate(_message.Message):
    __slots__ = ("certificate_pem", "private_key_pem", "chain_pem")
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: str
    private_key_pem: str
    chain_pem: str
    def __init__(self, certificate_pem: _Optional[str] = ..., private_key_pem: _Optional[str] = ..., chain_pem: _Optional[str] = ...) -> None: ...

class SshLogin(_message.Message):
    __slots__ = ("username", "private_key", "certificate")
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_KEY_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    username: str
    private_key: str
    certificate: str
    def __init__(self, username: _Optional[str] = ..., private_key: _Optional[str] = ..., certificate: _Optional[str] = ...) -> None: ...

class Signer(_message.Message):
    __slots__ = ("algorithm", "max_signatures", "public_key_pem")
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    MAX_SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    algorithm: str
    max_signatures: int
    public_key_pem: str
    def __init__(self, algorithm: _Optional[str] = ..., max_signatures: _Optional[int] = ..., public_key_pem: _Optional[str] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("socket_dir", "socket_path", "settings", "origins")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SOCKET_DIR_FIELD_NUMBER: _ClassVar[int]
    SOCKET_PATH_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    ORIGINS_FIELD_NUMBER: _ClassVar[int]
    socket_dir: str
    socket_path: str
    settings: _containers.ScalarMap[str, str]
    origins: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, socket_dir: _Optional[str] = ..., socket_path: _Optional[str] = ..., settings: _Optional[_Mapping[str, str]] = ..., origins: _Optional[_Iterable[str]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Signature(_message.Message):
    __slots__ = ("id", "signature", "key_version", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: int
    signature: bytes
    key_version: int
    error: str
    def __init__(self, id: _Optional[int] = ..., signature: _Optional[bytes] = ..., key_version: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class HandlerFrame(_message.Message):
    __slots__ = ("progress", "result", "failure", "artefact", "sign", "loaded")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ARTEFACT_FIELD_NUMBER: _ClassVar[int]
    SIGN_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    result: Result
    failure: Failure
    artefact: Artefact
    sign: Sign
    loaded: Loaded
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., artefact: _Optional[_Union[Artefact, _Mapping]] = ..., sign: _Optional[_Union[Sign, _Mapping]] = ..., loaded: _Optional[_Union[Loaded, _Mapping]] = ...) -> None: ...

class Loaded(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Sign(_message.Message):
    __slots__ = ("id", "credential", "input")
    ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    id: int
    credential: str
    input: bytes
    def __init__(self, id: _Optional[int] = ..., credential: _Optional[str] = ..., input: _Optional[bytes] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("message", "percent")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    message: str
    percent: int
    def __init__(self, message: _Optional[str] = ..., percent: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("response",)
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    response: bytes
    def __init__(self, response: _Optional[bytes] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message", "retryable", "effect")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    retryable: bool
    effect: EffectDone
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., retryable: bool = ..., effect: _Optional[_Union[EffectDone, str]] = ...) -> None: ...

class Artefact(_message.Message):
    __slots__ = ("name", "media_type", "content")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    media_type: str
    content: bytes
    def __init__(self, name: _Optional[str] = ..., media_type: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...
