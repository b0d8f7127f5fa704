import asyncio, json, sqlite3
import pytest
from tests.e2e.sandbox_stack import SandboxStack
from tests.e2e.test_sandbox_kills import RUNSC
from tests.parts.crib import CACHE_DIR
pytestmark = pytest.mark.engine

@pytest.mark.parametrize("settings", ["", RUNSC])
async def test_gone(tmp_path, engine, settings):
    async with SandboxStack(tmp_path / "state", CACHE_DIR, engine.base_url, settings) as stack:
        for n, rounds in ((1, 12), (6, 4)):
            for _ in range(rounds):
                print(n, {r.code for r in await asyncio.gather(*(stack.call() for _ in range(n)))}, end="")
                if n == 1: await asyncio.sleep(0.3)
            await asyncio.sleep(2)
            c = sqlite3.connect(f"file:{stack.settings.state.path}?mode=ro", uri=True)
            rows = c.execute("select state, sandboxes from calls where state='SUCCEEDED'").fetchall()
            print("\nconc", n, "ended", len(rows), "gone unknown", sum(any(s.get("gone") is None for s in json.loads(x[1])) for x in rows), rows[-1][1][:300])
