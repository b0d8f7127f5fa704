"""The manifest `tool.yaml`: a closed list of fields, because what cannot be said cannot be asked for.

There is no way to name a mount, a capability, a device, a network or an environment variable. An unknown
field is refused with the nearest valid name, a forbidden one with what to do instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from tools.errors import BundleInvalid, Violation, breach
from tools.http_rules import HttpRule, parse_rule
from tools.manifest_egress import check_egress
from tools.manifest_yaml import load_yaml
from tools.unseen import name_unseen

MAX_MANIFEST_BYTES = 64 * 1024

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
RoleName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,63}$")]
MethodName = Annotated[
    str, StringConstraints(pattern=r"^[a-z][A-Za-z0-9_.]*\.[A-Z][A-Za-z0-9]*/[A-Z][A-Za-z0-9]*$")
]
VersionName = Annotated[
    str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,5})(\.(0|[1-9][0-9]{0,5})){2}$", max_length=32)
]
PackageName = Literal["git", "openssh-client", "libnss-wrapper", "busybox-static"]
Argument = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


def _check_target_name(name: str) -> str:
    """Refuse what neither the operator's file nor a grant can name."""
    if re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name) is None:
        raise PydanticCustomError("target_name", "Must be of small letters, digits and -, the first a letter")
    return name


TargetName = Annotated[str, AfterValidator(_check_target_name)]

_FORBIDDEN = {
    "mounts": "a handler sees only its bundle and its own tmp",
    "volumes": "a handler sees only its bundle and its own tmp",
    "binds": "a handler sees only its bundle and its own tmp",
    "capabilities": "a handler has no capabilities",
    "cap_add": "a handler has no capabilities",
    "devices": "a handler has no devices",
    "gpus": "a handler has no devices",
    "privileged": "a handler is never privileged",
    "security_opt": "the broker sets the hardening",
    "seccomp": "the broker sets the hardening",
    "user": "each container has a user of its own",
    "root": "each container has a user of its own",
    "network": "the way out is a target that the operator declared: name it under `targets`",
    "network_mode": "the way out is a target that the operator declared: name it under `targets`",
    "ports": "a container takes no connections",
    "hosts": "the operator declares addresses: name a target under `targets`",
    "dns": "the operator declares addresses: name a target under `targets`",
    "env": "settings belong in the bundle, secrets under `credentials`",
    "environment": "settings belong in the bundle, secrets under `credentials`",
    "secrets": "name what is to be minted under `credentials`",
    "pid": "each container has namespaces of its own",
    "ipc": "each container has namespaces of its own",
    "effect": "the contract says it: set it in the method's (toolcrib.v1.tool) option",
    "scope": "the contract says it: set it in the method's (toolcrib.v1.tool) option",
    "probe": "the contract says it: set it in the method's (toolcrib.v1.tool) option",
    "reach": "the contract says it: set it in the method's (toolcrib.v1.tool) option",
}
"""What people ask for and must not have, with the remedy."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Image(_Closed):
    """What is started in the container; the image itself is named at registration, by its id.

    Attributes:
        packages: Programs beside Python; those that an image can have (`sandboxes.rootfs.EXTRAS`).
    """

    command: tuple[Argument, ...] = Field(min_length=1, max_length=32, strict=False)
    packages: tuple[PackageName, ...] = Field(default=(), max_length=8, strict=False)


class Limits(_Closed):
    """Ceilings of one container. Absent ones are the defaults here."""

    memory_mib: int = Field(default=128, ge=16, le=2048)
    pids: int = Field(default=32, ge=2, le=512)
    cpus: float = Field(default=1.0, ge=0.05, le=4.0, strict=False)
    tmp_mib: int = Field(default=16, ge=1, le=512)
    output_kib: int = Field(default=256, ge=1, le=3072)
    log_kib: int = Field(default=64, ge=1, le=1024)
    artefacts: int = Field(default=0, ge=0, le=64)
    artefact_kib: int = Field(default=1024, ge=1, le=16_384)


class Inject(_Closed):
    """How the egress proxy adds a credential to requests toward its target; the tool does not get it.

    Attributes:
        form: As `credentials.injection.Form` has them. "query" is discouraged: URLs are logged everywhere.
        key: Which value of a "kv" secret is meant, for bearer, header and query; "token" unless it is said.
        name: The header's or the query's name, for these two forms.
        prefix: What stands before the value in a header, for example "Token ".
        region: For sigv4.
        service: For sigv4, for example "s3".
    """

    form: Literal["bearer", "basic", "header", "query", "client_certificate", "sigv4"]
    key: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,63}$")] = "token"
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,63}$")] | None = None
    prefix: Annotated[str, StringConstraints(pattern=r"^([!-~][ -~]{0,31})?$")] = ""
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")] | None = None
    service: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")] | None = None


class CredentialWanted(_Closed):
    """A credential that is minted for a call and ends with it.

    Attributes:
        role: Vault's role of that engine; the secret's name for "kv" and "oauth2", the key's for "transit".
        target: Where it is good. Only "kv" and "transit" may leave it out.
        max_signatures: How often one call may sign; for "transit" only.
        inject: Where it is said the tool does not get the credential: the proxy adds it. For targets of kind
            "http"; "oauth2" has no other way.
    """

    engine: Literal[
        "database", "database_static", "kv", "pki", "ssh", "transit", "ldap", "ldap_static", "oauth2"
    ]
    role: RoleName
    target: TargetName | None = None
    max_signatures: int = Field(default=1, ge=1, le=100)
    inject: Inject | None = None

    @model_validator(mode="after")
    def _check_fields(self) -> CredentialWanted:
        if self.target is None and self.engine not in ("kv", "transit"):
            raise ValueError("target: is required: name where the credential is good")
        if self.max_signatures != 1 and self.engine != "transit":
            raise ValueError("max_signatures: only the engine transit signs; leave it out")
        return self


class HttpLimits(_Closed):
    """Ceilings of one call at one HTTP target. Absent ones are the defaults here."""

    request_kib: int = Field(default=1024, ge=1, le=65_536)
    response_kib: int = Field(default=4096, ge=1, le=65_536)
    seconds: float = Field(default=30.0, ge=0.1, le=300, strict=False)
    requests: int = Field(default=256, ge=1, le=1_000)


def _read_rule(written: object) -> object:
    """Take a line alone for a rule without more."""
    if isinstance(written, str):
        return {"rule": written}
    if not isinstance(written, Mapping | BaseModel):
        raise PydanticCustomError("rule_form", 'Must be a line such as "GET /path", or a mapping with `rule`')
    return written


class RuleWanted(_Closed):
    """A rule; in tool.yaml its line alone, or a mapping.

    Attributes:
        rule: The line (tools/http_rules.py).
        require: Names of its query that have to be there.
        headers: Patterns of headers that pass beside the usual ones.
    """

    rule: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    require: tuple[str, ...] = Field(default=(), max_length=32, strict=False)
    headers: Mapping[str, str] = Field(default_factory=dict, max_length=32)


class TargetWanted(_Closed):
    """A target that the operator must have declared under the same name.

    Attributes:
        allow: What may be asked of an "http" target; each a line, or a mapping. Required there, unless:
        opaque: TLS is not opened on the way: HTTP/2, gRPC, WebSocket. No rules, nothing can be added.
        limits: Of an "http" target.
    """

    kind: Literal["postgresql", "http", "smtp", "ldap", "ssh", "tls"]
    allow: tuple[Annotated[RuleWanted, BeforeValidator(_read_rule)], ...] = Field(
        default=(), max_length=64, strict=False
    )
    opaque: bool = False
    limits: HttpLimits = HttpLimits()

    @property
    def rules(self) -> tuple[HttpRule, ...]:
        """The rules of `allow`, read."""
        return tuple(parse_rule(wanted.rule, wanted.require, wanted.headers) for wanted in self.allow)


class MethodRuntime(_Closed):
    """What one tool needs while it runs.

    Attributes:
        settle_seconds: How long after the attempt is fenced "did not happen" can still turn out wrong.
    """

    credentials: tuple[Name, ...] = Field(default=(), max_length=8, strict=False)
    targets: tuple[TargetName, ...] = Field(default=(), max_length=8, strict=False)
    deadline_seconds: float = Field(gt=0, le=300, strict=False)
    settle_seconds: float = Field(default=5, ge=0, le=3600, strict=False)


class _ManifestWrong(ValueError):
    """Fields of a manifest do not agree with each other."""

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__("; ".join(violation.description for violation in violations))
        self.violations = violations


class Manifest(_Closed):
    """A bundle's runtime, as `tool.yaml` says it."""

    bundle: Name
    version: VersionName
    description: str = Field(min_length=1, max_length=500)
    isolation: Literal["container", "strong"] = "container"
    image: Image
    limits: Limits = Limits()
    credentials: Mapping[Name, CredentialWanted] = Field(default_factory=dict, max_length=32)
    targets: Mapping[TargetName, TargetWanted] = Field(default_factory=dict, max_length=32)
    tools: Mapping[MethodName, MethodRuntime] = Field(min_length=1, max_length=100)

    def method(self, name: str) -> MethodRuntime:
        """Return what a tool needs while it runs.

        Raises:
            KeyError: The manifest does not list the method.
        """
        return self.tools[name]

    def http_targets(self, method: str) -> tuple[str, ...]:
        """Return the names of a tool's targets of kind "http"; raises as `method`."""
        return tuple(name for name in self.method(method).targets if self.targets[name].kind == "http")

    @model_validator(mode="after")
    def _check_fields(self) -> Manifest:
        names = [
            *(
                f"credentials.{name}.target: {wanted.target} is not under `targets`"
                for name, wanted in self.credentials.items()
                if wanted.target is not None and wanted.target not in self.targets
            ),
            *(problem for name, tool in self.tools.items() for problem in self._find_missing(name, tool)),
        ]
        problems = [*(_blame_name("tool.yaml: ", problem) for problem in names), *check_egress(self)]
        if problems:
            raise _ManifestWrong(problems)
        return self

    def _find_missing(self, name: str, tool: MethodRuntime) -> list[str]:
        problems = [
            f"tools.{name}.{part}: {wanted} is not under `{part}`"
            for part, known in (("credentials", self.credentials), ("targets", self.targets))
            for wanted in getattr(tool, part)
            if wanted not in known
        ]
        for wanted in tool.credentials:
            target = self.credentials[wanted].target if wanted in self.credentials else None
            if target is not None and target not in tool.targets:
                problems.append(f"tools.{name}.targets: lacks {target}, where credential {wanted} is good")
        return problems


def read_manifest(text: str) -> Manifest:
    """Read and check the text of `tool.yaml`.

    Raises:
        BundleInvalid: With every violation, by field, for example "tool.yaml: limits.memory_mib".
    """
    if len(text.encode("utf-8", "replace")) > MAX_MANIFEST_BYTES:
        problem = f"is larger than {MAX_MANIFEST_BYTES} bytes"
        raise BundleInvalid([breach("MANIFEST_YAML", "tool.yaml", problem)])
    _refuse_unseen(text)
    data = load_yaml(text)
    if not isinstance(data, dict):
        problem = "must be a mapping with `bundle`, `version`, `tools` …"
        raise BundleInvalid([breach("MANIFEST_YAML", "tool.yaml", problem)])
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        raise BundleInvalid([v for e in error.errors() for v in _translate(e)]) from error


def _refuse_unseen(text: str) -> None:
    """Refuse characters that nobody sees: reviewers read the manifest, and its description is shown."""
    lines = enumerate(text.split("\n"), start=1)
    found = [(number, unseen) for number, line in lines if (unseen := name_unseen(line))]
    if found:
        problem = "has characters that nobody sees"
        raise BundleInvalid(
            [
                breach("INVISIBLE_CHARACTERS", f"tool.yaml:{number}", f"{problem} ({unseen})", "remove them")
                for number, unseen in found
            ]
        )


def _translate(error: ErrorDetails) -> list[Violation]:
    where = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        code = "MANIFEST_FORBIDDEN" if str(error["loc"][-1]) in _FORBIDDEN else "MANIFEST_FIELD"
        return [breach(code, f"tool.yaml: {where}", _explain_extra(error["loc"]))]
    if error["type"] == "value_error":
        cause = error["ctx"]["error"]
        if isinstance(cause, _ManifestWrong):
            return cause.violations
        return [_blame_name(f"tool.yaml: {where}.", str(cause))]
    code = "MANIFEST_MISSING" if error["type"] == "missing" else "MANIFEST_VALUE"
    return [breach(code, f"tool.yaml: {where}", _explain(error))]


def _blame_name(prefix: str, problem: str) -> Violation:
    """Make a violation of "field: what is wrong"."""
    field, _, description = problem.partition(": ")
    return breach("MANIFEST_NAME", prefix + field, description)


def _explain(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return "is required"
    if error["type"] == "string_pattern_mismatch":
        return f"must match {error['ctx']['pattern']}"
    if error["type"] == "string_type" and error["loc"][-1] == "version":
        return 'must be a string of three numbers, for example "1.0.0"'
    text = re.sub(r"^(Input|Value|String|Mapping|Dictionary|Tuple) ", "", error["msg"])
    return text[:1].lower() + text[1:]


def _explain_extra(location: tuple[int | str, ...]) -> str:
    name = str(location[-1])
    if name in _FORBIDDEN:
        return f"is not possible: {_FORBIDDEN[name]}"
    known = _find_known(location[:-1])
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return f"is not a field of the manifest; {hint}"


_PARTS: dict[str, type[BaseModel]] = {
    "image": Image,
    "limits": Limits,
    "credentials": CredentialWanted,
    "targets": TargetWanted,
    "tools": MethodRuntime,
}


_NESTED: dict[tuple[str, str], type[BaseModel]] = {
    ("credentials", "inject"): Inject,
    ("targets", "allow"): RuleWanted,
    ("targets", "limits"): HttpLimits,
}
"""What is two steps below a part: the part's name, then the field's."""


def _find_known(location: tuple[int | str, ...]) -> list[str]:
    if not location:
        return list(Manifest.model_fields)
    part = str(location[0])
    nested = _NESTED.get((part, str(location[2]))) if len(location) > 2 else None
    return list((nested or _PARTS[part]).model_fields)
