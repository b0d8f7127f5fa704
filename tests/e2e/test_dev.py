"""`toolcrib dev` as a real process: starts everything, prints what to paste, takes everything away."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.cli import main
from sandboxes.engine import Engine
from tests.parts import without

TOOLCRIB = Path(sys.executable).parent / "toolcrib"


class Dev:
    """A `toolcrib dev` process."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.state_dir, self.said = folder / "state", folder / "said"
        options = ["--listen", "127.0.0.1:0", "--metrics", "", *more]
        with self.said.open("wb") as said:
            command = [str(TOOLCRIB), "dev", "--state-dir", str(self.state_dir), *options]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    def wait_for(self, pattern: str) -> str:
        deadline = time.monotonic() + 120
        while not (found := re.search(pattern, self.said.read_text())):
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.02)
        return found[0]

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def left_processes(self) -> list[str]:
        """Processes, but for ours, that name the state folder."""
        lines = [path for path in Path("/proc").glob("[0-9]*/cmdline") if int(path.parent.name) != 1]
        return [text for path in lines if str(self.state_dir) in (text := read(path))]


def read(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture
def dev(tmp_path: Path, engine: Engine) -> Iterator[Dev]:
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    dev = Dev(tmp_path, "--engine", engine.base_url)
    yield dev
    if dev.process.poll() is None:
        dev.end()


def test_prints_what_to_paste_and_takes_everything_away(dev: Dev):
    profile = dev.wait_for(r"TOOLCRIB_PROFILE=\S+").partition("=")[2]
    dev.wait_for("Ctrl-C")
    result = CliRunner().invoke(main, ["tools", "list", "--profile", profile])
    assert "shop.v1.Orders/LookupOrder" in result.stdout
    assert dev.left_processes() != []
    assert dev.end() == 0
    assert dev.left_processes() == []
    assert not (dev.state_dir / "run").exists()


def test_leaves_no_core(dev: Dev):
    dev.wait_for("· PostgreSQL")
    limits = Path(f"/proc/{dev.process.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)


def test_gives_up_a_start_cleanly(dev: Dev):
    dev.wait_for("· PostgreSQL")
    assert dev.end() == 130
    assert dev.left_processes() == []


def test_empties_no_folder_that_is_not_its_own(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    command = [str(TOOLCRIB), "dev", "--state-dir", str(tmp_path)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 2
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
