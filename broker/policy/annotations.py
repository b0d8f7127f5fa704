"""Reads a policy's annotations: the terms of a grant that Cedar carries but does not understand.

    @id("refund-small")                     required on every policy, unique over all files
    @ask("money leaves the shop")           a person has to approve each call
    @targets("orders-db, mail")             which of the operator's targets the call may reach
    @egress("crm GET /contacts/{id:int}")   which requests alone, at its targets of kind http
    @destinations("iban:DE89…, …")          values of destination fields that this grant trusts
    @limit_calls("10/1h, 50/1d")            how many calls
    @limit_amount("50000 EUR/1d")           how much money, in minor units (here 500.00 EUR)
    @expires("2027-01-01T00:00:00Z")        from then on the grant counts as absent

All but @id belong to a permit: a forbid has no terms and no end, it is removed. An unknown name is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from broker.model import BudgetLimit, Grant
from broker.policy.findings import name_nearest
from tools.http_rules import HttpRule, RuleInvalid, parse_rule

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TARGET = re.compile(r"[a-z0-9-]{1,63}")
_WINDOW = r"(?P<window>[1-9][0-9]{0,3})(?P<unit>[smhd])"
_CALLS = re.compile(rf"(?P<limit>[1-9][0-9]{{0,8}})/{_WINDOW}")
_AMOUNT = re.compile(rf"(?P<limit>[1-9][0-9]{{0,17}}) (?P<currency>[A-Z]{{3}})/{_WINDOW}")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_WINDOW_SECONDS = 366 * 86400
_MAX_ASK = 500
_MAX_TEXT = 10_000
_MAX_RULES = 200
"""Of @egress; the proxy takes no more for one target of a call."""
_MINOR = "minor:"


class AnnotationInvalid(Exception):
    """An annotation that says nothing a call can be held to; the text says what to write."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a policy's annotations say.

    Attributes:
        id: The policy's name; becomes the grant's id.
        ask: Why a person has to approve; empty when nobody has to.
        expires: From when on the policy counts as absent; None for never.
        egress: As `Grant.egress`.
    """

    id: str = ""
    ask: str = ""
    targets: frozenset[str] = frozenset()
    destinations: frozenset[str] = frozenset()
    limits: tuple[BudgetLimit, ...] = ()
    expires: datetime | None = None
    egress: tuple[tuple[str, HttpRule], ...] | None = None

    def grant(self) -> Grant:
        """Make the grant that a determining policy with these terms gives."""
        return Grant(self.id, self.ask, self.targets, self.destinations, self.limits, self.egress)

    @property
    def currency(self) -> str:
        """The one currency that amounts are limited in; empty where they are not limited."""
        units = [limit.unit for limit in self.limits if limit.unit.startswith(_MINOR)]
        return units[0].removeprefix(_MINOR) if units else ""


def read_terms(annotations: Mapping[str, str], effect: str) -> tuple[Terms, list[str]]:
    """Read the annotations of a "permit" or "forbid"; the second part says what is wrong, all at once.

    Terms of a policy with problems are only good for its id.
    """
    terms, problems = Terms(), []
    for name, text in sorted(annotations.items()):
        try:
            terms = _read(terms, name, text, effect)
        except AnnotationInvalid as error:
            problems.append(str(error))
    if not problems:
        problems += _find_beyond(terms)
    if "id" not in annotations:
        problems.append('has no @id; write @id("a-name-of-your-choice") above it')
    return terms, problems


def _read(terms: Terms, name: str, text: str, effect: str) -> Terms:
    reader = _READERS.get(name)
    if reader is None:
        raise AnnotationInvalid(f"@{name} is no annotation of a grant; {name_nearest(name, _READERS)}")
    if effect == "forbid" and name != "id":
        raise AnnotationInvalid(f"@{name} has no meaning on a forbid, which always holds; remove it")
    if len(text) > _MAX_TEXT:
        raise AnnotationInvalid(f"@{name} is longer than {_MAX_TEXT} characters; shorten it")
    return reader(terms, text)


def _read_id(terms: Terms, text: str) -> Terms:
    if not _ID.fullmatch(text):
        raise AnnotationInvalid("@id must be 1 to 128 of A-Z a-z 0-9 . _ - and begin with a letter or digit")
    return replace(terms, id=text)


def _read_ask(terms: Terms, text: str) -> Terms:
    if not text.strip() or len(text) > _MAX_ASK or not text.isprintable():
        raise AnnotationInvalid(
            f"@ask must say why, in one line of 1 to {_MAX_ASK} characters; "
            'write @ask("money leaves the shop")'
        )
    return replace(terms, ask=text.strip())


def _read_targets(terms: Terms, text: str) -> Terms:
    names = _parts("targets", text, '@targets("orders-db")')
    wrong = sorted(name for name in names if not _TARGET.fullmatch(name))
    if wrong:
        raise AnnotationInvalid(f'@targets: "{wrong[0]}" is no name of a target (1 to 63 of a-z 0-9 -)')
    return replace(terms, targets=frozenset(names))


def _read_destinations(terms: Terms, text: str) -> Terms:
    names = _parts("destinations", text, '@destinations("iban:DE89370400440532013000")')
    return replace(terms, destinations=frozenset(names))


def _read_limit_calls(terms: Terms, text: str) -> Terms:
    limits = _read_limits("limit_calls", text, _CALLS, '@limit_calls("10/1h")')
    return replace(terms, limits=(*terms.limits, *limits))


def _read_limit_amount(terms: Terms, text: str) -> Terms:
    limits = _read_limits("limit_amount", text, _AMOUNT, '@limit_amount("50000 EUR/1d") in minor units')
    if len({limit.unit for limit in limits}) > 1:
        raise AnnotationInvalid("@limit_amount names two currencies; write one permit for each currency")
    return replace(terms, limits=(*terms.limits, *limits))


def _read_expires(terms: Terms, text: str) -> Terms:
    try:
        expires = datetime.fromisoformat(text)
    except ValueError:
        expires = None
    if expires is None or expires.tzinfo is None or "T" not in text:
        raise AnnotationInvalid(
            '@expires must be a time with its zone; write @expires("2027-01-01T00:00:00Z")'
        )
    return replace(terms, expires=expires.astimezone(UTC))


def _read_egress(terms: Terms, text: str) -> Terms:
    example = '@egress("crm GET /contacts/{id:int}, crm POST /notes")'
    rules: list[tuple[str, HttpRule]] = []
    parts = _parts("egress", text, example)
    if len(parts) > _MAX_RULES:
        raise AnnotationInvalid(f"@egress has more than {_MAX_RULES} rules; write a permit for some of them")
    for part in parts:
        target, _, line = part.partition(" ")
        if not _TARGET.fullmatch(target) or not line:
            raise AnnotationInvalid(f'@egress: "{part}" is no target with a rule; write {example}')
        try:
            rules.append((target, parse_rule(line)))
        except RuleInvalid as error:
            raise AnnotationInvalid(f'@egress: "{part}": {error}') from error
    return replace(terms, egress=tuple(rules))


def _find_beyond(terms: Terms) -> list[str]:
    """Find rules for targets that the grant does not reach at all."""
    beyond = sorted({target for target, _ in terms.egress or ()} - terms.targets)
    if not beyond:
        return []
    return [f'@egress: the grant does not reach "{beyond[0]}"; name it in @targets too, or remove its rules']


def _read_limits(name: str, text: str, pattern: re.Pattern[str], example: str) -> list[BudgetLimit]:
    limits = [_limit(name, part, pattern, example) for part in _parts(name, text, example)]
    if len({(limit.unit, limit.window_seconds) for limit in limits}) < len(limits):
        raise AnnotationInvalid(f"@{name} limits the same over one window twice; keep one")
    return limits


def _limit(name: str, text: str, pattern: re.Pattern[str], example: str) -> BudgetLimit:
    found = pattern.fullmatch(text)
    seconds = int(found["window"]) * _SECONDS[found["unit"]] if found else 0
    if found is None or seconds > _MAX_WINDOW_SECONDS:
        raise AnnotationInvalid(
            f'@{name}: "{text}" is no limit; write {example}: a whole number above 0, then a window of whole '
            "s, m, h or d up to 366d (to allow nothing, remove the permit)"
        )
    currency = found.groupdict().get("currency")
    return BudgetLimit(f"{_MINOR}{currency}" if currency else "calls", int(found["limit"]), seconds)


def _parts(name: str, text: str, example: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part and part.isprintable() for part in parts):
        raise AnnotationInvalid(f"@{name} has an empty part; write a list like {example}, or remove it")
    return parts


_READERS: Mapping[str, Callable[[Terms, str], Terms]] = {
    "id": _read_id,
    "ask": _read_ask,
    "targets": _read_targets,
    "destinations": _read_destinations,
    "limit_calls": _read_limit_calls,
    "limit_amount": _read_limit_amount,
    "expires": _read_expires,
    "egress": _read_egress,
}
