"""Keys derived by tenant and purpose from the broker's one key file, and the HMACs made with them."""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from pathlib import Path

from broker.settings import SettingsInvalid
from broker.store.records import ClaimScope
from broker.workflow_records import WorkflowName

MIN_KEY_BYTES = 32


class TenantKeys:
    """Derives a key for each tenant and purpose; the file's bytes themselves sign nothing."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._derive = lru_cache(maxsize=4096)(self._derive_now)

    @property
    def audit_key(self) -> bytes:
        """The key that chains the audit."""
        return self._derive("", "audit")

    @property
    def audit_key_id(self) -> str:
        """Names the audit key without telling it."""
        return hashlib.sha256(b"toolcrib key id" + self.audit_key).hexdigest()[:16]

    def digest(self, tenant: str, method: str, canonical: bytes) -> str:
        """Digest a request: what keys, approvals, credentials and receipts carry. Hex."""
        return self._sign(self._derive(tenant, "digest"), method.encode(), canonical)

    def target_key(self, scope: ClaimScope) -> str:
        """Name the claim toward the target: an HMAC of its scope, never the agent's own key. Hex."""
        parts = (scope.tenant, scope.environment, scope.agent, scope.method, scope.key)
        return self._sign(self._derive(scope.tenant, "target"), *(part.encode() for part in parts))

    def workflow_mac(self, workflow: WorkflowName, rest: str) -> bytes:
        """Sign a workflow's handle, bound to all that names it."""
        parts = (*workflow, rest)
        return self._hmac(self._derive(workflow.tenant, "workflow"), *(part.encode() for part in parts))

    def destination_mac(self, workflow: WorkflowName, value: str) -> bytes:
        """Stand for a destination that a workflow trusts: the value itself is not kept."""
        parts = (*workflow, value)
        return self._hmac(self._derive(workflow.tenant, "destination"), *(part.encode() for part in parts))

    def _derive_now(self, tenant: str, purpose: str) -> bytes:
        text = f"toolcrib/1/{purpose}/{tenant}".encode()
        return hmac.new(self._root, text, hashlib.sha256).digest()

    @classmethod
    def _sign(cls, key: bytes, *parts: bytes) -> str:
        return cls._hmac(key, *parts).hex()

    @staticmethod
    def _hmac(key: bytes, *parts: bytes) -> bytes:
        joined = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(key, joined, "sha256")


def read_key_file(path: Path) -> TenantKeys:
    """Read the key file.

    Raises:
        SettingsInvalid: It is missing, too short, or others may read it.
    """
    try:
        mode, root = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise SettingsInvalid(
            f"{path}: cannot be read ({error.strerror}); make it with `head -c 32 /dev/urandom`"
        ) from error
    if mode & 0o077:
        raise SettingsInvalid(f"{path}: others may read it; run `chmod 600` on it")
    if len(root) < MIN_KEY_BYTES:
        raise SettingsInvalid(f"{path}: holds {len(root)} bytes; {MIN_KEY_BYTES} are the least")
    return TenantKeys(root)
