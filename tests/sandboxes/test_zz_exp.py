import asyncio, time
from dataclasses import replace
from tests.sandboxes.yard import *
from sandboxes.pool_size import share_out
from sandboxes.admission import NoPlace

async def test_dead_tickets(yard):
    yard.driver.gate.clear()
    places=[yard.take() for _ in range(5)]
    for p in places: p.leave()
    await settle()
    print("waiting", len(yard.pool.shelves[LOOKUP].waiting), "making", yard.driver.making, yard.pool.shelves[LOOKUP].uncovered)
    yard.driver.gate.set(); await settle()
    print("begun", yard.driver.begun)

async def test_evict():
    async with opened(replace(TERMS, memory_mib=240, max_wait_seconds=0.0)) as yard:
        await yard.fill(RIVAL)
        print("rival idle", yard.idle(RIVAL), yard.pool._memory.free_mib)
        yard.driver.gate.clear()
        got=[]
        for _ in range(3):
            try: got.append(yard.take())
            except NoPlace as e: print("no", e)
        print("rival idle", yard.idle(RIVAL), yard.notes.ends, len(got), yard.pool._memory.running_mib)
        for p in got: p.leave()
        yard.driver.gate.set()

async def test_hung_load(yard):
    hang = asyncio.Event()
    async def loading(): await hang.wait()
    yard.driver.loading = loading
    evils=[replace(LOOKUP, tenant="evil", digest=f"e{i}") for i in range(3)]
    for e in evils:
        await yard.call(e)
    await yard.pass_time(1)
    print("making", yard.pool._making, yard.driver.making)
    t=yard.take(RIVAL)
    try:
        async with asyncio.timeout(0.5): await t.sandbox(); print("got")
    except TimeoutError: print("starved")
    t.leave()
    hang.set()

async def test_dying(yard):
    class Slow: pass
    dying = asyncio.Event()
    place=yard.take(); s,_=await place.sandbox()
    async def end():
        await dying.wait(); s.is_alive=False; s.gone=s.made; return True
    s.end=end
    print("running", yard.pool._memory.running_mib)
    place.leave(); await settle()
    print("running after leave", yard.pool._memory.running_mib, "alive", s.is_alive, s in yard.driver.live)
    dying.set()

def test_share():
    for k in (50,300,1000):
        wanted={replace(LOOKUP,digest=str(i),tenant=f"t{i%5}"):3 for i in range(k)}
        t=time.perf_counter(); share_out(wanted, lambda x:x.tenant, 64); print(k, (time.perf_counter()-t)*1e3,"ms")

async def test_take_cost():
    async with opened(replace(TERMS, max_idle=64, makers=8, idle_seconds=300)) as yard:
        for i in range(300):
            await yard.call(replace(LOOKUP, digest=str(i)))
        t=time.perf_counter()
        p=yard.take(); print("take", (time.perf_counter()-t)*1e3,"ms")
        t=time.perf_counter()
        p.leave(); print("leave", (time.perf_counter()-t)*1e3,"ms", len(yard.pool.shelves))

async def test_over(yard):
    async with opened(replace(TERMS, max_idle=2)) as yard:
        for i in range(20):
            p=yard.take(replace(LOOKUP, digest=str(i))); p.leave(); await settle()
        print("idle", len(yard.pool.idle), "max 2")
