"""Pushing branches: once for a key, never over what is there, only as the contract lets it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from sandboxes.docker_driver import DockerDriver
from sandboxes.engine import Engine
from sandboxes.images import build_base, build_bundle
from tests.parts.engine import STATE
from tests.parts.sshd import SshdTarget
from tests.tools.bundles.git import GIT, GitTool, push_at_once
from tools.manifest import read_manifest
from tools.source import BundleSource, compile_bundle

pytestmark = [pytest.mark.engine, pytest.mark.sshd]

KEY = "ab" * 32


@pytest.fixture(scope="module")
def source() -> BundleSource:
    return compile_bundle(GIT)


@pytest.fixture(scope="module")
def git_image(engine: Engine, source: BundleSource) -> str:
    packages = read_manifest(source.manifest_yaml).image.packages
    base = build_base(engine, STATE / "cache", extras=packages)
    return build_bundle(engine, base, "git", source.files)


@pytest.fixture
def tool(git_image: str, source: BundleSource, driver: DockerDriver, sshd: SshdTarget) -> Iterator[GitTool]:
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(source.descriptor_set).file
    for file in files:
        pool.Add(file)
    messages: dict[str, Any] = message_factory.GetMessageClassesForFiles([file.name for file in files], pool)
    with tempfile.TemporaryDirectory(prefix="tc-") as folder:
        manifest = read_manifest(source.manifest_yaml)
        yield GitTool(git_image, manifest, messages, driver, sshd, Path(folder) / "run")


# --- what it does ------------------------------------------------------------------------------------------
async def test_pushes_a_branch_with_one_commit(tool: GitTool, sshd: SshdTarget) -> None:
    pushed = await tool.push()
    main = sshd.git("notes", "rev-parse", "main")
    assert pushed["branch"] == "agents/fix-typo"
    assert pushed["baseCommit"] == main == sshd.git("notes", "rev-parse", "agents/fix-typo^")
    assert pushed["commit"] == sshd.git("notes", "rev-parse", "agents/fix-typo")
    assert sshd.git("notes", "show", "agents/fix-typo:README.md") == "# Notes"
    listed = sshd.git("notes", "ls-tree", "-r", "--name-only", "agents/fix-typo")
    assert listed.split() == ["README.md", "bin/run", "docs/a-b.md", "link"]


async def test_says_in_the_commit_for_whom_it_was_made(tool: GitTool, sshd: SshdTarget) -> None:
    await tool.push()
    said = sshd.git("notes", "log", "-1", "--format=%an %ae%n%B", "agents/fix-typo").splitlines()
    assert said[:2] == ["fixer fixer@shop.invalid", "Fix a typo"]
    assert said[3:6] == ["Toolcrib-Agent: fixer", "Toolcrib-Call: call-1", "Toolcrib-Branch: agents/fix-typo"]


async def test_lists_branches(tool: GitTool, sshd: SshdTarget) -> None:
    await tool.push()
    everything = await tool.call("ListBranches", {"repository": "notes"})
    assert [branch["name"] for branch in everything["branches"]] == ["agents/fix-typo", "main"]
    agents = await tool.call("ListBranches", {"repository": "notes", "prefix": "agents/"})
    assert [branch["name"] for branch in agents["branches"]] == ["agents/fix-typo"]


# --- once --------------------------------------------------------------------------------------------------
async def test_answers_the_first_push_to_a_second_run_of_its_key(tool: GitTool, sshd: SshdTarget) -> None:
    first = await tool.push(KEY)
    sshd.git("notes", "branch", "-D", "agents/fix-typo")
    assert await tool.push(KEY) == first


async def test_refuses_a_key_that_holds_another_push(tool: GitTool) -> None:
    await tool.push(KEY)
    assert await tool.push(KEY, message="Another") == {"code": "KEY_TAKEN", "effect": "NONE"}


async def test_makes_one_commit_of_runs_at_once(tool: GitTool, sshd: SshdTarget) -> None:
    answers = await push_at_once(tool, 3, key=KEY)
    commits = {answer["commit"] for answer in answers if "commit" in answer}
    assert commits == {sshd.git("notes", "rev-parse", "agents/fix-typo")}
    assert {answer.get("code", "PUSH_REFUSED") for answer in answers} == {"PUSH_REFUSED"}


async def test_finds_a_push_by_its_key(tool: GitTool) -> None:
    assert await tool.call("LookupPush", {"idempotencyKey": KEY}) == {}
    pushed = await tool.push(KEY)
    assert await tool.call("LookupPush", {"idempotencyKey": KEY}) == {"pushed": True, "push": pushed}


async def test_is_not_told_by_a_message_what_was_pushed(tool: GitTool) -> None:
    pushed = await tool.push(KEY, message="x\n\nToolcrib-Branch: main\nToolcrib-Request: 0")
    assert (await tool.call("LookupPush", {"idempotencyKey": KEY}))["push"] == pushed


# --- what it refuses ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"repository": "other"}, "REPOSITORY_UNKNOWN"),
        ({"base": "nowhere"}, "BASE_UNKNOWN"),
        ({"files": [{"path": "README.md", "content": "# notes\n"}]}, "NOTHING_CHANGED"),
        ({"files": [{"path": "bin", "content": "x"}]}, "PATH_TAKEN"),
        ({"files": [{"path": "link/x", "content": "x"}]}, "PATH_TAKEN"),
        ({"files": [{"path": "a", "content": "x"}, {"path": "a/b", "content": "x"}]}, "PATH_TAKEN"),
        ({"files": [{"path": "a", "content": "x"}] * 2}, "PATH_TAKEN"),
    ],
)
async def test_changes_nothing_for_a_request_that_it_refuses(
    tool: GitTool, sshd: SshdTarget, changes: dict[str, Any], code: str
) -> None:
    before = sshd.git("notes", "for-each-ref")
    assert await tool.push(**changes) == {"code": code, "effect": "NONE"}
    assert sshd.git("notes", "for-each-ref") == before


async def test_never_changes_a_branch_that_is_there(tool: GitTool, sshd: SshdTarget) -> None:
    await tool.push()
    assert await tool.push(message="Again") == {"code": "BRANCH_EXISTS", "effect": "NONE"}
    inside = await tool.push(branch="agents/fix-typo/more")
    assert inside == {"code": "PUSH_REFUSED", "effect": "NONE"}


async def test_talks_to_no_server_with_another_host_key(tool: GitTool, tmp_path: Path) -> None:
    tool.settings["host_key"] = (
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3rKXL0FBZ0Sw0lW8Rk0rLq0mCkqkM0nQJ0tVbqC0nT"
    )
    assert await tool.push() == {"code": "REPOSITORY_UNAVAILABLE", "effect": "NONE"}
    assert "Host key verification failed" in tool.log


async def test_needs_a_declared_host_key(tool: GitTool) -> None:
    del tool.settings["host_key"]
    assert await tool.push() == {"code": "TARGET_NOT_SET_UP", "effect": "NONE"}


async def test_is_unsure_of_a_push_whose_answer_was_lost(tool: GitTool, sshd: SshdTarget) -> None:
    with sshd.held_answers() as held:
        running = asyncio.create_task(tool.push(KEY))
        async with asyncio.timeout(20):
            while not held.exists():
                await asyncio.sleep(0.05)
        await tool.cut()
        assert await running == {"code": "PUSH_UNKNOWN", "effect": "UNKNOWN"}
    assert (await tool.call("LookupPush", {"idempotencyKey": KEY}))["pushed"] is True
