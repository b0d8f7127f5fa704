"""What the broker and each tool may do in Vault: policies and token role, for the operator to install."""

from __future__ import annotations

from typing import Any

BROKER_POLICY_NAME = "toolcrib-broker"
BROKER_ROLE = "toolcrib-broker"
TOKEN_ROLE = "toolcrib-call"  # noqa: S105 - a name, not a token
TOOL_POLICY_PREFIX = "toolcrib-tool-"
CHILD_USES = 2
"""One use reads the lease. The last use of a token ends it and its leases, so one must be left over."""
MAX_CHILD_TTL_SECONDS = 3600

BROKER_POLICY = """\
# The session of a Toolcrib broker. It can read no credential itself: only a child with a tool's policy can.
path "auth/token/create/toolcrib-call" {
  capabilities        = ["update"]
  required_parameters = ["policies", "ttl", "num_uses", "no_default_policy", "renewable"]
  allowed_parameters  = {
    "policies"          = []
    "ttl"               = []
    "num_uses"          = []
    "meta"              = []
    "display_name"      = []
    "no_default_policy" = [true]
    "renewable"         = [false]
  }
}
# The end of a lease and of its child, and the proof of it.
path "sys/leases/revoke" {
  capabilities        = ["update"]
  required_parameters = ["lease_id", "sync"]
  allowed_parameters  = { "lease_id" = ["database/creds/*"], "sync" = [true] }
}
path "sys/leases/lookup" {
  capabilities       = ["update"]
  allowed_parameters = { "lease_id" = ["database/creds/*"] }
}
path "auth/token/lookup-accessor" { capabilities = ["update"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }
# Its own token.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self"  { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
# Definitions, which hold no secret: a role that cannot be ended safely is refused before anything is minted.
path "database/roles/*"                 { capabilities = ["read"] }
path "auth/token/roles/toolcrib-call"   { capabilities = ["read"] }
path "sys/policies/acl/toolcrib-tool-*" { capabilities = ["read"] }
# Data keys of tenants: made and unwrapped. It can neither make, change, delete nor export a transit key.
path "transit/datakey/plaintext/toolcrib-*" {
  capabilities       = ["update"]
  allowed_parameters = { "bits" = [] }
}
path "transit/decrypt/toolcrib-*" {
  capabilities       = ["update"]
  allowed_parameters = { "ciphertext" = [] }
}
"""


def tool_policy_name(role: str) -> str:
    """Return the name of the policy that reads one database role."""
    return TOOL_POLICY_PREFIX + role


def tool_policy(role: str) -> str:
    """Return the policy of a child token: it reads one role's credentials, and nothing else."""
    return f'path "database/creds/{role}" {{ capabilities = ["read"] }}\n'


def token_role() -> dict[str, Any]:
    """Return the definition of the token role through which the broker makes children."""
    return {
        "allowed_policies_glob": [TOOL_POLICY_PREFIX + "*"],
        "disallowed_policies": ["default"],
        "orphan": False,
        "renewable": False,
        "token_type": "service",
        "token_num_uses": CHILD_USES,
        "token_explicit_max_ttl": MAX_CHILD_TTL_SECONDS,
    }
