"""One version of a bundle, checked and prepared: what the broker serves, and what its digest names.

load_version            descriptor set + manifest + image id -> ToolVersion, or every violation
find_breaking_changes   what callers of an earlier version would trip over
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import jsonschema
import jsonschema_rs

from tools.breaking import find_breaking_changes
from tools.client_view import client_view
from tools.contract import Contract, Effect, Prepared
from tools.errors import BundleInvalid, Violation
from tools.manifest import Manifest, read_manifest
from tools.registration import Registered, register_set

__all__ = ["ToolVersion", "digest_version", "find_breaking_changes", "load_version"]

MAX_SCHEMA_CHARACTERS = 64 * 1024
"""A schema goes into a model's prompt; what is larger than this serves nobody."""
MAX_SCHEMAS_CHARACTERS = 1024 * 1024
"""All schemas of a version together."""
_SCHEMA_TOO_LARGE = (
    f"its derived JSON Schema has more than {MAX_SCHEMA_CHARACTERS} characters, or all schemas of the bundle "
    f"more than {MAX_SCHEMAS_CHARACTERS}: use smaller messages, or split the bundle"
)

_Part = TypeVar("_Part")
_Source = TypeVar("_Source")
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, eq=False)
class ToolVersion:
    """An immutable version of a bundle.

    Attributes:
        digest: SHA-256 over descriptor set, manifest text and image id, hex.
        contracts: By method, for example "shop.v1.Orders/IssueRefund".
        descriptor_set: As it was registered.
        client_descriptor_set: The same without options of ours: what clients generate code from.
    """

    bundle: str
    version: str
    digest: str
    image_id: str
    manifest: Manifest
    contracts: Mapping[str, Contract]
    descriptor_set: bytes
    client_descriptor_set: bytes


def load_version(descriptor_set: bytes, manifest_yaml: str, image_id: str) -> ToolVersion:
    """Check a bundle's version and prepare its contracts, so that no call pays for it.

    Args:
        descriptor_set: A google.protobuf.FileDescriptorSet with imports and source info.
        manifest_yaml: The text of tool.yaml.
        image_id: "sha256:" and 64 hex digits.

    Raises:
        BundleInvalid: With every violation of manifest, descriptors and image id.
    """
    problems: list[Violation] = []
    manifest = _collect(problems, read_manifest, manifest_yaml)
    registered = _collect(problems, register_set, descriptor_set)
    if not _IMAGE_ID.fullmatch(image_id):
        problems.append(
            Violation("image_id", 'must be "sha256:" and 64 hex digits: the id of an image, not its name')
        )
    if manifest is not None and registered is not None:
        problems.extend(_compare_methods(manifest, registered))
    if problems or manifest is None or registered is None:
        raise BundleInvalid(problems)
    return ToolVersion(
        bundle=manifest.bundle,
        version=manifest.version,
        digest=digest_version(descriptor_set, manifest_yaml, image_id),
        image_id=image_id,
        manifest=manifest,
        contracts=_prepare(registered),
        descriptor_set=descriptor_set,
        client_descriptor_set=client_view(descriptor_set),
    )


def find_unresolvable(version: ToolVersion) -> list[str]:
    """Name the writes of which nobody but a person can find out whether they happened, after a crash."""
    return [
        contract.method
        for contract in version.contracts.values()
        if contract.effect is Effect.WRITE and not (contract.probe or contract.dedupes)
    ]


def digest_version(descriptor_set: bytes, manifest_yaml: str, image_id: str) -> str:
    """Name a version's content: SHA-256 over its three parts, each behind its length."""
    digest = hashlib.sha256()
    for part in (descriptor_set, manifest_yaml.encode(), image_id.encode()):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _collect(problems: list[Violation], read: Callable[[_Source], _Part], source: _Source) -> _Part | None:
    """Read one part, or keep its violations, so that those of the other parts come with them."""
    try:
        return read(source)
    except BundleInvalid as error:
        problems.extend(error.violations)
        return None


def _compare_methods(manifest: Manifest, registered: Registered) -> Iterator[Violation]:
    for missing in sorted(registered.tools.keys() - manifest.tools.keys()):
        yield Violation(f"tool.yaml: tools.{missing}", "is missing: list every method of the services")
    for extra in sorted(manifest.tools.keys() - registered.tools.keys()):
        yield Violation(f"tool.yaml: tools.{extra}", "is no method of the bundle's services: remove it")


def _prepare(registered: Registered) -> dict[str, Contract]:
    prepared = Prepared(registered.validator, registered.comments)
    contracts: dict[str, Contract] = {}
    total = 0
    for name, (terms, method) in sorted(registered.tools.items()):
        contract = contracts[name] = Contract(terms, method, prepared)
        schemas = (contract.request_json_schema, contract.response_json_schema)
        total += sum(len(text) for text in schemas)
        if total > MAX_SCHEMAS_CHARACTERS or max(len(text) for text in schemas) > MAX_SCHEMA_CHARACTERS:
            raise BundleInvalid([Violation(name, _SCHEMA_TOO_LARGE)])
        for text in schemas:
            _check_schema(name, json.loads(text))
    return contracts


def _check_schema(method: str, schema: dict[str, object]) -> None:
    """Check a derived schema: valid, patterns that a linear engine takes, no reference to elsewhere."""
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema_rs.validator_for(
            schema, retriever=_refuse_retrieval, pattern_options=jsonschema_rs.RegexOptions()
        )
    except (jsonschema.SchemaError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise BundleInvalid([Violation(method, f"its derived JSON Schema is not valid: {error}")]) from error


def _refuse_retrieval(uri: str) -> NoReturn:
    raise ValueError(f"a derived schema refers to {uri}")
