"""Searches the issues and pull requests of one repository."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from github.v1 import github_pb2

from toolcrib.handler import Failure

from .api import Api, read_number

if TYPE_CHECKING:
    from toolcrib.handler import Context

_DEFAULT_LIMIT = 10
_MOST_TITLE, _MOST_BODY, _MOST_NAME, _MOST_LABELS = 300, 4000, 100, 100
_MOST_COMMENTS = 2**31 - 1
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
# Written in capitals these are operators: "x OR y repo:a/b" finds x in every repository of the token's.
_OPERATORS = re.compile(r"\b(AND|OR|NOT)\b")
_KINDS = {github_pb2.ISSUE: "is:issue", github_pb2.PULL_REQUEST: "is:pull-request"}
_STATES = {github_pb2.OPEN: "state:open", github_pb2.CLOSED: "state:closed"}


def search_issues(
    request: github_pb2.SearchIssuesRequest, context: Context
) -> github_pb2.SearchIssuesResponse:
    """Search one repository; the qualifiers are ours, the contract lets none into the words.

    How GitHub reads a query is GitHub's matter and changes, so each issue found has to be the repository's.

    Raises:
        Failure: REPOSITORY_UNKNOWN, OTHER_REPOSITORY, ANSWER_UNREADABLE, or what `Api` raises.
    """
    parts = (
        _OPERATORS.sub(lambda found: found[0].lower(), request.words.strip()),
        f"repo:{request.repository}",
        _KINDS.get(request.kind, ""),
        _STATES.get(request.state, ""),
    )
    limit = request.limit or _DEFAULT_LIMIT
    query = {"q": " ".join(part for part in parts if part), "per_page": limit}
    answer = Api(context).get("/search/issues", query)
    if answer.status == 422:  # GitHub's word for a repository that is not there, or that the token cannot see
        raise Failure("REPOSITORY_UNKNOWN", "There is no such repository for the tool's token.")
    try:
        if answer.status != 200:
            raise ValueError("no answer of a search")
        return _read(answer.document, limit, request.repository)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Failure("ANSWER_UNREADABLE", "GitHub gave no list of issues that can be read.") from error


def _read(document: Any, limit: int, repository: str) -> github_pb2.SearchIssuesResponse:
    response = github_pb2.SearchIssuesResponse(
        total=read_number(document["total_count"]), incomplete=bool(document["incomplete_results"])
    )
    items = document["items"][:limit]
    end = f"/repos/{repository}".lower()
    if not all(item["repository_url"].lower().endswith(end) for item in items):
        text = "GitHub found issues of another repository: it was renamed, or the words mean something to it."
        raise Failure("OTHER_REPOSITORY", text)
    response.issues.extend(_read_issue(item) for item in items)
    return response


def _read_issue(item: Any) -> github_pb2.Issue:
    body = _text(item.get("body"), _MOST_BODY + 1)
    updated = _text(item.get("updated_at"), _MOST_NAME)
    return github_pb2.Issue(
        number=read_number(item["number"]),
        is_pull_request="pull_request" in item,
        state=github_pb2.CLOSED if item["state"] == "closed" else github_pb2.OPEN,
        title=_text(item["title"], _MOST_TITLE),
        body=body[:_MOST_BODY],
        is_cut=len(body) > _MOST_BODY,
        author=_text((item.get("user") or {}).get("login"), _MOST_NAME),
        labels=[_text(label["name"], _MOST_NAME) for label in item["labels"][:_MOST_LABELS]],
        comments=min(max(read_number(item["comments"]), 0), _MOST_COMMENTS),
        updated_at=updated if _TIME.fullmatch(updated) else "",
    )


def _text(value: Any, most: int) -> str:
    """Cut a text; what is none, or has half of a surrogate pair, becomes one."""
    text = value if isinstance(value, str) else ""
    return text[:most].encode("utf-8", "replace").decode()
