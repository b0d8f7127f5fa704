"""`toolcrib tools init` and `test`: new bundles run in real sandboxes, and what is wrong is told apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from broker.trial.fakes import run_fake
from sandboxes.cgroups import find_cgroups
from sandboxes.engine import Engine
from sandboxes.folders import Folders
from tests.parts.crib import CACHE_DIR

BARE = ("--without-docker", "--cache", str(CACHE_DIR))
GREETING = "handler/greeting.py"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["tools", *map(str, words)])


def make(tmp_path: Path, effect: str = "read") -> Path:
    folder = tmp_path / "price-list"
    result = run("init", "price-list", "--dir", folder, "--effect", effect)
    assert result.exit_code == 0, result.output
    return folder


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.fixture
def bare(bubblewrap_folders: Folders) -> Iterator[None]:
    """A host with bubblewrap; afterwards no sandbox of a trial is left."""
    yield
    prefix = f"try-{os.getpid()}-"
    assert [group.name for group in find_cgroups().find() if group.installation.startswith(prefix)] == []


@pytest.mark.parametrize("effect", ["read", "write"])
def test_a_new_bundle_passes_check_without_a_warning(tmp_path: Path, effect: str):
    result = run("check", "--strict", make(tmp_path, effect))
    assert (result.exit_code, "warning" in result.output) == (0, False), result.output


@pytest.mark.parametrize(("effect", "count"), [("read", 3), ("write", 6)])
def test_a_new_bundle_runs(tmp_path: Path, bare: None, effect: str, count: int):
    result = run("test", make(tmp_path, effect), "--fakes", *BARE)
    assert (result.exit_code, result.stdout.count("ok  ")) == (0, count), result.output


@pytest.mark.parametrize("isolation", ["container"])
def test_a_new_bundle_runs_on_the_engine(tmp_path: Path, engine: Engine, isolation: str):
    folder = make(tmp_path, "write")
    where = ("--engine", engine.base_url, "--cache", CACHE_DIR, "--isolation", isolation)
    result = run("test", folder, "--fakes", "--only", "keeps a note", *where)
    assert (result.exit_code, "on docker-runc" in result.stderr) == (0, True), result.output


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('message=f"Hello, {request.name}!"', 'message="Hello, you!"', '+  "message": "Hello, you!"'),
        ('f"Hello, {request.name}!"', '"Ada" * 99', "RESULT_INVALID: the result breaks the contract"),
        ("if not request.name.strip():", "1 / 0\n    if not request.name.strip():", "ZeroDivisionError"),
        (
            "if not request.name.strip():",
            "import os; os._exit(3)\n    if not request.name.strip():",
            "the handler gave no answer: crashed",
        ),
        ("-> price_list_pb2.GreetResponse:", "-> price_list_pb2.GreetRequest:", "correct its handler"),
        ('"price_list.v1.PriceList/Greet"', '"price_list.v1.PriceList/Meet"', "has no method 'Meet'"),
    ],
)
def test_says_what_is_wrong_with_a_handler(tmp_path: Path, bare: None, old: str, new: str, told: str):
    folder = make(tmp_path)
    change(folder / GREETING, old, new)
    result = run("test", folder, "--only", "greets by name", *BARE)
    assert (result.exit_code, told in result.stdout) == (1, True), result.output


def test_says_that_a_result_holds_a_credential(tmp_path: Path, bare: None):
    folder = make(tmp_path, "write")
    change(folder / "tool.yaml", ", inject: {form: bearer}", "")  # then the tool has it
    change(folder / "examples" / "fake_service.py", '!= "Bearer example-token"', '== "nobody"')
    change(
        folder / "proto/price_list/v1/price_list.proto", 'max_len: 40, pattern: "^N-[0-9]+$"', "max_len: 40"
    )
    change(
        folder / "handler" / "notes.py",
        "note_id=note_id)\n\n\n",
        'note_id=context.credentials["notes_write"].fields["token"])\n\n\n',
    )
    result = run("test", folder, "--fakes", "--only", "keeps a note", *BARE)
    assert (result.exit_code, "SECRET_IN_RESULT" in result.stdout) == (1, True), result.output


def test_tells_programs_in_json(tmp_path: Path, bare: None):
    folder = make(tmp_path)
    change(folder / GREETING, "Hello, {request.name}", "Hello")
    result = run("test", folder, *BARE, "-o", "json")
    rows = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [row["passed"] for row in rows] == [False, True, True]


def test_notes_a_tool_that_no_example_calls(tmp_path: Path, bare: None):
    result = run("test", make(tmp_path, "write"), "--fakes", "--only", "keeps a note", *BARE)
    assert "no example calls price_list.v1.PriceList/FindNote" in result.stderr


def test_runs_no_program_of_the_bundle_here_unless_told(tmp_path: Path, bare: None):
    folder = make(tmp_path, "write")
    (folder / "examples" / "fake_service.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    result = run("test", folder, "--only", "keeps a note", *BARE)
    assert (result.exit_code, "say --fakes" in result.output) == (3, True)
    assert not (tmp_path / "ran").exists()
    assert run("test", folder, "--fakes", "--only", "keeps a note", *BARE).exit_code == 1
    assert (tmp_path / "ran").exists()  # the control: it does run once it may


def test_names_a_program_that_would_run_here_once(tmp_path: Path, bare: None):
    result = run("test", make(tmp_path, "write"), *BARE)
    assert (result.exit_code, result.output.count("say --fakes")) == (3, 1), result.output


def test_runs_no_fake_from_elsewhere(tmp_path: Path, bare: None):
    """Who read the folder has not read what a link leads to."""
    folder = make(tmp_path, "write")
    (folder / "examples" / "fake_service.py").rename(tmp_path / "fake_service.py")
    (folder / "examples" / "more").symlink_to(tmp_path)
    change(folder / "examples" / "notes.yaml", "examples/fake_service.py", "examples/more/fake_service.py")
    result = run("test", folder, "--fakes", "--only", "keeps a note", *BARE)
    assert (result.exit_code, "there is no plain file" in result.output) == (3, True), result.output


def test_sends_a_terminal_nothing_that_it_obeys(tmp_path: Path, bare: None):
    folder = make(tmp_path)
    file = folder / "examples" / "greet.yaml"
    change(file, "greets by name", "greets\\e[2J by name")
    change(file, "- name: greets\\e[2J by name", '- name: "greets\\e[2J\\u202e by name"')
    file.rename(file.with_name("gr\x1b[2J\u202eeet.yaml"))
    words = ["tools", "test", str(folder), *BARE]
    result = CliRunner().invoke(main, words, color=True)
    assert (result.exit_code, "\x1b[2J" in result.output, "\u202e" in result.output) == (0, False, False)


def test_generates_nothing_through_a_link(tmp_path: Path):
    """A bundle's `.generated` may lead to files of whoever runs it."""
    folder, mine = make(tmp_path), tmp_path / "mine"
    (folder / ".generated" / "price_list" / "v1").mkdir(parents=True)
    mine.write_text("mine")
    (folder / ".generated" / "price_list" / "v1" / "price_list_pb2.py").symlink_to(mine)
    result = run("generate", folder)
    assert (result.exit_code, "is a link" in result.output, mine.read_text()) == (2, True, "mine")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("PriceList/Greet\n  request: {name: Ada}", "PriceList/Met", "is no tool of it; it has: price_list"),
        (
            "request: {name: Ada}",
            "request: {name: Ada}\n  targets: {t: {fake: examples/t.py}}",
            "reaches none",
        ),
        ("request: {name: Ada}", "request: {name: Ada}\n  credentials: {c: {a: b}}", "the tool gets none"),
    ],
)
def test_says_what_does_not_fit_the_bundle(tmp_path: Path, bare: None, old: str, new: str, told: str):
    folder = make(tmp_path)
    change(folder / "examples" / "greet.yaml", old, new)
    result = run("test", folder, *BARE)
    assert (result.exit_code, told in result.output) == (3, True), result.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--without-docker", "--engine", "unix:///x"), "say one of them"),
        (("--without-docker", "--isolation", "strong"), "cannot serve the class strong"),
        (("--target", "orders"), "say NAME=HOST:PORT"),
    ],
)
def test_says_how_to_say_it(tmp_path: Path, words: tuple[str, ...], told: str):
    result = run("test", make(tmp_path), *words)
    assert (result.exit_code, told in result.output) == (2, True)


def test_says_that_no_engine_answers(tmp_path: Path):
    result = run("test", make(tmp_path), "--engine", f"unix://{tmp_path}/none.sock")
    assert (result.exit_code, "say --without-docker" in result.output) == (3, True)


def test_says_that_there_is_no_example(tmp_path: Path):
    result = run("test", make(tmp_path), "--only", "nothing of this name", *BARE)
    assert (result.exit_code, "no example has" in result.output) == (3, True)


@pytest.mark.parametrize(("name", "told"), [("class", "a word of Python"), ("Big", "lower-case")])
def test_init_refuses_a_name(tmp_path: Path, name: str, told: str):
    result = run("init", name, "--dir", tmp_path / "new")
    assert (result.exit_code, told in result.output, (tmp_path / "new").exists()) == (2, True, False)


def test_a_fake_ends_with_what_it_started(tmp_path: Path):
    program = tmp_path / "fake.py"
    program.write_text(
        "import subprocess, sys\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True)\n"
        "import time; time.sleep(600)\n"
    )
    with run_fake(program, {}) as fake:
        while not (said := fake.read_log()):
            assert fake.process.poll() is None
    assert fake.process.returncode is not None
    state = subprocess.run(["ps", "-o", "stat=", "-p", said], capture_output=True, text=True, check=False)
    assert state.stdout.strip()[:1] in ("", "Z")


def test_a_fake_gets_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_OF_THE_TESTER", "s3cret")
    program = tmp_path / "fake.py"
    program.write_text("import os; print(dict(os.environ))")
    with run_fake(program, {}) as fake:
        fake.process.wait(10)
        said = fake.read_log()
    assert ("LANG" in said, "s3cret" in said) == (True, False)


def test_the_harness_runs_a_new_bundle_in_its_authors_tests(tmp_path: Path):
    folder = make(tmp_path)
    (folder / "test_greeting.py").write_text(
        "from handler.greeting import handler\n"
        "from price_list.v1 import price_list_pb2\n"
        "from toolcrib.handler import testing\n"
        "request = price_list_pb2.GreetRequest(name='Ada')\n"
        "print(testing.run(handler, 'price_list.v1.PriceList/Greet', request).result.message)\n"
    )
    assert run("generate", folder).exit_code == 0
    done = subprocess.run(
        [sys.executable, "test_greeting.py"],
        cwd=folder,
        env={"PYTHONPATH": f"{folder}{os.pathsep}{folder / '.generated'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "Hello, Ada!\n", done.stderr
