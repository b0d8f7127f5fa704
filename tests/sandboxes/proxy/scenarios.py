"""Rules and URLs by a seed: what fits, what nearly fits, and what attackers write."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.sandboxes.proxy.oracle import Part, Place, Rule

METHODS = ["GET", "GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]
WORDS = ["repos", "issues", "v1", "a.b", "x~y", "me", "Items", "a-b", "search"]
NAMES = ["q", "page", "f[x]", "sort", "n", "uploads"]
SEGMENTS = ["segment", "segment", "slug", "int", "hex", "uuid", "a|b|c-d", "rest"]
VALUES = ["text", "text", "int", "slug", "hex", "uuid", "segment", "asc|desc"]
NASTY = [
    "..", ".", "...", "%2e", "%2E%2e", "..%2f", "%2F", "%5c", "\\", "%00", "%252e", "%252f",
    "%25%32%65", "%c0%af", "%c0%ae", "%EF%BC%8F", "%e2%80%a4", "..%20", ";", "..;a", "%e2%80%8b..",
    "..%3B", "%3b", "a..", "%25u002e",
    "%41", "%7E", "%0d%0a", "%zz", "%", "%2", "%u002e", "//", "@", ":", "%25", "%ff", "'", '"', "<",
    "{a}", "|", "^", "`", "+", ",", "=", "~", "é", "*", "!", "%C3%A9", "%20", "..a", "?",
]  # fmt: skip
HOSTS = [
    "API.example", "pages.example.", "pages..example", "user@pages.example", "pages.example:80",
    "pages.example:080", "pages.example:8080", "pages.example:65536", "other.example",
    "pages.example:0", "evil.example", "127.0.0.1", "[::1]", "0x7f.1", "pages.example@evil.example",
    "pages.example%2eevil.example", "-pages.example", "pages_.example", "pages.example:8a",
]  # fmt: skip
HEADERS = ["accept", "authorization", "cookie", "x-a", "x-b", "user-agent", "x-http-method-override"]


@dataclass
class Asked:
    """One request."""

    method: str
    url: str
    headers: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Scenario:
    """Targets with their rules, and requests to them."""

    places: list[Place]
    asked: list[Asked]


def make_scenarios(seed: int, rule_sets: int, urls: int) -> Iterator[Scenario]:
    """Make sets of rules, each with requests."""
    random_ = random.Random(seed)
    for _ in range(rule_sets):
        places = [
            Place("pages", "http", "pages.example", 80),
            Place("other", "http", "other.example", 8080),
            Place("secure", "https", "secure.example", 443),
            Place("blind", "http", "blind.example", 80, opaque=True),
            Place("hidden", "https", "hidden.example", 443, opaque=True),
        ]
        for place in places[:3]:
            place.rules = [make_rule(random_) for _ in range(random_.randint(1, 4))]
        if random_.random() < 0.4:
            narrow(places, random_)
        yield Scenario(places, [make_request(places, random_) for _ in range(urls)])


def narrow(places: list[Place], random_: random.Random) -> None:
    """Give them rules of a grant; what it does not name gets nothing."""
    for place in places:
        place.narrowed = []
        if not place.opaque and random_.random() < 0.8:
            kept = [rule for rule in place.rules if random_.random() < 0.5]
            own = [Rule(rule.method, rule.path, rule.slash, rule.query) for rule in kept]
            place.narrowed = [*own, make_rule(random_, plain=True)]


def make_rule(random_: random.Random, *, plain: bool = False) -> Rule:
    count = random_.randint(0, 4)
    path = [make_segment(random_, number == count - 1) for number in range(count)]
    rule = Rule(random_.choice(METHODS), path, slash=count > 0 and random_.random() < 0.1)
    chance = random_.random()
    if chance < 0.15:
        rule.query = None
    elif chance < 0.65:
        names = random_.sample(NAMES, random_.randint(1, 3))
        rule.query = {name: make_value(random_, name) for name in names}
        rule.require = [] if plain else [name for name in names if random_.random() < 0.3]
    if not plain and random_.random() < 0.3:
        rule.headers = {"x-a": Part("", random_.choice(["int", "text", "a|b"]))}
    return rule


def make_segment(random_: random.Random, last: bool) -> Part:
    if random_.random() < 0.5:
        return Part(random_.choice(WORDS))
    kind = random_.choice(SEGMENTS if last else SEGMENTS[:-1])
    if kind == "rest" or random_.random() < 0.8:
        return Part("", kind)
    return Part(random_.choice(["", "v", "x."]), kind, random_.choice(["", ".json", ":run"]))


def make_value(random_: random.Random, name: str) -> Part:
    if name == "uploads":
        return Part("")
    return Part("open") if random_.random() < 0.2 else Part("", random_.choice(VALUES))


def write_rule(rule: Rule) -> str:
    """Write a rule's line."""
    names = iter("abcdefgh")
    path = "/" + "/".join(write_segment(part, next(names)) for part in rule.path) + "/" * rule.slash
    if rule.query is None:
        return f"{rule.method} {path}?*"
    parts = [name if name == "uploads" else f"{name}={write_part(part)}" for name, part in rule.query.items()]
    return f"{rule.method} {path}" + (f"?{'&'.join(parts)}" if parts else "")


def write_segment(part: Part, name: str) -> str:
    if not part.kind:
        return part.before
    kind = "" if part.kind == "segment" else f":{part.kind}"
    return f"{part.before}{{{name}{kind}}}{part.after}"


def write_part(part: Part) -> str:
    """Write the pattern of a query's or a header's value."""
    return f"{part.before}{{{part.kind}}}{part.after}" if part.kind else part.before


def make_request(places: list[Place], random_: random.Random) -> Asked:
    """Make a request that fits a rule, and change it more often than not."""
    place = random_.choices(places, [5, 3, 3, 1, 1])[0]
    rule = random_.choice(place.rules or [Rule("GET", [])])
    segments = [fill(part, random_) for part in rule.path]
    query = [f"{name}={fill(part, random_)}" for name, part in (rule.query or {}).items()]
    query = [part for part in query if random_.random() < 0.8]
    if rule.query is None and random_.random() < 0.5:
        query.append("any=thing")
    asked = Asked(rule.method, "", [("accept", "*/*")])
    host = place.host if place.port in (80, 443) else f"{place.host}:{place.port}"
    for _ in range(random_.choice([0, 0, 1, 1, 2])):
        random_.choice([_bend_path, _bend_path, _bend_query, _bend_query, _bend_method, _bend_headers])(
            asked, segments, query, random_
        )
    if random_.random() < 0.12:
        host = random_.choice(HOSTS)
    if rule.headers and random_.random() < 0.6:
        asked.headers.append(("x-a", random_.choice(["1", "a", "-5", "", "x y", "b"])))
    path = "/" + "/".join(segments) + "/" * (rule.slash != (random_.random() < 0.04))
    asked.url = f"{place.scheme}://{host}{path}" + (f"?{'&'.join(query)}" if query else "")
    if random_.random() < 0.04:
        asked.url = _bend_url(asked.url, random_)
    return asked


def fill(part: Part, random_: random.Random) -> str:
    if not part.kind:
        return part.before
    return part.before + _fill_kind(part.kind, random_) + part.after


def _fill_kind(kind: str, random_: random.Random) -> str:
    made = {
        "segment": ["a", "a%20b", "x~y", "%C3%A9", "..a", "a.b", "%25", "a" * 1024, "a" * 1025],
        "slug": ["acme", "a.b", "0-1", "A_b"],
        "int": ["0", "-12", "007", "9" * 18],
        "hex": ["a", "0F", "deadbeef"],
        "uuid": ["123e4567-e89b-12d3-a456-426614174000"],
        "text": ["a+b", "", "x%26y", "is:open", "a=b", "a/b?c", "%0A", "100%25", "%7E"],
        "rest": ["a", "a/b", "a/b%20c/d", "a:(b)/@c"],
    }
    return random_.choice(made.get(kind) or kind.split("|"))


def _bend_path(asked: Asked, segments: list[str], query: list[str], random_: random.Random) -> None:
    place = random_.randint(0, len(segments))
    chance = random_.random()
    if chance < 0.3:
        segments.insert(place, random_.choice(NASTY))
    elif chance < 0.45:
        segments.insert(place, random_.choice([*WORDS, "a", "1", ""]))
    elif segments and chance < 0.6:
        segments.pop(min(place, len(segments) - 1))
    elif segments:
        at = min(place, len(segments) - 1)
        cut = random_.randint(0, len(segments[at]))
        segments[at] = segments[at][:cut] + random_.choice(NASTY) + segments[at][cut:]


def _bend_query(asked: Asked, segments: list[str], query: list[str], random_: random.Random) -> None:
    chance = random_.random()
    if query and chance < 0.3:
        query.append(random_.choice(query))
    elif chance < 0.6:
        name = random_.choice([*NAMES, "Q", "%71", "f%5bx%5D", "f%5Bx]", "admin", "", "q%00", "_method"])
        query.append(
            f"{name}{random_.choice(['=', '=', ''])}{random_.choice(['1', 'x', '', 'open', *NASTY])}"
        )
    elif query:
        at = random_.randrange(len(query))
        query[at] += random_.choice([*NASTY, "1", "&", ";x=1", "#x"])


def _bend_method(asked: Asked, segments: list[str], query: list[str], random_: random.Random) -> None:
    asked.method = random_.choice([*METHODS, "PATCH", "TRACE", "MOVE"])


def _bend_headers(asked: Asked, segments: list[str], query: list[str], random_: random.Random) -> None:
    asked.headers += [(random_.choice(HEADERS), random_.choice(["1", "a", "x"])) for _ in range(2)]


def _bend_url(url: str, random_: random.Random) -> str:
    other = url.replace("https", "http") if url.startswith("https") else url.replace("http", "https")
    bent = [f"{url}#part", url.replace("://", ":/"), url.upper(), url.replace("http", "ftp", 1), other]
    bent += [url.partition("?")[0][:-1], url + random_.choice(NASTY), url + "a" * 8192, f"{url}?"]
    return random_.choice([*bent, url.replace("/", "\\")])
