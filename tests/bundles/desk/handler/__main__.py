"""Serve one call of desk.v1.Desk, then end. Only checked, never run."""

from __future__ import annotations

METHODS = ("LookupTicket", "DraftAnswer", "SendAnswer", "LookupAnswer")
KEY_HEADER = "Idempotency-Key"

if __name__ == "__main__":
    raise SystemExit(f"serves {METHODS}, a key in {KEY_HEADER}")
