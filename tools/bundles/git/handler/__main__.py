"""Serve one call of git.v1.Branches, then end.

Run by the sandbox's init as `python3 -m handler` in the bundle's folder.
"""

from __future__ import annotations

from git.v1 import branches_pb2

from toolcrib.handler import Handler

from .branches import list_branches, lookup_push, push_branch

handler = Handler()
handler.tool("git.v1.Branches/ListBranches", branches_pb2.ListBranchesRequest)(list_branches)
handler.tool("git.v1.Branches/PushBranch", branches_pb2.PushBranchRequest)(push_branch)
handler.tool("git.v1.Branches/LookupPush", branches_pb2.LookupPushRequest)(lookup_push)

if __name__ == "__main__":
    handler.run()
