"""`toolcrib tools watch` as a real process: runs again on change, and ends without leaving a sandbox."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import watchfiles

from broker.cli.watching import OwnFiles
from sandboxes.cgroups import find_cgroups
from sandboxes.folders import Folders
from tests.parts.crib import CACHE_DIR
from tools.skeleton import plan_bundle, write_bundle

TOOLCRIB = Path(sys.executable).parent / "toolcrib"


class Watch:
    """A `toolcrib tools watch` process on a new bundle."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder / "greeter", folder / "said"
        write_bundle(plan_bundle("greeter", "read"), self.folder)
        # Who started us may have Ctrl-C ignored, as a shell does for what runs in its background.
        heed = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL)"
        heed += "; os.execv(sys.argv[1], sys.argv[1:])"
        command = [
            *(sys.executable, "-c", heed),
            str(TOOLCRIB),
            "tools",
            "watch",
            str(self.folder),
            "--without-docker",
            "--cache",
            str(CACHE_DIR),
        ]
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    def wait_for(self, pattern: str, times: int = 1) -> str:
        deadline = time.monotonic() + 60
        while len(re.findall(pattern, self.said.read_text())) < times:
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.02)
        return self.said.read_text()

    def change(self, name: str, old: str, new: str) -> None:
        file = self.folder / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    def find_sandboxes(self) -> list[str]:
        prefix = f"try-{self.process.pid}-"
        return [group.name for group in find_cgroups().find() if group.installation.startswith(prefix)]

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@pytest.fixture
def watch(tmp_path: Path, bubblewrap_folders: Folders) -> Iterator[Watch]:
    watch = Watch(tmp_path)
    yield watch
    if watch.process.poll() is None:
        watch.end()


def test_runs_again_on_a_change_and_ends_cleanly(watch: Watch):
    watch.wait_for("watching ")
    watch.change("handler/greeting.py", "Hello", "Good day")
    watch.wait_for("watching ", 2)
    watch.change("tool.yaml", "  pids: 16", "  pis: 16")
    watch.wait_for("did you mean pids")
    said = watch.wait_for("watching ", 3)
    assert said.count("3 of 3 examples") == 2
    assert (watch.end(), watch.find_sandboxes()) == (0, [])


def test_runs_the_examples_alone_when_only_they_changed(watch: Watch):
    watch.wait_for("watching ")
    watch.change("examples/greet.yaml", "greets by name", "greets Ada")
    said = watch.wait_for("watching ", 2)
    assert (said.count("is fit to be registered"), "ok  greets Ada" in said) == (1, True)


def test_sees_a_change_that_is_made_while_it_runs(watch: Watch):
    watch.wait_for("is fit to be registered")
    watch.change("handler/greeting.py", "Hello", "Good day")
    said = watch.wait_for("watching ", 2)
    assert said.count("is fit to be registered") == 2


def test_leaves_no_sandbox_when_it_is_ended_in_the_middle(watch: Watch):
    watch.change("handler/greeting.py", "    if not", "    import time; time.sleep(60)\n    if not")
    deadline = time.monotonic() + 30
    while not watch.find_sandboxes():
        assert time.monotonic() < deadline, watch.said.read_text()
        time.sleep(0.01)
    assert (watch.end(), watch.find_sandboxes()) == (0, [])


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("tool.yaml", True),
        ("handler/a.py", True),
        ("handler/__pycache__/a.pyc", False),
        (".generated/a_pb2.py", False),
        ("cache/x", False),
    ],
)
def test_does_not_wake_up_of_what_it_writes_itself(tmp_path: Path, name: str, counts: bool):
    own = OwnFiles(tmp_path, tmp_path / "cache")
    assert own(watchfiles.Change.modified, str(tmp_path / name)) is counts
