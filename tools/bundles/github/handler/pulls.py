"""Opens a draft pull request once for each idempotency key, and finds it again.

GitHub has no idempotency keys. What it has, and what is built on:

1. The last line of the body is a mark with the call's key: `<!-- toolcrib-key: KEY -->`. Markdown does not
   show it. It comes with the pull request or not at all: both are made by one request.
2. The list of a repository's pull requests is read from the database, newest first. The search index, which
   could be asked for the key at once, lags behind: that it finds nothing says nothing.
3. Of one head and base there is at most one open pull request. A second POST is a 422.

Nobody but us knows a key before its pull request is there; then everybody can copy it. So ours is the oldest
with a mark, of those from a branch of the repository itself: a stranger's comes from a fork. A pull request
can be edited: who takes the mark out hides it from us.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from github.v1 import github_pb2

from toolcrib.handler import Failure

from .api import Answer, Api, make_unknown, read_number

if TYPE_CHECKING:
    from toolcrib.handler import Context

_PAGE, _MOST_PAGES = 30, 5
"""Real entries take some 20 KiB each, and a body up to 64 Ki characters."""
_NOT_OPENED = frozenset({301, 302, 303, 307, 308, 400, 404, 405, 406, 410, 413, 415, 422, 451})
"""By these GitHub says that nothing was opened, as by those of `Api`; by any other it says nothing clear."""


def open_draft_pull_request(
    request: github_pb2.OpenDraftPullRequestRequest, context: Context
) -> github_pb2.OpenDraftPullRequestResponse:
    """Open a draft: once, however often it is asked with one key.

    Raises:
        Failure: REPOSITORY_UNKNOWN, PULL_REQUEST_EXISTS, BRANCH_UNKNOWN, NOTHING_TO_MERGE, REQUEST_REFUSED or
            PULL_REQUEST_UNKNOWN, or what `Api` raises.
    """
    api, key = Api(context), context.idempotency_key
    if request.repository not in api.repositories:
        known = ", ".join(api.repositories) or "none: the operator declared no repositories"
        raise Failure("REPOSITORY_UNKNOWN", f"Pull requests may be opened in {known}.")
    earlier = _find_same(api, request, key)
    if earlier is not None:
        return earlier
    answer = api.post(f"/repos/{request.repository}/pulls", _compose(request, key))
    if answer.status == 201:
        return _read_made(request.repository, answer)
    if answer.status not in _NOT_OPENED:
        raise make_unknown()
    return _explain(api, request, key, answer)


def find_pull_request(
    request: github_pb2.FindPullRequestRequest, context: Context
) -> github_pb2.FindPullRequestResponse:
    """Look for a key's pull request among the newest of each declared repository.

    Raises:
        Failure: TOO_MANY_PULL_REQUESTS where it may be older than those, or what `Api` raises.
    """
    api = Api(context)
    if not api.repositories:
        raise Failure("TARGET_NOT_SET_UP", "The operator declared no repositories.")
    unsure: Failure | None = None
    for repository in api.repositories:
        pulls = _list_newest(api, repository, {})
        try:
            found = _find_marked(pulls, repository, request.idempotency_key)
        except Failure as failure:  # it may be in the next one all the same
            unsure = unsure or failure
            continue
        if found is not None:
            made = github_pb2.OpenDraftPullRequestResponse(repository=repository, number=found)
            return github_pb2.FindPullRequestResponse(opened=True, pull_request=made)
    if unsure is not None:
        raise unsure
    return github_pb2.FindPullRequestResponse(opened=False)


def _compose(request: github_pb2.OpenDraftPullRequestRequest, key: str) -> dict[str, object]:
    body = f"{request.body}\n\n{_mark(key)}" if request.body else _mark(key)
    return {
        "title": request.title,
        "head": request.head,
        "base": request.base,
        "body": body,
        "draft": True,
        "maintainer_can_modify": False,
    }


def _mark(key: str) -> str:
    return f"<!-- toolcrib-key: {key} -->"


def _find_same(
    api: Api, request: github_pb2.OpenDraftPullRequestRequest, key: str
) -> github_pb2.OpenDraftPullRequestResponse | None:
    """Find what an earlier run of this key opened from this branch; the broker lets a key mean one thing."""
    owner = request.repository.partition("/")[0]
    pulls = _list_newest(api, request.repository, {"head": f"{owner}:{request.head}"})
    number = _find_marked(pulls, request.repository, key)
    if number is None:
        return None
    return github_pb2.OpenDraftPullRequestResponse(repository=request.repository, number=number)


def _list_newest(api: Api, repository: str, narrower: dict[str, str]) -> Iterator[Any]:
    """List a repository's pull requests, newest first.

    Raises:
        Failure: TOO_MANY_PULL_REQUESTS where there are more than we read, or what `Api` raises.
    """
    query = {"state": "all", **narrower, "sort": "created", "direction": "desc", "per_page": str(_PAGE)}
    for page in range(1, _MOST_PAGES + 1):
        answer = api.get(f"/repos/{repository}/pulls", {**query, "page": str(page)})
        items = _read_list(answer)
        yield from items
        if len(items) < _PAGE and not answer.has_next:
            return
    where = "this branch; take another one" if narrower else f"{repository}; look there"
    text = f"It is not among the {_PAGE * _MOST_PAGES} newest pull requests of {where}."
    raise Failure("TOO_MANY_PULL_REQUESTS", text)


def _find_marked(items: Iterator[Any], repository: str, key: str) -> int | None:
    """Find the repository's own oldest with the key's mark in its last line; None where none has it.

    Raises:
        Failure: What reading on raises, unless one was found.
    """
    found: int | None = None
    try:
        for item in items:
            if _is_own(item, repository) and str(item.get("body") or "").rstrip().endswith(_mark(key)):
                number = read_number(item["number"])
                found = number if found is None else min(found, number)
    except Failure:
        if found is None:
            raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable() from error
    return found


def _is_own(item: Any, repository: str) -> bool:
    """Tell whether a pull request comes from a branch of the repository itself, and from no fork."""
    origin = item["head"]["repo"]  # None: the fork is gone
    return origin is not None and str(origin["full_name"]).lower() == repository.lower()


def _read_list(answer: Answer) -> list[Any]:
    if answer.status in (301, 307, 308, 404):
        text = "There is no such repository for the tool's token, or it has another name now."
        raise Failure("REPOSITORY_UNKNOWN", text)
    if answer.status != 200 or not isinstance(answer.document, list):
        raise _unreadable()
    return answer.document


def _read_made(repository: str, answer: Answer) -> github_pb2.OpenDraftPullRequestResponse:
    try:
        number = read_number(answer.document["number"])
        return github_pb2.OpenDraftPullRequestResponse(repository=repository, number=number)
    except (ValueError, TypeError, KeyError) as error:
        text = "GitHub's answer to the pull request cannot be read."
        raise Failure("PULL_REQUEST_UNKNOWN", text, effect="unknown") from error


def _explain(
    api: Api, request: github_pb2.OpenDraftPullRequestRequest, key: str, answer: Answer
) -> github_pb2.OpenDraftPullRequestResponse:
    """Say why GitHub opened nothing; or give what an earlier run opened in between.

    Raises:
        Failure: As `open_draft_pull_request`.
    """
    if answer.status == 404:
        raise Failure("REPOSITORY_UNKNOWN", "There is no such repository for the tool's token.")
    if answer.status == 422 and not isinstance(answer.document, dict):
        raise make_unknown()  # it may have said that there is one already, and that may be ours
    said = _read_errors(answer)
    if said["exists"]:
        return _read_own(api, request, key)
    if said["branch"]:
        raise Failure("BRANCH_UNKNOWN", "Head or base is no branch of the repository.")
    if said["same"]:
        raise Failure("NOTHING_TO_MERGE", "The branch has no commit that the base has not.")
    raise Failure("REQUEST_REFUSED", f"GitHub answered {answer.status}; nothing was opened.")


def _read_own(
    api: Api, request: github_pb2.OpenDraftPullRequestRequest, key: str
) -> github_pb2.OpenDraftPullRequestResponse:
    """There is an open one from the branch: what an earlier run of this key opened, or another one.

    Raises:
        Failure: PULL_REQUEST_EXISTS, or PULL_REQUEST_UNKNOWN where nobody can say whose it is.
    """
    try:
        earlier = _find_same(api, request, key)
    except Failure as error:
        raise make_unknown() from error
    if earlier is None:
        raise Failure("PULL_REQUEST_EXISTS", "An open pull request from this branch is there already.")
    return earlier


def _read_errors(answer: Answer) -> dict[str, bool]:
    """Read a 422: errors with `field` and `code`, or with code "custom" and words."""
    errors = answer.document.get("errors") if isinstance(answer.document, dict) else None
    known = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    words = [str(error.get("message", "")) for error in known]
    return {
        "exists": any(text.startswith("A pull request already exists") for text in words),
        "same": any(text.startswith("No commits between") for text in words),
        "branch": any(error.get("field") in ("head", "base") for error in known),
    }


def _unreadable() -> Failure:
    text = "GitHub gave no list of pull requests that can be read. Nothing was opened."
    return Failure("ANSWER_UNREADABLE", text)
