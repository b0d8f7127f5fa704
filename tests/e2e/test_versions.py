"""A version is looked at, compared, promoted and taken back, by the commands, on a running broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from tests.e2e.stack import Crib
from tests.parts.crib import CACHE_DIR
from toolcrib.v1 import registry_pb2, registry_pb2_grpc
from tools.skeleton import plan_bundle, write_bundle

pytestmark = [pytest.mark.engine, pytest.mark.openbao, pytest.mark.postgres]


class Author:
    """Ada with a bundle, and Rob who reviews it."""

    def __init__(self, crib: Crib, folder: Path, name: str) -> None:
        self.crib, self.folder, self.name = crib, folder, name
        write_bundle(plan_bundle(name, "read"), folder)

    def run(self, who: str, *words: str | Path, tenant: str = "shop") -> Result:
        role = {"ada": "author", "rob": "reviewer", "refund-desk": "agent"}[who]
        profile = self.crib.profile(who, role, tenant).cert_path.parent
        return CliRunner().invoke(main, ["tools", *map(str, words), "--profile", str(profile)])

    def change(self, name: str, old: str, new: str) -> None:
        file = next(self.folder.rglob(name))
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    def release(self, version: str) -> None:
        """Register the folder as a version, and make it stable."""
        where = ("--engine", self.crib.stack.engine.base_url, "--cache", CACHE_DIR)
        for who, *words in (
            ("ada", "register", self.folder, *where),
            ("rob", "review", self.name, version, "--accept"),
            ("rob", "promote", self.name, version),
        ):
            result = self.run(who, *words)
            assert result.exit_code == 0, result.output

    def stable(self) -> str:
        with self.crib.profile("ada", "author").connect() as channel:
            stub = registry_pb2_grpc.RegistryStub(channel)
            request = registry_pb2.GetVersionRequest(bundle=self.name, version="stable")
            return str(stub.GetVersion(request).version.version)


@pytest.fixture(scope="module")
def author(running_crib: Crib, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Author]:
    """Ada, whose bundle has two versions; the second one is looser and stable."""
    author = Author(running_crib, tmp_path_factory.mktemp("bundle") / "wording", "wording")
    author.release("1.0.0")
    author.change("tool.yaml", "version: 1.0.0", "version: 1.1.0")
    author.change("wording.proto", "max_len: 80", "max_len: 800")
    author.release("1.1.0")
    yield author
    for version in ("1.0.0", "1.1.0"):  # the stack is that of all tests: they shall not see its tool
        assert author.run("rob", "review", "wording", version, "--reject").exit_code == 0


def test_gives_what_was_registered(author: Author):
    with author.crib.profile("ada", "author").connect() as channel:
        stub = registry_pb2_grpc.RegistryStub(channel)
        found = stub.GetVersion(registry_pb2.GetVersionRequest(bundle="wording", version="1.0.0"))
    assert found.manifest_yaml == (author.folder / "tool.yaml").read_text().replace("1.1.0", "1.0.0")
    assert (found.version.version, b"GreetRequest" in found.descriptor_set) == ("1.0.0", True)


@pytest.mark.parametrize(
    ("name", "role", "tenant", "code"),
    [
        ("refund-desk", "agent", "shop", grpc.StatusCode.PERMISSION_DENIED),
        ("ada", "author", "rival", grpc.StatusCode.NOT_FOUND),
    ],
)
def test_gives_it_to_people_of_the_tenant_alone(
    author: Author, name: str, role: str, tenant: str, code: grpc.StatusCode
):
    with author.crib.profile(name, role, tenant).connect() as channel:
        stub = registry_pb2_grpc.RegistryStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetVersion(registry_pb2.GetVersionRequest(bundle="wording", version="1.0.0"))
    assert caught.value.code() is code


def test_shows_what_is_between_two_versions(author: Author):
    result = author.run("ada", "diff", "wording", "1.0.0", "1.1.0")
    line = "! wording.v1.GreetRequest.name: rule string.max_len: 80 → 800  (constraint loosened)"
    assert (result.exit_code, " ".join(line.split()) in " ".join(result.stdout.split())) == (0, True), (
        result.output
    )


def test_shows_what_a_folder_changes_of_the_stable_version(author: Author):
    kept = (author.folder / "tool.yaml").read_text()
    author.change("tool.yaml", "deadline_seconds: 5", "deadline_seconds: 50")
    result = author.run("ada", "diff", author.folder, "-o", "json")
    (author.folder / "tool.yaml").write_text(kept)
    (found,) = json.loads(result.stdout)
    assert found["change"] == "deadline seconds: 5.0 → 50.0"


def test_says_that_a_version_is_not_there(author: Author):
    result = author.run("ada", "diff", "wording", "9.9.9")
    assert (result.exit_code, "TOOL_UNKNOWN" in result.output) == (1, True)


def test_shows_a_reviewer_what_a_version_changes(author: Author):
    result = author.run("rob", "review", "wording", "1.0.0")
    assert "string.max_len: 800 → 80" in " ".join(result.stdout.split())
    rows = json.loads(author.run("rob", "review", "wording", "1.0.0", "-o", "json").stdout)
    assert "rule string.max_len: 800 → 80" in [row["change"] for row in rows["changes"]]


def test_goes_back_and_no_further_than_it_came(author: Author):
    result = author.run("rob", "rollback", "wording")
    assert (result.exit_code, "stable of wording: 1.1.0 → 1.0.0" in result.stderr) == (0, True), result.output
    assert author.stable() == "1.0.0"
    again = author.run("rob", "rollback", "wording")
    assert (again.exit_code, "named no other version before" in again.output) == (1, True)
    assert author.run("rob", "promote", "wording", "1.1.0").exit_code == 0
    assert author.stable() == "1.1.0"


def test_goes_back_only_from_what_was_seen(author: Author):
    result = author.run("rob", "rollback", "wording", "--leave", "1.0.0")
    assert (result.exit_code, "does not name 1.0.0 any more" in result.output) == (1, True)
    assert author.stable() == "1.1.0"


def test_goes_back_for_reviewers_alone(author: Author):
    result = author.run("ada", "rollback", "wording")
    assert (result.exit_code, "ROLE_REQUIRED" in result.output) == (1, True)


def test_goes_back_to_nothing_that_was_rejected_meanwhile(author: Author):
    store = author.crib.stack.broker.store
    steps = author.crib.run(store.alias_steps("shop", "wording", "stable"))
    assert list(steps) == ["1.1.0", "1.0.0"]
    assert author.run("rob", "review", "wording", "1.0.0", "--reject").exit_code == 0
    result = author.run("rob", "rollback", "wording")
    assert (result.exit_code, "is REJECTED" in result.output) == (1, True)
    assert author.run("rob", "review", "wording", "1.0.0", "--accept").exit_code == 0


def test_records_from_where_it_went_back(author: Author):
    async def read() -> list[dict[str, object]]:
        records = author.crib.stack.broker.store.audit_records()
        return [json.loads(record.payload)["details"] async for record in records]

    assert author.run("rob", "rollback", "wording").exit_code == 0
    last = [said for said in author.crib.run(read()) if said.get("back")][-1]
    assert (last["alias"], last["left"], last["version"]) == ("stable", "1.1.0", "1.0.0")
