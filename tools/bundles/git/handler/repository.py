"""A repository behind a target, worked on by git's own commands: no working tree, no hooks, no shell.

Rules:
1. What an argument says never begins with a dash: the contract's patterns see to that, and refs are whole.
2. Standard error of git and OpenSSH goes to the tool's log; the caller gets words of ours.
3. A push counts as refused only when git says so of every ref; a lost connection leaves it unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from toolcrib.handler import Failure

from .route import open_route

if TYPE_CHECKING:
    from toolcrib.handler import Context
    from toolcrib.handler.failure import Effect

# Kept back from the deadline, so that the answer still gets out.
_RESERVE_SECONDS = 1.0
_LOG_BYTES = 4_000
_REFUSED = ("[rejected]", "[remote rejected]")


class Done(NamedTuple):
    """How a command of git ended."""

    code: int
    output: bytes

    @property
    def text(self) -> str:
        """Its standard output, without the last line's end."""
        return self.output.decode(errors="replace").rstrip("\n")


class Repository:
    """An empty repository in the sandbox's memory, and the real one that it fetches from and pushes to.

    Attributes:
        name: The operator's.
    """

    def __init__(self, context: Context, name: str, folder: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self._context, self._folder, self._environment = context, folder, environment
        path = context.targets[name].settings.get("repository", f"{name}.git")
        self._url = f"ssh://{name}/{path.lstrip('/')}"

    async def refs(self, *patterns: str) -> dict[str, str]:
        """Ask which refs there are; commits by ref.

        Raises:
            Failure: REPOSITORY_UNAVAILABLE.
        """
        done = await self.run("ls-remote", "--refs", self._url, *patterns)
        if done.code:
            raise _unavailable(self.name)
        return {ref: commit for commit, _, ref in (line.partition("\t") for line in done.text.splitlines())}

    async def fetch(self, ref: str) -> str:
        """Get one commit with its files, without its history; its id.

        Raises:
            Failure: REPOSITORY_UNAVAILABLE.
        """
        options = ["--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules"]
        options += ["--no-write-fetch-head", "--no-auto-maintenance"]
        fetched = await self.run("fetch", *options, self._url, f"+{ref}:refs/fetched")
        if fetched.code:
            raise _unavailable(self.name)
        return (await self.ask("rev-parse", "refs/fetched")).text

    async def list_tree(self, commit: str) -> dict[str, str]:
        """List what a commit holds: "blob", "tree" or "commit" (of another repository) by path.

        Raises:
            Failure: GIT_FAILED.
        """
        listed = (await self.ask("ls-tree", "-r", "-t", "-z", "--full-tree", commit)).text
        entries = (entry.partition("\t") for entry in listed.split("\0") if entry)
        return {path: what.split()[1] for what, _, path in entries}

    async def ask(self, *arguments: str, data: bytes = b"") -> Done:
        """Run a command that works in the sandbox only.

        Raises:
            Failure: GIT_FAILED.
        """
        done = await self.run(*arguments, data=data)
        if done.code:
            raise Failure(
                "GIT_FAILED", f"git {arguments[0]} failed; see the tool's log. Nothing was changed."
            )
        return done

    async def push(self, commit: str, refs: Sequence[str]) -> None:
        """Make new refs that point to a commit: all of them, or none.

        Raises:
            Failure: PUSH_REFUSED (nothing happened) or PUSH_UNKNOWN.
        """
        leases = [f"--force-with-lease={ref}:" for ref in refs]  # each must not be there yet
        sources = [f"{commit}:{ref}" for ref in refs]
        options = ["--porcelain", "--atomic", "--no-verify", *leases]
        done = await self.run("push", *options, self._url, *sources)
        if done.code == 0:
            return
        said = [line.split("\t")[-1] for line in done.text.splitlines() if line.startswith("!")]
        if len(said) == len(refs) and all(line.startswith(_REFUSED) for line in said):
            raise Failure("PUSH_REFUSED", "The repository refused the new branch; nothing was changed.")
        text = "The connection ended before the repository said whether it took the branch."
        raise Failure("PUSH_UNKNOWN", text, effect="unknown")

    async def run(self, *arguments: str, data: bytes = b"") -> Done:
        """Run one command of git to its end, or to the call's.

        Raises:
            Failure: TOO_LATE: it did not end in time; whoever pushes knows what that means.
        """
        process = await asyncio.create_subprocess_exec(
            "/usr/bin/git",
            "--git-dir",
            self._folder,
            *arguments,
            cwd=self._folder,
            env=dict(self._environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(max(self._context.remaining_seconds - _RESERVE_SECONDS, 0.1)):
                output, errors = await process.communicate(data)
        except TimeoutError as error:
            process.kill()
            effect: Effect = "unknown" if arguments[0] == "push" else "none"
            raise Failure("TOO_LATE", f"git {arguments[0]} did not end in time.", effect=effect) from error
        print(errors.decode(errors="replace")[-_LOG_BYTES:], end="", file=sys.stderr, flush=True)
        assert process.returncode is not None
        return Done(process.returncode, output)


@contextlib.asynccontextmanager
async def open_repository(context: Context, name: str, purpose: str) -> AsyncIterator[Repository]:
    """Hold a repository of the manifest.

    Args:
        context: The call's context.
        name: The target's.
        purpose: "read" or "push": which of the target's credentials is used.

    Raises:
        Failure: REPOSITORY_UNKNOWN or TARGET_NOT_SET_UP.
    """
    credential = f"{name}-{purpose}"
    if name not in context.targets or credential not in context.credentials:
        known = ", ".join(sorted(context.targets))
        raise Failure("REPOSITORY_UNKNOWN", f"There is no repository {name}; there is: {known}.")
    async with open_route(context, name, credential) as environment:
        with tempfile.TemporaryDirectory(prefix="git-") as folder:
            repository = Repository(context, name, folder, environment)
            await repository.ask("init", "--quiet", "--bare", "--template=", folder)
            yield repository


def _unavailable(name: str) -> Failure:
    text = f"The repository {name} cannot be reached, or its host key is not the declared one; see the log."
    return Failure("REPOSITORY_UNAVAILABLE", f"{text} Nothing was changed.", retryable=True)
