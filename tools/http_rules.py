"""What a tool may ask of an HTTP target: rules over method, path, query and headers, in one line each.

    GET /search/issues?q={text}&per_page={int}
    POST /repos/{owner:slug}/{repo:slug}/pulls
    GET /pages/{path:rest}?*

Manifest, grant, proxy and `toolcrib egress explain` read and match them by this module alone, with
`http_urls` (the one form of a URL) and `http_patterns` (the types in braces). They need the standard library
only: the proxy loads them. A request that is not plain matches nothing: it is refused, never repaired.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tools.http_patterns import PatternInvalid, compile_path, compile_value, fits_value
from tools.http_urls import (
    Authority,
    Url,
    decode_text,
    is_plain_path,
    is_plain_query,
    make_origin,
    read_authority,
    read_origin,
    read_target,
)

__all__ = [
    "Ask",
    "Authority",
    "Check",
    "HttpRule",
    "RuleInvalid",
    "Url",
    "Verdict",
    "is_unlistable",
    "judge",
    "make_origin",
    "parse_rule",
    "read_authority",
    "read_origin",
    "read_target",
]

MAX_RULE_CHARACTERS = 1000
MAX_PARAMETERS = 100
PASSING_HEADERS = frozenset(
    {
        "accept",
        "accept-language",
        "cache-control",
        "content-encoding",
        "content-language",
        "content-type",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "pragma",
        "range",
        "user-agent",
    }
)
"""What passes without being listed: it says how a body is meant, not who asks or what for."""
FRAMING_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""What belongs to one connection or to the framing: the proxy writes its own, no rule speaks of it."""
UNLISTABLE_HEADERS = FRAMING_HEADERS | {
    "forwarded",
    "front-end-https",
    "http2-settings",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-method-override",
    "x-middleware-subrequest",
    "x-real-ip",
}
"""What no rule may let pass: some targets take another method, path, host or sender from these."""
_UNLISTABLE_FAMILIES = ("proxy-", "x-envoy-", "x-forwarded", "x-http-", "x-original-", "x-rewrite-")
"""How others of the kind begin: what proxies tell those behind them, and overrides of method and path."""
_METHOD = re.compile(r"[A-Z][A-Z-]{0,19}", re.ASCII)
_NEVER_METHODS = frozenset({"CONNECT", "TRACE", "TRACK", "PRI"})
_PARAMETER = re.compile(r"[A-Za-z0-9._~$\[\]-]{1,64}", re.ASCII)
_BRACKETS = re.compile("%5[BbDd]")
_HEADER = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)


class RuleInvalid(ValueError):
    """A rule says nothing that a request can be held to; the text says what to write."""


class Check(enum.StrEnum):
    """Which check decided about a request."""

    ALLOWED = "ALLOWED"
    URL = "URL"
    TARGET = "TARGET"
    OPAQUE = "OPAQUE"
    METHOD = "METHOD"
    PATH = "PATH"
    QUERY = "QUERY"
    HEADER = "HEADER"
    GRANT = "GRANT"


@dataclass(frozen=True, slots=True)
class HttpRule:
    """One rule.

    Attributes:
        method: For example "GET".
        path: The template, for example "/repos/{owner:slug}/{repo:slug}/pulls".
        query: Patterns by name; None: any query. Empty: no query. An empty pattern: the name alone.
        require: Names of the query that have to be there.
        headers: Patterns by lower-case name, beside the headers that always pass.
        text: The line as it was written.
    """

    method: str
    path: str
    query: Mapping[str, str] | None
    require: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as rules see it.

    Attributes:
        method: As it was sent.
        path: The raw path, percent-encoded as it was sent, without query.
        query: The raw query; None where there is no "?".
        headers: Names in lower case, in the order in which they came.
    """

    method: str
    path: str
    query: str | None = None
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What rules say to a request.

    Attributes:
        check: `Check.ALLOWED`, or the check that got furthest before it refused.
        why: A sentence for people; no value of the request stands in it.
        rule: What allowed it; None where nothing did. Where only the grant refused: what the manifest allows.
        grant_rule: Which rule of the grant allowed it as well; None where the grant has none.
        dropped: Names of headers that do not pass; they are left out, not refused.
    """

    check: Check
    why: str = ""
    rule: HttpRule | None = None
    grant_rule: HttpRule | None = None
    dropped: tuple[str, ...] = ()


def parse_rule(text: str, require: Iterable[str] = (), headers: Mapping[str, str] | None = None) -> HttpRule:
    """Read one rule.

    Args:
        text: "METHOD /path" with its query, as the module shows it.
        require: Names of its query that have to be there.
        headers: Patterns of headers, "application/json" or "{int}", by name.

    Raises:
        RuleInvalid: The text says what to write.
    """
    if len(text) > MAX_RULE_CHARACTERS:
        raise RuleInvalid(f"is longer than {MAX_RULE_CHARACTERS} characters")
    method, space, target = text.partition(" ")
    _check_method(method, space)
    path, mark, query = target.partition("?")
    try:
        compile_path(path)
        wanted = _parse_query(query) if mark else {}
        required = _check_required(require, wanted)
        return HttpRule(method, path, wanted, required, _parse_headers(headers or {}), text)
    except PatternInvalid as error:
        raise RuleInvalid(str(error)) from None


def _check_method(method: str, space: str) -> None:
    if not space or not _METHOD.fullmatch(method):
        raise RuleInvalid('must begin with a method in capital letters and a space: "GET /path"')
    if method in _NEVER_METHODS:
        raise RuleInvalid(
            f"the method {method} is never passed on: it shows or opens what lies behind the rules"
        )


def _parse_query(text: str) -> dict[str, str] | None:
    if text == "*":
        return None
    wanted: dict[str, str] = {}
    for part in text.split("&"):
        name, _, pattern = part.partition("=")
        if not _PARAMETER.fullmatch(name):
            raise PatternInvalid(
                f'"{part}" is no parameter: write name={{type}}, or "?*" alone for any query'
            )
        if name in wanted:
            raise PatternInvalid(f"the parameter {name} stands twice")
        compile_value(pattern, "query")
        wanted[name] = pattern
    return wanted


def _check_required(require: Iterable[str], wanted: Mapping[str, str] | None) -> frozenset[str]:
    required = frozenset(require)
    missing = sorted(required - set(wanted or ()))
    if missing:
        raise PatternInvalid(f"require names {missing[0]}, which the query of the rule does not list")
    return required


def _parse_headers(headers: Mapping[str, str]) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for written, pattern in headers.items():
        name = written.lower()
        if not _HEADER.fullmatch(name) or name in wanted:
            raise PatternInvalid(f'"{written}" is no header, or stands twice: write its name once')
        if is_unlistable(name):
            raise PatternInvalid(f"the header {name} cannot be let pass: leave it out")
        compile_value(pattern, "header")
        wanted[name] = pattern
    return wanted


def is_unlistable(header: str) -> bool:
    """Tell whether a header may be neither let pass nor added, in any case and with "_" for "-"."""
    name = header.lower().replace("_", "-")
    return name in UNLISTABLE_HEADERS or name.startswith(_UNLISTABLE_FAMILIES)


def judge(rules: Sequence[HttpRule], ask: Ask, narrowed: Sequence[HttpRule] | None = None) -> Verdict:
    """Tell whether a request may pass.

    Args:
        rules: The manifest's for the target; the first that fits allows.
        ask: The request.
        narrowed: The grant's for the same target: one of these has to fit as well. None: the grant has none.

    Returns:
        The verdict; where it refuses, with the check that got furthest.
    """
    if not is_plain_path(ask.path) or not is_plain_query(ask.query or ""):
        return Verdict(Check.URL, "the path or the query is of no form that every parser reads alike")
    rule, check = _find(rules, ask)
    if rule is None:
        return Verdict(check, _WHY[check])
    if narrowed is None:
        return Verdict(Check.ALLOWED, "a rule allows it", rule, dropped=_find_dropped(rule, ask))
    grant_rule, _ = _find(narrowed, ask)
    if grant_rule is None:
        return Verdict(Check.GRANT, "the manifest allows it, the grant's rules do not", rule)
    dropped = _find_dropped(rule, ask)
    return Verdict(
        Check.ALLOWED, "a rule of the manifest and one of the grant allow it", rule, grant_rule, dropped
    )


_ORDER = (Check.METHOD, Check.PATH, Check.QUERY, Check.HEADER)
_WHY = {
    Check.METHOD: "no rule allows this method",
    Check.PATH: "no rule allows this path for this method",
    Check.QUERY: "a rule allows the path, but not this query",
    Check.HEADER: "a rule allows the path, but not what a header says that it lists",
}


def _find(rules: Sequence[HttpRule], ask: Ask) -> tuple[HttpRule | None, Check]:
    """Return the first rule that fits, or the check that got furthest."""
    furthest = 0
    for rule in rules:
        failed = _fail(rule, ask)
        if failed is None:
            return rule, Check.ALLOWED
        furthest = max(furthest, _ORDER.index(failed))
    return None, _ORDER[furthest]


def _fail(rule: HttpRule, ask: Ask) -> Check | None:
    """Return the check that a request fails at one rule."""
    if ask.method != rule.method:
        return Check.METHOD
    if not compile_path(rule.path).fullmatch(ask.path):
        return Check.PATH
    if not _fits_query(rule, ask.query):
        return Check.QUERY
    return None if _fits_headers(rule, ask.headers) else Check.HEADER


def _fits_query(rule: HttpRule, query: str | None) -> bool:
    if rule.query is None:
        return True
    if query is None:
        return not rule.require
    parts = query.split("&")
    if len(parts) > MAX_PARAMETERS:
        return False
    seen: set[str] = set()
    for part in parts:
        raw, mark, value = part.partition("=")
        name = decode_text(raw)
        if name is None or name in seen or not _fits_parameter(rule.query.get(name), raw, mark, value):
            return False
        seen.add(name)
    return rule.require <= seen


def _fits_parameter(pattern: str | None, raw: str, mark: str, value: str) -> bool:
    """Tell whether one parameter is as its pattern says; in a name only "[" and "]" may be escapes."""
    if pattern is None or "%" in _BRACKETS.sub("", raw):
        return False
    if not mark:
        return pattern == ""
    return fits_value(pattern, "query", value)


def _fits_headers(rule: HttpRule, headers: Sequence[tuple[str, str]]) -> bool:
    seen: set[str] = set()
    for name, value in headers:
        pattern = rule.headers.get(name)
        if pattern is None:
            continue
        if name in seen or not fits_value(pattern, "header", value):
            return False
        seen.add(name)
    return True


def _find_dropped(rule: HttpRule, ask: Ask) -> tuple[str, ...]:
    passing = PASSING_HEADERS | FRAMING_HEADERS | set(rule.headers)
    return tuple(dict.fromkeys(name for name, _ in ask.headers if name not in passing))
