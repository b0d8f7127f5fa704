"""One version of a bundle, checked and prepared: what the broker serves, and what its digest names.

load_version            descriptor set + manifest + image id -> ToolVersion, or every violation
find_breaking_changes   what callers of an earlier version would trip over
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import NoReturn

import jsonschema
import jsonschema_rs

from tools.breaking import find_breaking_changes
from tools.client_view import client_view
from tools.contract import Contract, Prepared
from tools.errors import BundleInvalid, Violation, breach, collect
from tools.manifest import Manifest, read_manifest
from tools.registration import Registered, register_set
from tools.set_form import name_methods

__all__ = [
    "Parts",
    "ToolVersion",
    "digest_version",
    "find_breaking_changes",
    "load_contracts",
    "load_version",
    "read_parts",
]

MAX_SCHEMA_CHARACTERS = 64 * 1024
"""A schema goes into a model's prompt; what is larger than this serves nobody."""
MAX_SCHEMAS_CHARACTERS = 1024 * 1024
"""All schemas of a version together."""
_SCHEMA_TOO_LARGE = (
    f"its derived JSON Schema has more than {MAX_SCHEMA_CHARACTERS} characters, or all schemas of the bundle "
    f"more than {MAX_SCHEMAS_CHARACTERS}: use smaller messages, or split the bundle"
)

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


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A version's two texts, None where one cannot be used, and what is wrong with them."""

    manifest: Manifest | None
    registered: Registered | None
    problems: list[Violation]


def load_version(descriptor_set: bytes, manifest_yaml: str, image_id: str) -> ToolVersion:
    """Check a bundle's version and prepare its contracts, so that no call pays for it.

    Args:
        descriptor_set: A google.protobuf.FileDescriptorSet with imports and source info.
        manifest_yaml: The text of tool.yaml.
        image_id: "sha256:" and 64 hex digits.

    Raises:
        BundleInvalid: With every violation of manifest, descriptors and image id.
    """
    parts = read_parts(descriptor_set, manifest_yaml)
    if not _IMAGE_ID.fullmatch(image_id):
        parts.problems.append(
            breach(
                "IMAGE_ID",
                "image_id",
                'must be "sha256:" and 64 hex digits',
                "the id of an image, not its name",
            )
        )
    return build_version(parts, descriptor_set, manifest_yaml, image_id)


def build_version(parts: Parts, descriptor_set: bytes, manifest_yaml: str, image_id: str) -> ToolVersion:
    """Prepare the contracts of a version whose parts were read.

    Raises:
        BundleInvalid: With the problems of its parts, or because a schema cannot be derived.
    """
    manifest, registered = parts.manifest, parts.registered
    if parts.problems or manifest is None or registered is None:
        raise BundleInvalid(parts.problems)
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


def load_contracts(descriptor_set: bytes) -> dict[str, Contract]:
    """Prepare the contracts of a version whose manifest cannot be used.

    Raises:
        BundleInvalid: Its descriptors cannot be used either.
    """
    return _prepare(register_set(descriptor_set))


def read_parts(descriptor_set: bytes, manifest_yaml: str) -> Parts:
    """Read a version's two texts as far as they can be read, with all that is wrong with them."""
    problems: list[Violation] = []
    manifest = collect(problems, read_manifest, manifest_yaml)
    registered = collect(problems, register_set, descriptor_set)
    if manifest is not None:
        names = name_methods(descriptor_set) if registered is None else registered.tools.keys()
        problems.extend(_compare_methods(manifest, names))
    return Parts(manifest, registered, problems)


def digest_version(descriptor_set: bytes, manifest_yaml: str, image_id: str) -> str:
    """Name a version's content: SHA-256 over its three parts, each behind its length."""
    digest = hashlib.sha256()
    for part in (descriptor_set, manifest_yaml.encode(), image_id.encode()):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _compare_methods(manifest: Manifest, names: Set[str]) -> Iterator[Violation]:
    for missing in sorted(names - manifest.tools.keys()):
        yield breach(
            "METHOD_MISSING", f"tool.yaml: tools.{missing}", "is missing", "list every method of the services"
        )
    for extra in sorted(manifest.tools.keys() - names):
        problem = "is no method of the bundle's services"
        yield breach("METHOD_UNKNOWN", f"tool.yaml: tools.{extra}", problem, "remove it")


def _prepare(registered: Registered) -> dict[str, Contract]:
    prepared = Prepared(registered.validator, registered.comments)
    contracts: dict[str, Contract] = {}
    total = 0
    for name, (terms, method) in sorted(registered.tools.items()):
        contract = contracts[name] = Contract(terms, method, prepared)
        schemas = (contract.request_json_schema, contract.response_json_schema)
        total += sum(len(text) for text in schemas)
        if total > MAX_SCHEMAS_CHARACTERS or max(len(text) for text in schemas) > MAX_SCHEMA_CHARACTERS:
            raise BundleInvalid([breach("SCHEMA_TOO_LARGE", name, _SCHEMA_TOO_LARGE)])
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
        problem = f"its derived JSON Schema is not valid: {error}"
        raise BundleInvalid([breach("SCHEMA_INVALID", method, problem)]) from error


def _refuse_retrieval(uri: str) -> NoReturn:
    raise ValueError(f"a derived schema refers to {uri}")
