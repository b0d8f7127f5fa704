"""What Vault's own audit log must leave readable so that it can be compared with the broker's record.

Rules:
1. Only lease ids and accessors. They open nothing: whoever has one needs a token with a right on it. Lease
   ids stand in clear in Vault's answers anyway; secrets, tokens and arguments stay hidden (HMAC).
2. Which request a child token was made for stands in clear already: it is the token's metadata.

An operator who wants accessors hidden from most readers gives Vault a second audit device with these options
for `toolcrib audit reconcile` alone; the tuning of the mounts holds for every device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DEVICE_OPTIONS: Mapping[str, str] = {"hmac_accessor": "false"}
"""Of the audit device, in Vault's configuration or `vault audit enable`."""
MOUNT_TUNING: Mapping[str, Mapping[str, Sequence[str]]] = {
    "sys/mounts/sys/tune": {"audit_non_hmac_request_keys": ["lease_id"]},
    "sys/auth/token/tune": {"audit_non_hmac_request_keys": ["accessor"]},
}
"""What to write, by path; the names of the request's fields that show which lease or token was ended."""
HIDDEN = "hmac-sha256:"
"""What a hidden value begins with."""
