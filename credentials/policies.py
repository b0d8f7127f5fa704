"""What the broker and each tool may do in Vault: policies and token role, for the operator to install."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from credentials.engines.base import SecretsEngine

BROKER_POLICY_NAME = "toolcrib-broker"
BROKER_ROLE = "toolcrib-broker"
TOKEN_ROLE = "toolcrib-call"  # noqa: S105 - a name, not a token
TOOL_POLICY_PREFIX = "toolcrib-tool-"
MAX_CHILD_USES = 102
"""One hundred signatures, the reading of the key, and one left over: the last use of a token ends it."""
MAX_CHILD_TTL_SECONDS = 3600

_BROKER_POLICY = """\
# The session of a Toolcrib broker. It can read no credential itself: only a child with a tool's policy can.
path "auth/token/create/toolcrib-call" {{
  capabilities        = ["update"]
  required_parameters = ["policies", "ttl", "num_uses", "meta", "no_default_policy", "renewable"]
  allowed_parameters  = {{
    "policies"          = []
    "ttl"               = []
    "num_uses"          = []
    "meta"              = []
    "display_name"      = []
    "no_default_policy" = [true]
    "renewable"         = [false]
  }}
}}
# The end of a lease and of its child, and the proof of it.
path "sys/leases/revoke" {{
  capabilities        = ["update"]
  required_parameters = ["lease_id", "sync"]
  allowed_parameters  = {{ "lease_id" = {leases}, "sync" = [true] }}
}}
path "sys/leases/lookup" {{
  capabilities       = ["update"]
  allowed_parameters = {{ "lease_id" = {leases} }}
}}
path "auth/token/lookup-accessor" {{ capabilities = ["update"] }}
path "auth/token/revoke-accessor" {{ capabilities = ["update"] }}
# Its own token.
path "auth/token/lookup-self" {{ capabilities = ["read"] }}
path "auth/token/renew-self"  {{ capabilities = ["update"] }}
path "auth/token/revoke-self" {{ capabilities = ["update"] }}
# Definitions, which hold no secret: a role that cannot be ended safely is refused before anything is minted.
path "auth/token/roles/toolcrib-call"   {{ capabilities = ["read"] }}
path "sys/policies/acl/toolcrib-broker" {{ capabilities = ["read"] }}
path "sys/policies/acl/toolcrib-tool-*" {{ capabilities = ["read"] }}
path "transit/keys/toolcrib-*"          {{ capabilities = ["read"] }}
# Data keys of tenants: made and unwrapped. It can neither make, change, delete nor export a transit key.
path "transit/datakey/plaintext/toolcrib-*" {{
  capabilities       = ["update"]
  allowed_parameters = {{ "bits" = [] }}
}}
path "transit/decrypt/toolcrib-*" {{
  capabilities       = ["update"]
  allowed_parameters = {{ "ciphertext" = [] }}
}}
"""


def broker_policy(engines: Iterable[SecretsEngine], mounts: Mapping[str, str]) -> str:
    """Return the policy of the broker's session for these engines.

    Args:
        engines: Those that tools use; none: the session can do nothing with any.
        mounts: Mount path by plugin.
    """
    used = list(engines)
    prefixes = [f"{prefix}*" for engine in used for prefix in engine.lease_prefixes(mounts)]
    leases = json.dumps(list(dict.fromkeys(prefixes)) or ["none/"])
    parts = [f"{heading(engine.name)}{engine.session_policy(mounts)}" for engine in used]
    return _BROKER_POLICY.format(leases=leases) + "".join(parts)


def heading(engine: str) -> str:
    """Return the line above an engine's part of the broker's policy; reviews find the part by it."""
    return f"# Engine {engine}.\n"


def tool_policy_name(engine: str, role: str) -> str:
    """Return the name of the policy that gets one role's credentials. Engines' names hold no "-"."""
    return f"{TOOL_POLICY_PREFIX}{engine}-{role}"


def token_role() -> dict[str, Any]:
    """Return the definition of the token role through which the broker makes children."""
    return {
        "allowed_policies": [],
        "allowed_policies_glob": [TOOL_POLICY_PREFIX + "*"],
        "disallowed_policies": ["default"],
        "allowed_entity_aliases": [],
        "orphan": False,
        "token_period": 0,
        "renewable": False,
        "token_type": "service",
        "token_num_uses": MAX_CHILD_USES,
        "token_explicit_max_ttl": MAX_CHILD_TTL_SECONDS,
    }
