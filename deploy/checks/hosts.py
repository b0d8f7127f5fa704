"""Check that no tracked file names a package registry's host.

Where packages come from is the setting of each machine, and the hashes in requirements/ make it not matter.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Another project's file, unchanged: it links to its own documentation.
VENDORED = {"proto/buf/validate/validate.proto"}

# Written apart, or this file would name them itself.
HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("deb", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("registry-1", "docker", "io"),
        ("download", "docker", "com"),
        ("docker", "io/"),
        ("ghcr", "io"),
        ("quay", "io"),
        ("gcr", "io"),
        ("public", "ecr", "aws"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("buf", "build/"),
        ("releases", "hashicorp", "com"),
    )
)
NAMED = re.compile("|".join(rf"(?<![\w-]){re.escape(host)}" for host in HOSTS))


def tracked_files() -> list[Path]:
    """List what git tracks or would; without a git checkout, every file outside ignored folders."""
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode:
        ignored = {line.rstrip("/\n") for line in (ROOT / ".gitignore").read_text().splitlines()} | {".git"}
        return [
            path.relative_to(ROOT)
            for path in ROOT.rglob("*")
            if path.is_file() and not ignored & set(path.relative_to(ROOT).parts)
        ]
    return [Path(name) for name in listed.stdout.split("\0") if name]


def find_hosts(path: Path) -> list[str]:
    """List "file:line: host" for each host that a file names."""
    try:
        text = (ROOT / path).read_text()
    except (UnicodeDecodeError, FileNotFoundError):
        return []
    return [
        f"{path}:{number}: {match[0]}"
        for number, line in enumerate(text.splitlines(), start=1)
        for match in NAMED.finditer(line)
    ]


def main() -> int:
    """Print what is found; 1 when anything is."""
    found = [hit for path in tracked_files() if str(path) not in VENDORED for hit in find_hosts(path)]
    for hit in found:
        print(f"error: {hit}: a registry is named. Leave it to the machine's settings.", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
