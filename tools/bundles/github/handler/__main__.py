"""Serve one call of github.v1.GitHub, then end.

Run by the sandbox's init as `python3 -m handler` in the bundle's folder.
"""

from __future__ import annotations

from github.v1 import github_pb2

from toolcrib.handler import Handler

from .issues import search_issues
from .pulls import find_pull_request, open_draft_pull_request

handler = Handler()
handler.tool("github.v1.GitHub/SearchIssues", github_pb2.SearchIssuesRequest)(search_issues)
handler.tool("github.v1.GitHub/OpenDraftPullRequest", github_pb2.OpenDraftPullRequestRequest)(
    open_draft_pull_request
)
handler.tool("github.v1.GitHub/FindPullRequest", github_pb2.FindPullRequestRequest)(find_pull_request)

if __name__ == "__main__":
    handler.run()
