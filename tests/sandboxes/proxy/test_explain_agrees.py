"""`egress explain`, the running proxy, and an oracle that shares no code with them: of one mind about URLs.

The proxy is a process, asked over its sockets with connections that are kept, all 10,000 times.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from broker.egress_explanation import EgressExplainer, Explanation, Request
from broker.model import Grant
from broker.policy.permits import Permit
from broker.stages.http_access import make_access, narrow
from sandboxes.proxy.access import HttpAccess, HttpTarget
from tests.sandboxes.proxy.doors import opening, running, serving
from tests.sandboxes.proxy.mouth import Mouth, Said, echo
from tests.sandboxes.proxy.oracle import Place, decide
from tests.sandboxes.proxy.scenarios import Asked, Scenario, make_scenarios, write_part, write_rule
from tools import http_patterns, http_rules, http_urls
from tools.http_rules import Verdict, parse_rule
from tools.manifest import Manifest

SEED, URLS = 20_261_121, 50
RULE_SETS = 200
TOOL = "web.v1.Web/Fetch"


Change = Callable[[HttpAccess], HttpAccess]


class Case:
    """A scenario as the broker has it."""

    def __init__(self, scenario: Scenario, port: int = 80, closed_port: int = 443) -> None:
        self.scenario = scenario
        self.manifest = Manifest.model_validate(write_manifest(scenario.places))
        self.targets = {
            place.name: declare(place, closed_port if place.scheme == "https" else port)
            for place in scenario.places
        }
        self.grant = write_grant(scenario.places)
        self._explainer = EgressExplainer(self.manifest, TOOL, self.targets)

    @property
    def accesses(self) -> list[HttpAccess]:
        return [make_access(self.manifest, name, None, narrow(self.grant, name)) for name in self.targets]

    def explain(self, asked: Asked) -> Explanation:
        permits = [Permit(self.grant, is_sure=True)]
        return self._explainer.explain(Request(asked.method, asked.url, tuple(asked.headers)), permits)

    def decide(self, asked: Asked) -> tuple[str, str, list[str]]:
        return decide(self.scenario.places, asked.method, asked.url, asked.headers)


def write_manifest(places: list[Place]) -> dict[str, object]:
    targets = {place.name: {"kind": "http", **write_target(place)} for place in places}
    tool = {"targets": [*targets], "deadline_seconds": 10}
    head = {"bundle": "web", "version": "1.0.0", "description": "Fetches.", "image": {"command": ["true"]}}
    return {**head, "targets": targets, "tools": {TOOL: tool}}


def write_target(place: Place) -> dict[str, object]:
    if place.opaque:
        return {"opaque": True}
    rules = [
        {
            "rule": write_rule(rule),
            "require": rule.require,
            "headers": {name: write_part(part) for name, part in rule.headers.items()},
        }
        for rule in place.rules
    ]
    return {"allow": rules, "limits": {"requests": 1000}}


def write_grant(places: list[Place]) -> Grant:
    names = frozenset(place.name for place in places)
    if places[0].narrowed is None:
        return Grant("g", targets=names)
    rules = [(place.name, parse_rule(write_rule(rule))) for place in places for rule in place.narrowed or ()]
    return Grant("g", targets=names, egress=tuple(rules))


def declare(place: Place, port: int) -> HttpTarget:
    own = {("http", 80): "", ("https", 443): ""}.get((place.scheme, place.port), f":{place.port}")
    return HttpTarget(place.name, "127.0.0.1", port, (f"{place.scheme}://{place.host}{own}",))


def compare(rule_sets: int) -> Iterator[tuple[Case, Asked, str]]:
    """Yield where explanation and oracle differ."""
    for scenario in make_scenarios(SEED, rule_sets, URLS):
        case = Case(scenario)
        for asked in scenario.asked:
            found = case.explain(asked)
            expected = case.decide(asked)
            if (found.check.value, found.target, list(found.dropped)) != (*expected[:2], dedupe(expected[2])):
                yield case, asked, f"{asked}: {found}, but the oracle says {expected}"


def dedupe(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


def test_explains_10_000_urls_as_the_oracle_does() -> None:
    assert RULE_SETS * URLS == 10_000
    assert [text for _, _, text in compare(RULE_SETS)] == []


def test_asks_about_every_check_often_enough() -> None:
    found = Counter(
        Case(scenario).decide(asked)[0]
        for scenario in make_scenarios(SEED, 60, URLS)
        for asked in scenario.asked
    )
    wanted = ("ALLOWED", "URL", "TARGET", "OPAQUE", "METHOD", "PATH", "QUERY", "HEADER", "GRANT")
    assert all(found[check] >= 15 for check in wanted), found


def agrees(asked: Asked, found: Explanation, said: Said) -> bool:
    """Tell whether the proxy did as explained: the check, what the target was asked, and its headers."""
    if (found.check, said.check) not in said.same:
        return False
    target = "/" + asked.url.partition("://")[2].partition("/")[2]
    return not said.path or (said.path == target and not set(found.dropped) & said.heard)


@asynccontextmanager
async def asking(rule_sets: int, change: Change = lambda access: access) -> AsyncIterator[Answers]:
    """Ask a running proxy what is explained, and hold what differs.

    Args:
        rule_sets: How many.
        change: What the proxy is given in place of each access.
    """
    answers = Answers()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there
        async with serving(echo) as server, running(connections=(64, 100_000)) as child:
            for number, scenario in enumerate(make_scenarios(SEED, rule_sets, URLS)):
                case = Case(scenario, server.port, closed.getsockname()[1])
                await Mouth.declare(child, case.targets.values())
                accesses = map(change, case.accesses)
                async with opening(child, *accesses, name=f"c{number}") as doors, Mouth(doors) as mouth:
                    for asked in scenario.asked:
                        answers.note(asked, case.explain(asked), await mouth.ask(asked))
            yield answers


@dataclass
class Answers:
    """What a proxy said.

    Attributes:
        count: Of the requests that it answered.
        wrong: Those of them that it answered otherwise than explained.
    """

    count: int = 0
    wrong: list[str] = field(default_factory=list)

    def note(self, asked: Asked, found: Explanation, said: Said | None) -> None:
        if said is not None:
            self.count += 1
            self.wrong += [] if agrees(asked, found, said) else [f"{asked}: {found}, but {said}"]


async def test_the_running_proxy_decides_as_explained() -> None:
    async with asking(RULE_SETS) as answers:
        assert answers.wrong == []
        assert answers.count >= RULE_SETS * URLS * 0.9


async def test_notices_a_proxy_that_was_given_something_else() -> None:
    """The control: it forgets what the grants narrow."""
    async with asking(6, lambda access: replace(access, narrowed=None)) as answers:
        assert answers.wrong


def _forget_repeats(rule: http_rules.HttpRule, query: str | None) -> bool:
    return rule.query is None or all(
        part.partition("=")[0] in rule.query for part in (query or "").split("&")
    )


def _ignore_grant(*arguments: object) -> Verdict:
    return REAL_JUDGE(*arguments[:2])  # type: ignore[arg-type]


def _let_go_on(path: str) -> re.Pattern[str]:
    return re.compile(REAL_PATH(path).pattern + ".*")


REAL_JUDGE = http_rules.judge
REAL_PATH = http_patterns.compile_path
FAULTS: dict[str, list[tuple[object, str, Callable[..., object]]]] = {
    "any path is plain": [(http_rules, "is_plain_path", bool), (http_urls, "is_plain_path", bool)],
    "any query is plain": [
        (http_rules, "is_plain_query", lambda _: True), (http_urls, "is_plain_query", lambda _: True),
    ],
    "a parameter may come twice": [(http_rules, "_fits_query", _forget_repeats)],
    "headers are not looked at": [(http_rules, "_fits_headers", lambda *_: True)],
    "the grant is forgotten": [("broker.egress_explanation", "judge", _ignore_grant)],
    "a path may go on": [(http_rules, "compile_path", _let_go_on)],
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_oracle_notices(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with a fault planted the two differ."""
    for module, name, planted in FAULTS[fault]:
        if isinstance(module, str):
            monkeypatch.setattr(f"{module}.{name}", planted)
        else:
            monkeypatch.setattr(module, name, planted)

    assert next(compare(40), None) is not None
