"""A chain of ours and a log of Vault's about the same leases, in the form that OpenBao 2.7 writes.

What is done on both sides is `run_call`; tests then leave something out or change a line.
"""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.audit import START, Anchor, Walk, seal
from broker.ids import make_call_id
from broker.reconciliation.comparison import Comparison, LogLines, compare
from broker.reconciliation.ledger import Window
from broker.store.records import AuditEvent, AuditRecord

KEY = {"k1": b"k" * 32}
POLICY = "toolcrib-tool-database-shop-read"
PATH = "database/creds/shop-read"
SESSION = "accessor-of-the-session"


class TwoLogs:
    """Both sides and a clock for each.

    Attributes:
        lines: Of Vault's log.
        records: Of our chain.
        skew: How much Vault's clock is ahead.
    """

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.records: list[AuditRecord] = []
        self.now, self.skew = datetime.now(UTC), timedelta()
        self._requests = self._children = 0

    # --- Vault's side ------------------------------------------------------------------------------------
    def request(
        self,
        path: str,
        auth: dict[str, Any],
        data: Any = None,
        *,
        response: dict[str, Any] | None = None,
        error: str = "",
        wrap_ttl: int = 0,
    ) -> None:
        """Write a request and its answer."""
        mount = path.partition("/")[0]
        self._requests += 1
        said = {
            "id": f"r{self._requests}",
            "operation": "update" if data else "read",
            "mount_point": f"{mount}/",
            "mount_type": mount,
            "path": path,
            "data": data,
            "client_token_accessor": auth["accessor"],
            "remote_address": "127.0.0.1",
            **({"wrap_ttl": wrap_ttl} if wrap_ttl else {}),
        }
        at = (self.now + self.skew).isoformat().replace("+00:00", "Z")
        self._write({"time": at, "type": "request", "auth": auth, "request": said})
        answer = {"time": at, "type": "response", "auth": auth, "request": said, "response": response or {}}
        self._write(answer | ({"error": f"1 error occurred:\n\t* {error}\n\n"} if error else {}))

    def make_child(self, label: dict[str, str], accessor: str, policy: str = POLICY) -> dict[str, Any]:
        """Make a child token; returns how it shows in its own requests."""
        child = {"accessor": accessor, "policies": [policy], "metadata": label}
        hidden = {"meta": {name: "hmac-sha256:00" for name in label}}
        session = {"accessor": SESSION, "policies": ["toolcrib-broker"]}
        self.request("auth/token/create/toolcrib-call", session, hidden, response={"auth": child})
        return child

    def read_login(self, child: dict[str, Any], lease_id: str, path: str = PATH) -> None:
        """Have a child read a login."""
        secret = {"lease_id": lease_id} if lease_id else {}
        self.request(path, child, response={"secret": secret, "data": {"password": "hmac-sha256:00"}})

    def end(self, accessor: str, lease_id: str = "") -> None:
        """Revoke lease and child, and look both up."""
        session = {"accessor": SESSION, "policies": ["toolcrib-broker"]}
        if lease_id:
            self.request("sys/leases/revoke", session, {"lease_id": lease_id, "sync": True})
        self.request("auth/token/revoke-accessor", session, {"accessor": accessor})
        if lease_id:
            self.request("sys/leases/lookup", session, {"lease_id": lease_id}, error="invalid request")
        self.request("auth/token/lookup-accessor", session, {"accessor": accessor}, error="invalid accessor")

    # --- our side ----------------------------------------------------------------------------------------
    def record(self, kind: str, label: dict[str, str], **details: Any) -> None:
        """Add a record about a call."""
        head = Anchor(len(self.records), self.records[-1].hash) if self.records else START
        facts = {"digest": label["digest"], **details}
        event = AuditEvent(
            kind, label["tenant"], label["environment"], self.now, label["call_id"], details=facts
        )
        self.records.append(seal(event, head, KEY["k1"], "k1"))

    # --- both --------------------------------------------------------------------------------------------
    def label(self, **other: str) -> dict[str, str]:
        """Label a new call."""
        return {
            "call_id": make_call_id(),
            "tenant": "shop",
            "environment": "dev",
            "digest": "ab" * 32,
        } | other

    def new_accessor(self) -> str:
        """Name another child."""
        self._children += 1
        return f"accessor-{self._children}"

    def run_call(self, **other: str) -> tuple[dict[str, str], str, str]:
        """Make a call with one login, from its reservation to the confirmed end; label, accessor, lease."""
        label, accessor = self.label(**other), self.new_accessor()
        lease_id = f"{PATH}/{accessor}"
        self.record("call.reserved", label)
        self.read_login(self.make_child(label, accessor), lease_id)
        self.succeed(label, accessor, lease_id)
        self.end(accessor, lease_id)
        self.record("lease.ended", label, lease=lease_id, accessor=accessor, credential="orders_read")
        self.now += timedelta(seconds=1)
        return label, accessor, lease_id

    def succeed(self, label: dict[str, str], accessor: str, lease_id: str) -> None:
        """Record a call's end with its lease."""
        lease = {"lease": lease_id, "accessor": accessor, "engine": "database", "role": "shop-read"}
        self.record("call.succeeded", label, leases=[{**lease, "credential": "orders_read"}])

    async def compare(self, window: Window | None = None) -> Comparison:
        """Compare both sides as they are now."""
        file = io.BytesIO(b"".join(self.lines))
        return await compare(self.records_after, Walk(KEY), LogLines([file]), window or Window())

    async def differences(self, window: Window | None = None) -> list[tuple[str, str]]:
        """Compare; kinds with the calls that they are about, sorted."""
        found = (await self.compare(window)).differences
        return sorted((one.kind.value, one.call_id) for one in found)

    async def records_after(self, sequence: int) -> AsyncIterator[AuditRecord]:
        """Give the chain's records, as a store does."""
        for record in self.records[sequence:]:
            yield record

    def _write(self, entry: dict[str, Any]) -> None:
        self.lines.append(json.dumps(entry).encode() + b"\n")
