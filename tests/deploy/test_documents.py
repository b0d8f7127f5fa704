"""The documentation's examples are true."""

from __future__ import annotations

import re
import textwrap
import tomllib
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from broker.settings import Name, read_settings
from broker.target_settings import Target
from deploy.site import conf

ROOT = Path(__file__).resolve().parents[2]


def test_reads_the_settings_that_the_documentation_shows(tmp_path: Path) -> None:
    shown = re.search(r"```toml\n(.*?)```", (ROOT / "docs/operating.md").read_text(), re.DOTALL)
    assert shown is not None
    (tmp_path / "toolcrib.toml").write_text(shown[1])
    settings = read_settings(tmp_path / "toolcrib.toml")
    assert settings.environments == ("prod", "staging")
    assert settings.state.path == tmp_path / "state.db"


def test_names_every_reason_on_the_way_of_a_call() -> None:
    reasons = set(re.findall(r"REASON_(\w+) = [1-9]", (ROOT / "proto/toolcrib/v1/reasons.proto").read_text()))
    named = set(re.findall(r"`([A-Z_]+)`", (ROOT / "docs/path.md").read_text()))
    elsewhere = {"CALL_UNKNOWN", "BRAKE_UNKNOWN", "PAGE_TOKEN_INVALID", "GRANTS_INVALID", "PLAN_STALE"}
    elsewhere |= {"BUNDLE_INVALID", "VERSION_EXISTS", "BREAKING_CHANGE", "SELF_REVIEW"}
    assert reasons - named == elsewhere


def test_lists_every_page_on_the_site_once() -> None:
    listed = [page for pages in conf.CONTENTS.values() for page in pages]
    files = (path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md"))
    pages = {file.with_suffix("").as_posix() for file in files if file.parts[0] not in ("adr", "reference")}
    assert sorted(listed) == sorted(pages - {"index"} | {"adr/README", "reference/README"})


def read_targets() -> dict[str, Target]:
    """Read the targets that the pages show within their text, by name."""
    pages = [ROOT / "docs/authors.md", *(ROOT / "docs/tools").glob("*.md")]
    form = re.compile(r"^ +\[targets\.([^\]]+)\]\n((?: +\w+ = .*\n)+)", re.MULTILINE)
    shown = [block for page in pages for block in form.findall(page.read_text())]
    return {name: Target.model_validate(tomllib.loads(textwrap.dedent(text))) for name, text in shown}


def test_shows_targets_that_can_be_declared() -> None:
    targets = read_targets()
    names = {"orders-crm-service", "web-pages", "files-store", "github", "s3", "crm", "notes-mail"}
    assert targets.keys() >= names
    TypeAdapter(list[Name]).validate_python(list(targets))


@pytest.mark.parametrize("name", ["web-pages", "files-store"])
def test_shows_the_origins_of_all_hosts_that_a_handler_asks(name: str) -> None:
    target = read_targets()[name]
    hosts = " ".join(target.settings[key] for key in ("host", "hosts") if key in target.settings).split()
    assert list(target.origins) == [f"http://{host}" for host in hosts] != []
