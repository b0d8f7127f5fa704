"""The github bundle's handler on its local GitHub, held to the rules of its own manifest."""

from __future__ import annotations

import runpy
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from credentials.injection import Form, Injection
from tests.parts.handlers import load_handler
from tests.tools.bundles.door import BUNDLES, Door, Said, read_rules, serve
from toolcrib.handler import Handler, testing

GITHUB = BUNDLES / "github"
PULL = {
    "repository": "acme/website",
    "head": "agents/faster-checkout",
    "base": "main",
    "title": "Make the checkout faster",
    "body": "It asked **twice**.",
}
KEY = "ab" * 32


class Bench(NamedTuple):
    """The handler, its messages, the way out and the server behind it."""

    handler: Handler
    messages: ModuleType
    door: Door
    hub: Any

    def login(self, token: str) -> None:
        """Inject this token from now on."""
        self.door.injection = Injection("github", Form.BEARER, {"token": token})

    def run(
        self,
        name: str,
        fields: dict[str, Any],
        key: str = KEY,
        repositories: str = "acme/website",
        seconds: float = 10,
    ) -> Any:
        request = getattr(self.messages, f"{name}Request")(**fields)
        call = {"targets": {"github": self.door.target(repositories=repositories)}, "idempotency_key": key}
        method = f"github.v1.GitHub/{name}"
        return testing.run(self.handler, method, request, remaining_seconds=seconds, **call)

    def pull_bodies(self) -> list[str]:
        return [pull["body"] for pull in self.hub.pulls["acme/website"]]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Handler, ModuleType]]:
    with load_handler(GITHUB, tmp_path_factory.mktemp("github"), "github.v1.github_pb2") as found:
        yield found


@pytest.fixture
def bench(loaded: tuple[Handler, ModuleType]) -> Iterator[Bench]:
    program = runpy.run_path(str(GITHUB / "dev" / "server.py"))
    hub = program["Hub"](("reader-token",), ("writer-token",))
    server = program["GitHubServer"](hub, socket.create_server(("127.0.0.1", 0)))
    with serve(server) as port:
        with serve(door := Door(port, "http://api.github.com", read_rules("github", "github"))):
            made = Bench(*loaded, door, hub)
            made.login("writer-token")
            yield made
    assert door.refused == [], "the handler asks what its manifest does not allow"


def test_finds_issues_by_words(bench: Bench):
    found = bench.run("SearchIssues", {"repository": "acme/website", "words": "prices twice"}).result
    assert [(issue.number, issue.title, issue.author) for issue in found.issues] == [
        (2, "Prices are shown twice", "mallory")
    ]
    assert list(found.issues[0].labels) == ["bug", "ui"]
    assert found.issues[0].updated_at == "2026-03-04T09:30:00Z"


def test_tells_issues_from_pull_requests(bench: Bench):
    bench.run("OpenDraftPullRequest", PULL)
    asked = {"repository": "acme/website", "kind": bench.messages.PULL_REQUEST}
    found = bench.run("SearchIssues", asked).result.issues
    assert [(issue.number, issue.is_pull_request) for issue in found] == [(4, True)]


def test_keeps_an_answer_to_its_limits(bench: Bench):
    bench.hub.add("acme/website", "t" * 999, "b" * 9_999, "ann", ("l" * 999,))
    asked = {"repository": "acme/website", "limit": 1, "words": "t" * 40}
    (issue,) = bench.run("SearchIssues", asked).result.issues
    assert (len(issue.title), len(issue.body), issue.is_cut, len(issue.labels[0])) == (300, 4000, True, 100)


def test_says_that_a_repository_is_unknown(bench: Bench):
    run = bench.run("SearchIssues", {"repository": "acme/nothing"})
    assert (run.failure.code, run.failure.effect) == ("REPOSITORY_UNKNOWN", "none")


@pytest.mark.parametrize(("token", "code"), [("wrong", "GITHUB_REFUSED"), ("reader-token", "GITHUB_REFUSED")])
def test_says_that_the_token_may_not(bench: Bench, token: str, code: str):
    bench.login(token)
    run = bench.run("OpenDraftPullRequest", PULL)
    assert (run.failure.code, run.failure.effect) == (code, "none")
    assert bench.pull_bodies() == []


def test_says_that_the_limit_is_reached(bench: Bench):
    bench.hub.limits["search"] = 1
    asked = {"repository": "acme/website"}
    assert bench.run("SearchIssues", asked).failure is None
    run = bench.run("SearchIssues", asked)
    assert (run.failure.code, run.failure.retryable) == ("RATE_LIMITED", True)


def test_opens_a_draft_with_the_keys_mark(bench: Bench):
    made = bench.run("OpenDraftPullRequest", PULL).result
    (pull,) = bench.hub.pulls["acme/website"]
    assert (made.number, made.repository, pull["draft"]) == (pull["number"], "acme/website", True)
    assert pull["body"].splitlines() == ["It asked **twice**.", "", f"<!-- toolcrib-key: {KEY} -->"]


def test_opens_one_for_a_key(bench: Bench):
    runs = [bench.run("OpenDraftPullRequest", PULL) for _ in range(3)]
    assert len({run.result.number for run in runs}) == 1
    assert len(bench.pull_bodies()) == 1


def test_opens_none_beside_one_of_another_key(bench: Bench):
    bench.run("OpenDraftPullRequest", PULL)
    run = bench.run("OpenDraftPullRequest", PULL, key="cd" * 32)
    assert (run.failure.code, run.failure.effect) == ("PULL_REQUEST_EXISTS", "none")


def test_opens_none_again_that_was_closed_meanwhile(bench: Bench):
    first = bench.run("OpenDraftPullRequest", PULL).result
    bench.hub.pulls["acme/website"][0]["state"] = "closed"
    assert bench.run("OpenDraftPullRequest", PULL).result == first
    assert len(bench.pull_bodies()) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"head": "agents/not-there"}, "BRANCH_UNKNOWN"),
        ({"base": "not-there"}, "BRANCH_UNKNOWN"),
        ({"head": "agents/nothing-new"}, "NOTHING_TO_MERGE"),
        ({"repository": "mallory/website"}, "REPOSITORY_UNKNOWN"),
    ],
)
def test_says_why_nothing_was_opened(bench: Bench, change: dict[str, str], code: str):
    run = bench.run("OpenDraftPullRequest", PULL | change)
    assert (run.failure.code, run.failure.effect) == (code, "none")
    assert bench.pull_bodies() == []


def test_does_not_know_when_the_answer_is_lost_and_finds_it_again(bench: Bench):
    bench.door.lose = "POST"
    run = bench.run("OpenDraftPullRequest", PULL)
    assert (run.failure.code, run.failure.effect) == ("PULL_REQUEST_UNKNOWN", "unknown")
    bench.login("reader-token")
    found = bench.run("FindPullRequest", {"idempotency_key": KEY}).result
    assert (found.opened, found.pull_request.number) == (True, 4)


def test_finds_nothing_where_nothing_was_opened(bench: Bench):
    repositories = "acme/website acme/handbook"
    run = bench.run("FindPullRequest", {"idempotency_key": KEY}, repositories=repositories)
    assert run.result.opened is False
    assert [path for _, path, _ in bench.door.asked if "/handbook/" in path]


def test_takes_the_oldest_of_two_with_one_mark(bench: Bench):
    first = bench.run("OpenDraftPullRequest", PULL).result.number
    copied = PULL | {"head": "agents/opening-hours", "body": f"mine\n<!-- toolcrib-key: {KEY} -->"}
    bench.run("OpenDraftPullRequest", copied, key="cd" * 32)
    bench.hub.pulls["acme/website"][1]["body"] = bench.hub.pulls["acme/website"][0]["body"]
    found = bench.run("FindPullRequest", {"idempotency_key": KEY}).result
    assert found.pull_request.number == first


def test_is_not_led_on_by_a_mark_that_an_agent_wrote(bench: Bench):
    bench.run("OpenDraftPullRequest", PULL | {"body": f"<!-- toolcrib-key: {KEY} -->"}, key="cd" * 32)
    assert bench.run("FindPullRequest", {"idempotency_key": KEY}).result.opened is False


def add_pulls(bench: Bench, repository: str, count: int, **changes: Any) -> None:
    """Add pull requests like the first one of acme/website, newer than all others."""
    first = bench.hub.pulls["acme/website"][0]
    pulls = bench.hub.pulls[repository]
    pulls.extend({**first, "number": 50 + more, "body": "", **changes} for more in range(count))


def lose_the_answer(bench: Bench) -> None:
    bench.door.lose = "POST"
    assert bench.run("OpenDraftPullRequest", PULL).failure.effect == "unknown"


def test_takes_no_copy_from_a_fork_for_its_own(bench: Bench):
    lose_the_answer(bench)
    fork = {"label": "mallory:x", "ref": "x", "repo": {"full_name": "mallory/website"}}
    body = bench.hub.pulls["acme/website"][0]["body"]
    add_pulls(bench, "acme/handbook", 1, body=body, head=fork)
    repositories = "acme/handbook acme/website"
    found = bench.run("FindPullRequest", {"idempotency_key": KEY}, repositories=repositories).result
    assert (found.pull_request.repository, found.pull_request.number) == ("acme/website", 4)


def test_control_a_copy_from_a_branch_of_the_repository_would_be_taken(bench: Bench):
    lose_the_answer(bench)
    own = {"label": "acme:x", "ref": "x", "repo": {"full_name": "acme/handbook"}}
    add_pulls(bench, "acme/handbook", 1, body=bench.hub.pulls["acme/website"][0]["body"], head=own)
    repositories = "acme/handbook acme/website"
    found = bench.run("FindPullRequest", {"idempotency_key": KEY}, repositories=repositories).result
    assert found.pull_request.repository == "acme/handbook"


def test_looks_on_where_one_repository_has_too_many(bench: Bench):
    lose_the_answer(bench)
    add_pulls(bench, "acme/handbook", 200)
    repositories = "acme/handbook acme/website"
    found = bench.run("FindPullRequest", {"idempotency_key": KEY}, repositories=repositories).result
    assert (found.opened, found.pull_request.number) == (True, 4)


def test_reads_on_after_a_short_page_that_has_a_next(bench: Bench):
    lose_the_answer(bench)

    def shorten(line: str, said: Said) -> Said:
        """Keep the first page's entries back, as GitHub may."""
        first = "page=1" in bench.door.asked[-1][1].replace("per_page", "")
        link = ("Link", '<https://api.github.com/x?page=2>; rel="next"')
        return (200, [*said[1], link], b"[]") if first and line.startswith("GET /repos") else said

    add_pulls(bench, "acme/website", 30)
    bench.door.twist = shorten
    assert bench.run("FindPullRequest", {"idempotency_key": KEY}).result.pull_request.number == 4


def test_finds_its_own_behind_many_from_the_same_branch(bench: Bench):
    bench.run("OpenDraftPullRequest", PULL)
    pulls = bench.hub.pulls["acme/website"]
    pulls[0]["state"] = "closed"
    pulls[:0] = [{**pulls[0], "number": 50 + more, "body": "older"} for more in range(40)]
    assert bench.run("OpenDraftPullRequest", PULL).result.number == 4


@pytest.mark.parametrize("status", [200, 202, 204, 408, 409, 500, 502])
def test_does_not_know_when_the_answer_says_nothing_clear(bench: Bench, status: int):
    def twist(line: str, said: Said) -> Said:
        return (status, [], b"") if line.startswith("POST") else said

    bench.door.twist = twist
    run = bench.run("OpenDraftPullRequest", PULL)
    assert (run.failure.code, run.failure.effect) == ("PULL_REQUEST_UNKNOWN", "unknown")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"number": 1e999}', b'{"number": "4"}', b'{"number": 4'])
def test_does_not_know_when_the_new_ones_number_cannot_be_read(bench: Bench, body: bytes):
    bench.door.twist = lambda line, said: (201, [], body) if line.startswith("POST") else said
    run = bench.run("OpenDraftPullRequest", PULL)
    assert (run.failure.code, run.failure.effect) == ("PULL_REQUEST_UNKNOWN", "unknown")


def test_does_not_say_that_nothing_was_opened_when_it_cannot_look(bench: Bench):
    """An earlier run's may be there: GitHub says that one is, and gives no list."""
    asked = []

    def twist(line: str, said: Said) -> Said:
        asked.append(line)
        return (503, [], b"") if len(asked) > 2 else said

    bench.run("OpenDraftPullRequest", PULL)
    bench.hub.pulls["acme/website"][0]["body"] = "edited"
    bench.door.twist = twist
    run = bench.run("OpenDraftPullRequest", PULL)
    assert (run.failure.code, run.failure.effect) == ("PULL_REQUEST_UNKNOWN", "unknown")


@pytest.mark.parametrize("cut", ["GET /search", ""])
def test_takes_no_part_of_an_answer_for_the_whole(bench: Bench, cut: str):
    bench.door.cut = cut
    run = bench.run("SearchIssues", {"repository": "acme/website"})
    assert (run.failure.code if run.failure else "") == ("GITHUB_UNAVAILABLE" if cut else "")


def test_gives_what_another_run_of_its_key_opened_meanwhile(bench: Bench):
    """Both looked, both found nothing, both sent; GitHub opened one."""
    first = bench.run("OpenDraftPullRequest", PULL).result
    answers: Iterator[Said] = iter([(200, [], b"[]")])
    bench.door.twist = lambda line, said: next(answers, said)
    assert bench.run("OpenDraftPullRequest", PULL).result == first
    assert [line[0] for line in bench.door.asked][-3:] == ["GET", "POST", "GET"]


@pytest.mark.parametrize(("seconds", "code"), [(1.9, "GITHUB_UNAVAILABLE"), (10, "")])
def test_sends_no_write_that_has_no_time(bench: Bench, seconds: float, code: str):
    run = bench.run("OpenDraftPullRequest", PULL, seconds=seconds)
    assert (run.failure.code if run.failure else "") == code
    assert len(bench.pull_bodies()) == (0 if code else 1)


def test_lets_no_word_be_an_operator(bench: Bench):
    bench.run("SearchIssues", {"repository": "acme/website", "words": "price OR NOT shown ANDROID"})
    assert "q=price%20or%20not%20shown%20ANDROID%20repo" in bench.door.asked[-1][1]


@pytest.mark.parametrize(("of", "code"), [("acme/handbook", "OTHER_REPOSITORY"), ("Acme/Website", "")])
def test_gives_no_issue_of_another_repository(bench: Bench, of: str, code: str):
    bench.hub.issues["acme/website"][0]["repository_url"] = f"https://api.github.com/repos/{of}"
    run = bench.run("SearchIssues", {"repository": "acme/website"})
    assert (run.failure.code if run.failure else "") == code


def test_does_not_say_no_when_there_are_too_many_to_look_at(bench: Bench):
    bench.run("OpenDraftPullRequest", PULL)
    pulls = bench.hub.pulls["acme/website"]
    pulls.extend({**pulls[0], "number": 5 + more, "body": ""} for more in range(200))
    run = bench.run("FindPullRequest", {"idempotency_key": KEY})
    assert run.failure.code == "TOO_MANY_PULL_REQUESTS"


def test_says_that_the_way_out_does_not_let_it(bench: Bench):
    bench.door.rules = ()
    run = bench.run("SearchIssues", {"repository": "acme/website"})
    assert (run.failure.code, run.failure.effect) == ("EGRESS_REFUSED", "none")
    bench.door.refused.clear()


def test_says_that_github_cannot_be_reached(bench: Bench, tmp_path: Path):
    bench.door.upstream = 9
    run = bench.run("SearchIssues", {"repository": "acme/website"})
    assert (run.failure.code, run.failure.retryable, run.failure.effect) == (
        "GITHUB_UNAVAILABLE",
        True,
        "none",
    )
