"""`toolcrib egress explain` for people and for programs."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from broker.cli import main
from broker.cli.egress_explain import describe, summarize
from broker.cli.output import show_one
from toolcrib.v1 import egress_pb2

REFUSED = egress_pb2.ExplainEgressResponse(
    check="GRANT",
    why="the manifest allows it, the grant's rules do not; @egress of a has for github: GET /search/issues",
    target="github",
    rule="GET /search/issues?q={text}",
    grant_id="a",
    opened=True,
)
ALLOWED = egress_pb2.ExplainEgressResponse(
    allowed=True,
    check="ALLOWED",
    why="a rule allows it",
    target="github",
    injected="token",
    injected_form="bearer",
    dropped_headers=["cookie", "x-a"],
)


def test_says_what_refuses_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show_one(summarize(REFUSED), "table")
    lines = capsys.readouterr().out.splitlines()

    assert lines[0] == "answer  refused, by the check GRANT"
    assert "target  github, TLS is opened on the way" in lines
    assert max(map(len, lines)) <= 80


def test_says_what_is_added_and_left_out() -> None:
    assert summarize(ALLOWED) == {
        "answer": "allowed",
        "why": "a rule allows it",
        "target": "github",
        "adds": "token as bearer",
        "leaves_out": "cookie, x-a",
    }


def test_says_all_of_it_to_programs() -> None:
    found = json.loads(json.dumps(describe(ALLOWED)))

    assert set(found) == {field.name for field in egress_pb2.ExplainEgressResponse.DESCRIPTOR.fields}
    assert found["dropped_headers"] == ["cookie", "x-a"]


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--header", "accept"], "NAME: VALUE"), (["--environment", "dev"], "name the --agent too")],
)
def test_says_how_it_is_used(words: list[str], said: str) -> None:
    result = CliRunner().invoke(
        main, ["egress", "explain", "--tool", "a.v1.B/C", "https://a.example/", *words]
    )

    assert result.exit_code == 2
    assert said in result.stderr
