import asyncio, gc
from tests.broker.test_bare_reads import *
from sandboxes.outcome import SandboxError

async def test_ending_fails(shop):
    seen=[]
    asyncio.get_running_loop().set_exception_handler(lambda l,c: seen.append(c))
    shop.engine.ending = SandboxError("no engine")
    await shop.path.answer(shop.lookup())
    await asyncio.sleep(0.05); gc.collect(); await asyncio.sleep(0.05)
    print("SEEN", seen)

async def test_read_right_after(shop):
    a = await shop.path.answer(shop.lookup())
    print("STATE", await shop.states())
