"""Plays the object store of dev/server.py, without TLS: `python store.py DESCRIPTOR SETTINGS`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

SERVER = Path(__file__).parent.parent / "dev" / "server.py"

program = runpy.run_path(str(SERVER))
keys = {
    "s3-read": {"access_key_id": "AKIAEXAMPLEREADER000", "secret_access_key": "reads-for-examples"},
    "s3-write": {"access_key_id": "AKIAEXAMPLEWRITER000", "secret_access_key": "writes-for-examples"},
}
program["seed"](["example"], keys)
program["serve_objects"](int(sys.argv[1])).serve_forever()
