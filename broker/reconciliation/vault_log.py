"""Reads Vault's own audit log (one JSON object a line) as happenings to child tokens and leases.

Rules:
1. A line that cannot be read is a difference; nothing is skipped in silence.
2. Vault writes each request twice: when it comes and with its answer. Both must be there, and say the same of
   the request: who edits one line has to edit the other, and both leave traces in what they are about.
3. What happened is read from answers; only what a child asked for counts even when it was refused. Who asks
   for a wrapped answer hides it from the log: the token made so is found by its accessor all the same.
4. A look-up proves an end only by Vault's words for "not known"; a denied or broken one proves nothing.

Vault's log is not chained: that lines about something of which no other line and no record of ours knows were
taken out cannot be seen. Keep the log where its writer cannot change it.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from broker.reconciliation.differences import Difference, Kind, Report
from credentials.audit_settings import HIDDEN
from credentials.policies import TOKEN_ROLE, TOOL_POLICY_PREFIX

MAX_LINE_BYTES = 8 * 1024 * 1024
IN_FLIGHT = timedelta(seconds=15)
"""A request that is younger than this at the end of the log may still be answered."""
_SAME = ("operation", "path", "data", "client_token_accessor", "remote_address", "remote_port")
_SAME_AUTH = ("accessor", "policies", "metadata")
"""Of a child's own requests: which it is, what it may do, and for which call."""
_REVOKE_LEASE, _LOOKUP_LEASE = ("sys/leases/revoke", "sys/revoke"), ("sys/leases/lookup",)
_REVOKE_TOKEN, _LOOKUP_TOKEN = "auth/token/revoke-accessor", "auth/token/lookup-accessor"
_MAKE_CHILD = f"auth/token/create/{TOKEN_ROLE}"
_DEVICE_TEST = "sys/audit/test"
"""Vault writes a request with this path, and no answer, when it opens an audit device."""
_UNKNOWN_LEASE = ("invalid request", "invalid lease")
_UNKNOWN_TOKEN = ("invalid accessor",)


class LogHidden(Exception):
    """The log hides accessors, so that nothing in it can be matched. The text says what to set."""


class What(enum.Enum):
    """What happened to a child token or its lease."""

    MADE = enum.auto()
    USED = enum.auto()
    LEASED = enum.auto()
    LEASE_REVOKED = enum.auto()
    LEASE_GONE = enum.auto()
    REVOKED = enum.auto()
    GONE = enum.auto()


@dataclass(frozen=True, slots=True)
class Happening:
    """One of them, as Vault wrote it.

    Attributes:
        policies: Of the child token; those of tools only, and none where a wrapped answer hides them.
        wrapped: The answer was to be wrapped, which hides it from the log.
        label: The child's metadata: call_id, tenant, environment, digest.
    """

    what: What
    line: int
    at: datetime
    accessor: str = ""
    lease_id: str = ""
    policies: tuple[str, ...] = ()
    label: Mapping[str, str] = field(default_factory=dict)
    path: str = ""
    mount: str = ""
    mount_type: str = ""
    wrapped: bool = False


@dataclass(frozen=True, slots=True)
class _Asked:
    line: int
    at: datetime
    digest: bytes
    path: str


class VaultLog:
    """One reading of a log.

    Attributes:
        lines: How many were read.
        end: The latest time read.
        hidden: How often a lease id or accessor was hidden where the tuning of the mounts shows it.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._asked: dict[str, _Asked] = {}
        self.lines = self.hidden = 0
        self.end: datetime | None = None

    def read(self, lines: Iterable[bytes]) -> Iterator[Happening]:
        """Read on. A last line without its end is still being written, and is left alone.

        Raises:
            LogHidden: Accessors are hidden.
        """
        for raw in lines:
            self.lines += 1
            entry = _parse(raw)
            if entry is not None:
                yield from self._take(entry)
            elif raw.endswith(b"\n") or len(raw) > MAX_LINE_BYTES:
                self._differs(Kind.UNREADABLE, "is no line of an audit log: cut off, overwritten or edited")

    def finish(self) -> None:
        """Report the requests that have no answer, but for those that may still get one."""
        for asked in self._asked.values():
            late = self.end is not None and self.end - asked.at > IN_FLIGHT
            if late and asked.path != _DEVICE_TEST:
                text = f"{asked.path}: the log goes on, and the answer is not in it"
                self._report(Difference(Kind.NO_RESPONSE, text, line=asked.line))

    @property
    def open_requests(self) -> int:
        """How many requests wait for their answer."""
        return len(self._asked)

    def _take(self, entry: _Entry) -> Iterator[Happening]:
        self.end = max(self.end or entry.at, entry.at)
        if entry.is_request:
            if entry.id in self._asked:
                self._differs(Kind.CHANGED, f"{entry.path}: a second request with the id of another")
            self._asked[entry.id] = _Asked(self.lines, entry.at, entry.digest, entry.path)
            yield from self._read_use(entry)
            return
        self._compare(entry, self._asked.pop(entry.id, None))
        yield from self._read_answer(entry)

    def _compare(self, entry: _Entry, asked: _Asked | None) -> None:
        if asked is None:
            self._differs(Kind.NO_REQUEST, f"{entry.path}: an answer, and its request is not in the log")
        elif asked.digest != entry.digest:
            text = f"{entry.path}: says something else of its request than line {asked.line}"
            self._differs(Kind.CHANGED, text)

    def _read_use(self, entry: _Entry) -> Iterator[Happening]:
        """What a child asks for counts when it asks, granted or not."""
        policies = _tool_policies(entry.auth)
        if policies:
            yield Happening(
                What.USED,
                self.lines,
                entry.at,
                accessor=_text(entry.auth, "accessor"),
                policies=policies,
                label=_label(entry.auth),
                path=entry.path,
                mount=_text(entry.request, "mount_point").strip("/"),
                mount_type=_text(entry.request, "mount_type"),
                wrapped=bool(entry.request.get("wrap_ttl")),
            )

    def _read_answer(self, entry: _Entry) -> Iterator[Happening]:
        given = _part(entry.response, "auth")
        policies = _tool_policies(given)
        if not entry.error and (policies or entry.path == _MAKE_CHILD):
            wrapped = _text(_part(entry.response, "wrap_info"), "wrapped_accessor")
            accessor = self._check_shown(_text(given, "accessor") or wrapped)
            label = _label(given)
            yield Happening(What.MADE, self.lines, entry.at, accessor, policies=policies, label=label)
        lease_id = _text(_part(entry.response, "secret"), "lease_id")
        if lease_id and _tool_policies(entry.auth):
            accessor = _text(entry.auth, "accessor")
            yield Happening(What.LEASED, self.lines, entry.at, accessor, lease_id)
        yield from self._read_end(entry)

    def _read_end(self, entry: _Entry) -> Iterator[Happening]:
        lease_id = self._shown(entry, "lease_id")
        accessor = self._shown(entry, "accessor")
        what: What | None = None
        if entry.path in _REVOKE_LEASE:
            what = What.LEASE_REVOKED if not entry.error else None
        elif entry.path in _LOOKUP_LEASE:
            what = What.LEASE_GONE if _says(entry.error, _UNKNOWN_LEASE) else None
        elif entry.path == _REVOKE_TOKEN:
            what = What.REVOKED if not entry.error or _says(entry.error, _UNKNOWN_TOKEN) else None
        elif entry.path == _LOOKUP_TOKEN:
            what = What.GONE if _says(entry.error, _UNKNOWN_TOKEN) else None
        if what is not None:
            yield Happening(what, self.lines, entry.at, accessor, lease_id)

    def _check_shown(self, accessor: str) -> str:
        if accessor.startswith(HIDDEN):
            raise LogHidden(
                f"line {self.lines}: accessors are hidden, so nothing can be matched; set "
                'hmac_accessor = "false" on the audit device'
            )
        return accessor

    def _shown(self, entry: _Entry, name: str) -> str:
        value = _text(_part(entry.request, "data"), name)
        if not value.startswith(HIDDEN):
            return value
        self.hidden += 1
        return ""

    def _differs(self, kind: Kind, detail: str) -> None:
        self._report(Difference(kind, detail, line=self.lines))


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line that has the form of an audit entry."""

    is_request: bool
    id: str
    at: datetime
    path: str
    error: str
    auth: Mapping[str, Any]
    request: Mapping[str, Any]
    response: Mapping[str, Any]

    @property
    def digest(self) -> bytes:
        """Name what both lines of a request must say alike."""
        whose = _tool_policies(self.auth) and [self.auth.get(name) for name in _SAME_AUTH]
        said = json.dumps([whose, *(self.request.get(name) for name in _SAME)], sort_keys=True)
        return hashlib.blake2b(said.encode(), digest_size=16).digest()


def _parse(raw: bytes) -> _Entry | None:
    if len(raw) > MAX_LINE_BYTES:
        return None
    try:
        said = json.loads(raw)
        at = datetime.fromisoformat(said["time"])
        request = said["request"]
        if at.tzinfo is None or said["type"] not in ("request", "response"):
            return None
        return _Entry(
            is_request=said["type"] == "request",
            id=str(request["id"]),
            at=at,
            path=str(request["path"]),
            error=str(said.get("error") or ""),
            auth=_part(said, "auth"),
            request=request,
            response=_part(said, "response"),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = whole.get(name)
    return found if isinstance(found, dict) else {}


def _text(part: Mapping[str, Any], name: str) -> str:
    found = part.get(name)
    return found if isinstance(found, str) else ""


def _tool_policies(auth: Mapping[str, Any]) -> tuple[str, ...]:
    named = auth.get("policies")
    if not isinstance(named, list):
        return ()
    return tuple(name for name in named if isinstance(name, str) and name.startswith(TOOL_POLICY_PREFIX))


def _label(auth: Mapping[str, Any]) -> Mapping[str, str]:
    return {name: str(value) for name, value in _part(auth, "metadata").items()}


def _says(error: str, words: Iterable[str]) -> bool:
    return any(word in error for word in words) and "permission denied" not in error
