"""Build the sandboxes' base image into the checkout's cache; nothing when it is up to date.

Takes the engine that answers at the usual socket, or starts a private one for as long as it needs it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sandboxes.engine import EngineMissing, find_engine
from sandboxes.images import build_base
from sandboxes.outcome import SandboxError

CACHE_DIR = Path(__file__).resolve().parents[2] / ".toolcrib" / "cache"


def say(step: str) -> None:
    """Tell what is being done."""
    print(f"==> Base image: {step}", flush=True)


def main() -> int:
    """Build it; 1 when it cannot be built."""
    with tempfile.TemporaryDirectory(prefix="toolcrib-") as run_dir:
        try:
            engine = find_engine(Path(run_dir) / "engine", None, CACHE_DIR)
        except EngineMissing as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        try:
            build_base(engine, CACHE_DIR, say)
        except SandboxError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        finally:
            engine.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
