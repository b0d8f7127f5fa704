"""Stage 2, validate: bytes → a `Call` with the canonical request of exactly one tool version.

Rules:
1. The tool version is the one that the key is pinned to, else the one asked for, else alias "stable".
2. Every violation is reported at once, by field.
3. The digest is an HMAC with the tenant's key: a plain hash of a small amount could be guessed.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from google.protobuf.message import Message

from broker.catalogue import Catalogue
from broker.errors import Refused
from broker.keys import TenantKeys
from broker.model import Call, Caller
from broker.request import Request
from broker.stages.claim import NEW_SINCE
from broker.store.protocol import Store
from broker.store.records import ClaimScope
from broker.trail import Trail
from broker.workflows import WorkflowBook
from toolcrib.v1.reasons_pb2 import Reason
from tools.catalogue import ToolVersion
from tools.contract import Contract, Effect
from tools.errors import MessageInvalid, MessageMalformed, UnknownFields, Violation

KEY = "toolcrib-idempotency-key"
ENVIRONMENT = "toolcrib-environment"
VERSION = "toolcrib-tool-version"
WORKFLOW = "toolcrib-workflow"
TRACEPARENT = "traceparent"

_METHOD = re.compile(r"[A-Za-z0-9_.]{1,400}/[A-Za-z0-9_]{1,100}")
_OURS = "toolcrib-"
_SHAPES = {
    KEY: re.compile(r"[A-Za-z0-9._:-]{1,128}"),
    ENVIRONMENT: re.compile(r"[a-z][a-z0-9-]{0,62}"),
    VERSION: re.compile(r"[A-Za-z0-9._+-]{1,64}"),
    WORKFLOW: re.compile(r"[A-Za-z0-9._-]{1,256}"),
    NEW_SINCE: re.compile(
        r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)"  # RFC 3339
    ),
    TRACEPARENT: re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
}


class Validator:
    """Reads a request as a call of a tool of the caller's tenant."""

    def __init__(
        self,
        catalogue: Catalogue,
        store: Store,
        keys: TenantKeys,
        environments: tuple[str, ...],
        workflows: WorkflowBook,
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._keys = keys
        self._environments = environments
        self._workflows = workflows

    async def __call__(self, request: Request, caller: Caller, trail: Trail) -> Call:
        """Check metadata, find the tool version, and read the request by its contract.

        Raises:
            Refused: ENVIRONMENT_UNKNOWN, KEY_REQUIRED, METADATA_INVALID, NEEDS_NEWER_VERSION,
                REQUEST_INVALID, REQUEST_MALFORMED, TOOL_NOT_USABLE, TOOL_UNKNOWN or WORKFLOW_INVALID.
        """
        metadata = read_metadata(request)
        trail.environment = environment = self._environment(metadata.get(ENVIRONMENT, ""))
        handle = metadata.get(WORKFLOW, "")
        workflow = self._workflows.read(handle, caller, environment) if handle else ""
        key = metadata.get(KEY, "")
        asked = metadata.get(VERSION, "")
        _check_method(request.method)
        scope = ClaimScope(caller.tenant, environment, caller.name, request.method, key)
        pinned = await self._store.pinned_version(scope) if key else ""
        # What was done with a key is told also when its version is withdrawn; authorize runs no such version.
        version = self._catalogue.find_method(
            caller.tenant, request.method, pinned
        ) or self._catalogue.resolve(caller.tenant, request.method, pinned or asked)
        contract = version.contracts[request.method]
        message = self._read(request, caller, contract, version)
        if contract.effect is not Effect.READ and not key:
            raise Refused(
                Reason.REASON_KEY_REQUIRED,
                f"{request.method} is a {contract.effect}: send metadata {KEY}, a new value for each "
                "write and the same value for each retry of it",
            )
        canonical = contract.canonical(message)
        now = time.monotonic()
        runtime_seconds = version.manifest.method(request.method).deadline_seconds
        latest = now + runtime_seconds
        call = Call(
            call_id=trail.call_id,
            caller=caller,
            environment=environment,
            workflow=workflow,
            key=key,
            version=version,
            contract=contract,
            message=message,
            canonical=canonical,
            digest=self._keys.digest(caller.tenant, request.method, canonical),
            # A caller that stops waiting does not stop a write, so its deadline does not bound one.
            deadline=latest if contract.effect is not Effect.READ else min(latest, request.deadline),
            started=datetime.now(UTC),
            traceparent=metadata.get(TRACEPARENT, ""),
            new_since=_read_moment(metadata.get(NEW_SINCE, "")),
            target_key=self._keys.target_key(scope) if key else "",
        )
        trail.call = call
        return call

    def _environment(self, named: str) -> str:
        environment = named or self._environments[0]
        if environment not in self._environments:
            raise Refused(
                Reason.REASON_ENVIRONMENT_UNKNOWN,
                f'environment "{environment}" is not one of this broker\'s: {", ".join(self._environments)}',
            )
        return environment

    def _read(self, request: Request, caller: Caller, contract: Contract, version: ToolVersion) -> Message:
        try:
            return parse(contract, request)
        except UnknownFields as error:
            newer = self._catalogue.version_that_reads(
                caller.tenant, version, lambda other: parse(other.contracts[request.method], request)
            )
            if newer is None:
                raise _invalid(error.violations) from error
            raise Refused(
                Reason.REASON_NEEDS_NEWER_VERSION,
                f"version {version.version} of {request.method} does not know these fields; "
                f"{newer} does: send metadata {VERSION}: {newer}",
                violations=error.violations,
            ) from error
        except MessageInvalid as error:
            raise _invalid(error.violations) from error
        except MessageMalformed as error:
            form = "JSON of" if request.is_json else "bytes of"
            raise Refused(
                Reason.REASON_REQUEST_MALFORMED,
                f"the request is not the {form} {contract.request_descriptor.full_name}",
                violations=error.violations,
            ) from error


def parse(contract: Contract, request: Request) -> Message:
    """Read the raw input in the form it came in."""
    if not request.is_json:
        return contract.parse_request(request.raw_input)
    try:
        text = request.raw_input.decode()
    except UnicodeDecodeError as error:
        raise MessageMalformed([Violation("arguments_json", "is no UTF-8 text")]) from error
    return contract.parse_request_json(text)


def read_metadata(request: Request) -> dict[str, str]:
    """Check the shape of every metadata value that is ours; each bad one is reported.

    Raises:
        Refused: METADATA_INVALID.
    """
    values = {name: request.metadata[name] for name in _SHAPES if request.metadata.get(name)}
    violations = [
        # Whoever sends what a later broker knows (a dry run) must not get what this one makes of it.
        Violation(name, f"is not known to this broker; known are {', '.join(_SHAPES)}")
        for name in sorted(request.metadata)
        if name.startswith(_OURS) and name not in _SHAPES
    ]
    violations += [
        Violation(
            name,
            f"{len(value)} characters, must match {_SHAPES[name].pattern}"
            if len(value) > 128
            else f"must match {_SHAPES[name].pattern}",
        )
        for name, value in values.items()
        if not _SHAPES[name].fullmatch(value)
    ]
    if violations:
        names = ", ".join(violation.field for violation in violations)
        raise Refused(Reason.REASON_METADATA_INVALID, f"ill-formed metadata: {names}", violations=violations)
    return values


def _read_moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise Refused(
            Reason.REASON_METADATA_INVALID,
            f"ill-formed metadata: {NEW_SINCE}",
            violations=[Violation(NEW_SINCE, "is no moment of RFC 3339, for example 2027-01-31T12:00:00Z")],
        ) from error


def _check_method(method: str) -> None:
    if not _METHOD.fullmatch(method):
        raise Refused(
            Reason.REASON_TOOL_UNKNOWN, "the path names no tool; a tool is called package.Service/Method"
        )


def _invalid(violations: tuple[Violation, ...]) -> Refused:
    fields = ", ".join(dict.fromkeys(violation.field for violation in violations))
    return Refused(
        Reason.REASON_REQUEST_INVALID,
        f"{len(violations)} violation{'s' if len(violations) > 1 else ''} of the contract: {fields}",
        violations=violations,
    )
