"""The manifest `tool.yaml`: a closed list of fields, because what cannot be said cannot be asked for.

There is no way to name a mount, a capability, a device, a network or an environment variable. An unknown
field is refused with the nearest valid name, a forbidden one with what to do instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails

from tools.errors import BundleInvalid, Violation, breach
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


class CredentialWanted(_Closed):
    """A credential that is minted for a call and ends with it.

    Attributes:
        role: Vault's role of that engine; the secret's name for "kv", the key's for "transit".
        target: Where it is good. Only "kv" and "transit" may leave it out.
        max_signatures: How often one call may sign; for "transit" only.
    """

    engine: Literal["database", "database_static", "kv", "pki", "ssh", "transit", "ldap", "ldap_static"]
    role: RoleName
    target: Name | None = None
    max_signatures: int = Field(default=1, ge=1, le=100)

    @model_validator(mode="after")
    def _check_fields(self) -> CredentialWanted:
        if self.target is None and self.engine not in ("kv", "transit"):
            raise ValueError("target: is required: name where the credential is good")
        if self.max_signatures != 1 and self.engine != "transit":
            raise ValueError("max_signatures: only the engine transit signs; leave it out")
        return self


class TargetWanted(_Closed):
    """A target that the operator must have declared under the same name."""

    kind: Literal["postgresql", "http", "smtp", "ldap", "ssh", "tls"]


class MethodRuntime(_Closed):
    """What one tool needs while it runs.

    Attributes:
        settle_seconds: How long after the attempt is fenced "did not happen" can still turn out wrong.
    """

    credentials: tuple[Name, ...] = Field(default=(), max_length=8, strict=False)
    targets: tuple[Name, ...] = Field(default=(), max_length=8, strict=False)
    deadline_seconds: float = Field(gt=0, le=300, strict=False)
    settle_seconds: float = Field(default=5, ge=0, le=3600, strict=False)


class Manifest(_Closed):
    """A bundle's runtime, as `tool.yaml` says it."""

    bundle: Name
    version: VersionName
    description: str = Field(min_length=1, max_length=500)
    isolation: Literal["container", "strong"] = "container"
    image: Image
    limits: Limits = Limits()
    credentials: Mapping[Name, CredentialWanted] = Field(default_factory=dict, max_length=32)
    targets: Mapping[Name, TargetWanted] = Field(default_factory=dict, max_length=32)
    tools: Mapping[MethodName, MethodRuntime] = Field(min_length=1, max_length=100)

    def method(self, name: str) -> MethodRuntime:
        """Return what a tool needs while it runs.

        Raises:
            KeyError: The manifest does not list the method.
        """
        return self.tools[name]

    @model_validator(mode="after")
    def _check_names(self) -> Manifest:
        problems = [
            *(
                f"credentials.{name}.target: {wanted.target} is not under `targets`"
                for name, wanted in self.credentials.items()
                if wanted.target is not None and wanted.target not in self.targets
            ),
            *(problem for name, tool in self.tools.items() for problem in self._find_missing(name, tool)),
        ]
        if problems:
            raise ValueError("\n".join(problems))
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
    data = _load_yaml(text)
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


class StrictLoader(yaml.SafeLoader):
    """Plain YAML: no aliases (a small text could stand for gigabytes), no key twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases."""
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "aliases are not allowed: write the value out", mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that stands twice."""
        seen: set[str] = set()
        for key, _value in node.value:
            if key.value in seen:
                problem = f"the key {key.value!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def compose_manifest(text: str) -> yaml.Node | None:
    """Read the text as YAML nodes, which know their lines; None where it is no plain YAML."""
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=StrictLoader)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError):
        return None
    return node


def _load_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader with less
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        where = f"tool.yaml:{line}" if line else "tool.yaml"
        raise BundleInvalid([breach("MANIFEST_YAML", where, error.problem or "is not valid YAML")]) from error
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise BundleInvalid([breach("MANIFEST_YAML", "tool.yaml", f"is not valid YAML: {error}")]) from error


def _translate(error: ErrorDetails) -> list[Violation]:
    where = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        code = "MANIFEST_FORBIDDEN" if str(error["loc"][-1]) in _FORBIDDEN else "MANIFEST_FIELD"
        return [breach(code, f"tool.yaml: {where}", _explain_extra(error["loc"]))]
    if error["type"] == "value_error":
        problems = str(error["ctx"]["error"]).split("\n")
        prefix = f"tool.yaml: {where}." if where else "tool.yaml: "
        return [
            breach("MANIFEST_NAME", prefix + field, problem)
            for field, _, problem in (p.partition(": ") for p in problems)
        ]
    code = "MANIFEST_MISSING" if error["type"] == "missing" else "MANIFEST_VALUE"
    return [breach(code, f"tool.yaml: {where}", _explain(error))]


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


def _find_known(location: tuple[int | str, ...]) -> list[str]:
    model = _PARTS[str(location[0])] if location else Manifest
    return list(model.model_fields)
