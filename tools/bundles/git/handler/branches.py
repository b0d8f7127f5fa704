"""Lists branches, pushes a new one, and tells whether one was pushed.

A push makes two refs at once: the branch, and one that is named by the idempotency key. So a second run of
the same key finds the first one's commit, also when the branch was merged and deleted since; and the commit
says in its last lines which branch and which request it was.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from git.v1 import branches_pb2

from toolcrib.handler import Failure

from .repository import Repository, open_repository

if TYPE_CHECKING:
    from toolcrib.handler import Context

MOST_BRANCHES = 500
_HEADS, _KEYS = "refs/heads/", "refs/toolcrib/keys/"
_KEY = re.compile(r"[A-Za-z0-9]{1,128}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


async def list_branches(
    request: branches_pb2.ListBranchesRequest, context: Context
) -> branches_pb2.ListBranchesResponse:
    """Answer the branches that begin with a prefix."""
    async with open_repository(context, request.repository, "read") as repository:
        refs = await repository.refs(f"{_HEADS}*")
    names = sorted(ref.removeprefix(_HEADS) for ref in refs if ref.startswith(_HEADS + request.prefix))
    response = branches_pb2.ListBranchesResponse(more=len(names) > MOST_BRANCHES)
    for name in names[:MOST_BRANCHES]:
        response.branches.add(name=name, commit=refs[_HEADS + name])
    return response


async def push_branch(
    request: branches_pb2.PushBranchRequest, context: Context
) -> branches_pb2.PushBranchResponse:
    """Push a new branch with one commit: once, however often it is asked with one key.

    Raises:
        Failure: REPOSITORY_UNKNOWN, BASE_UNKNOWN, BRANCH_EXISTS, PATH_TAKEN, NOTHING_CHANGED, KEY_TAKEN, or
            what `Repository.push` raises.
    """
    _check_paths([file.path for file in request.files])
    branch, base = _HEADS + request.branch, _HEADS + request.base
    key = _KEYS + context.idempotency_key
    async with open_repository(context, request.repository, "push") as repository:
        refs = await repository.refs(branch, base, key)
        if key in refs:
            return await _earlier(repository, key, request)
        if base not in refs:
            raise Failure("BASE_UNKNOWN", f"There is no branch {request.base} to start from.")
        if branch in refs:
            raise Failure("BRANCH_EXISTS", f"The branch {request.branch} is there already; use a new name.")
        parent = await repository.fetch(base)
        await _check_places(repository, parent, request)
        commit = await _commit(repository, parent, request, context)
        await repository.push(commit, [branch, key])
    return branches_pb2.PushBranchResponse(
        repository=request.repository, branch=request.branch, commit=commit, base_commit=parent
    )


async def lookup_push(
    request: branches_pb2.LookupPushRequest, context: Context
) -> branches_pb2.LookupPushResponse:
    """Tell whether a branch was pushed under a key, in any repository of the manifest, and which."""
    if not _KEY.fullmatch(request.idempotency_key):
        return branches_pb2.LookupPushResponse(pushed=False)
    key = _KEYS + request.idempotency_key
    for name in sorted(context.targets):
        async with open_repository(context, name, "read") as repository:
            if key in await repository.refs(key):
                push = await _earlier(repository, key, None)
                return branches_pb2.LookupPushResponse(pushed=True, push=push)
    return branches_pb2.LookupPushResponse(pushed=False)


async def _earlier(
    repository: Repository, key: str, request: branches_pb2.PushBranchRequest | None
) -> branches_pb2.PushBranchResponse:
    """Read what was pushed under a key; refuse a key that holds something else than the request."""
    commit = await repository.fetch(key)
    text = (await repository.ask("cat-file", "commit", commit)).text
    # Ours are the last lines; the message above them is the agent's, and may hold the same words.
    said = dict(line.partition(": ")[::2] for line in text.splitlines()[-len(_TRAILERS) :])
    if request is not None and said.get("Toolcrib-Request") != _fingerprint(request):
        raise Failure("KEY_TAKEN", "The idempotency key holds another push; use a new key.")
    parent = next(line.partition(" ")[2] for line in text.splitlines() if line.startswith("parent "))
    return branches_pb2.PushBranchResponse(
        repository=repository.name, branch=said["Toolcrib-Branch"], commit=commit, base_commit=parent
    )


_TRAILERS = ("Toolcrib-Agent", "Toolcrib-Call", "Toolcrib-Branch", "Toolcrib-Request")


async def _commit(
    repository: Repository, parent: str, request: branches_pb2.PushBranchRequest, context: Context
) -> str:
    agent = _NOT_IN_NAMES.sub("-", context.agent) or "agent"
    values = (agent, context.call_id, request.branch, _fingerprint(request))
    lines = "\n".join(f"{name}: {value}" for name, value in zip(_TRAILERS, values, strict=True))
    message = f"{request.message.rstrip()}\n\n{lines}\n"
    who = f"{agent} <{agent}@{_NOT_IN_NAMES.sub('-', context.tenant)}.invalid> now"
    stream = b"".join(_import_stream(parent, message, who, request.files))
    await repository.ask("fast-import", "--quiet", "--date-format=now", "--done", data=stream)
    commit = (await repository.ask("rev-parse", "refs/made")).text
    trees = await repository.ask("rev-parse", f"{commit}^{{tree}}", f"{parent}^{{tree}}")
    if len(set(trees.text.split())) == 1:
        raise Failure("NOTHING_CHANGED", f"The files are on {request.base} already, with the same text.")
    return commit


def _import_stream(
    parent: str, message: str, who: str, files: Iterable[branches_pb2.File]
) -> Iterator[bytes]:
    """Write one commit in the language of git-fast-import."""
    yield f"commit refs/made\nauthor {who}\ncommitter {who}\n".encode()
    yield _data(message)
    yield f"from {parent}\n".encode()
    for file in files:
        yield f"M 100644 inline {file.path}\n".encode()
        yield _data(file.content)
    yield b"done\n"


def _data(text: str) -> bytes:
    body = text.encode()
    return b"data %d\n%s\n" % (len(body), body)


def _check_paths(paths: list[str]) -> None:
    """Refuse a path that stands twice, or that another one needs as a folder."""
    known = set(paths)
    for path in paths:
        if paths.count(path) > 1 or known & set(_parents(path)):
            raise Failure("PATH_TAKEN", f"{path}: stands twice, or another file is named like its folder.")


async def _check_places(repository: Repository, parent: str, request: branches_pb2.PushBranchRequest) -> None:
    """Refuse to put a file where a folder is, or below a file or a link: git would take those away."""
    wanted = {file.path: "blob" for file in request.files}
    for file in request.files:
        wanted |= {folder: "tree" for folder in _parents(file.path)}
    there = await repository.list_tree(parent)
    for path, kind in wanted.items():
        if there.get(path, kind) != kind:
            raise Failure("PATH_TAKEN", f"{path}: the base branch has something of another kind there.")


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _fingerprint(request: branches_pb2.PushBranchRequest) -> str:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
