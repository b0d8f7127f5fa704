"""What a request through the HTTP proxy costs, beside the same request from the same client to the server.

    python -m bench.bench_egress [--rounds 12] [--runtime docker-runc]

Two clients: http.client, the barest that there is, so the hardest floor; and httpx, as one that people have.
Both keep their connections. On the host the client runs by itself, in the container as a handler, which finds
the proxy as any tool does: on its own loopback (under runsc by init's relay), and behind it the server. Each
burst has a container of its own, used once, and is timed by the client; it makes no more requests than a call
has records. One caller, then eight at once in one process; client, proxy and server share the processors.

    plain     HTTP; each request judged by a rule                     beside  plain direct
    blind     CONNECT to an opaque target: TLS ends in the container  beside  TLS direct
    opened    TLS ends in the proxy, which adds a bearer token        beside  TLS direct
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench import plot
from bench.docker_run import Limits
from bench.measure import Pacing, Report, Samples, Subject, make_report, with_pairs
from bench.stillness import wait_for_stillness
from bench.web_server import BODY
from credentials.injection import Form, Injection
from sandboxes.docker_driver import DockerDriver
from sandboxes.egress.addresses import TargetAddress
from sandboxes.egress.process import EgressProcess
from sandboxes.engine import EngineMissing, find_engine
from sandboxes.images import build_base, build_bundle
from sandboxes.nests import HttpWish
from sandboxes.outcome import SandboxSpec, refuse_to_sign
from sandboxes.proxy.access import HttpAccess, HttpTarget
from sandboxes.runtimes import RUNTIMES
from toolcrib.handler.v1 import handler_pb2
from tools.http_rules import parse_rule

STATE = Path(__file__).parents[1] / ".toolcrib"
CLIENT = Path(__file__).with_name("web_client.py")
METHOD = "bench.v1.Web/Get"
COMMAND = ("python3", "-m", "handler")
HANDLER = """
import json, sys
from toolcrib.handler import Handler
from toolcrib.handler.v1 import handler_pb2
import web_client

handler = Handler()

@handler.tool("bench.v1.Web/Get", handler_pb2.Progress)
def get(request, context):
    found = [web_client.run(plan) for plan in json.loads(request.message)]
    return handler_pb2.Progress(message=json.dumps(found))

handler.run()
"""
PATH, RULE = "/items/7?page=1", "GET /items/{item:int}?page={int}"
TOKEN = "bench-" + "x" * 40
PYTHON = "/usr/bin/python3"
"""The host's own Python is that of the image's distribution here; where there is none, this one runs."""
CALLERS = {1: (10, 60), 8: (3, 18)}
"""Dropped and counted requests of each caller: 238 a burst in all, within the 256 that are recorded."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the server.

    Attributes:
        host: The name in the URL; also that of the target, up to the first dot.
        opaque: TLS is not opened on the way.
        straight: From the host, without a proxy.
    """

    name: str
    against: str
    client: str
    host: str
    tls: bool
    opaque: bool = False
    straight: bool = False
    injects: bool = False


def ways_of(client: str) -> Iterator[Way]:
    """List the ways of one client."""
    plain, tls = f"{client} plain direct", f"{client} TLS direct"
    yield Way(plain, plain, client, "plain.example", tls=False, straight=True)
    yield Way(f"{client} plain proxied", plain, client, "plain.example", tls=False)
    yield Way(tls, tls, client, "opened.example", tls=True, straight=True)
    yield Way(f"{client} TLS blind", tls, client, "blind.example", tls=True, opaque=True)
    yield Way(f"{client} TLS opened", tls, client, "opened.example", tls=True, injects=True)


WAYS = (*ways_of("httpx"), *ways_of("stdlib"))
LIBRARIES = ("httpx", "httpcore", "h11", "anyio", "idna", "certifi", "typing_extensions")
"""httpx and what it needs, as this environment has them."""


class WideLimits(Limits):
    """Enough processors that no quota is measured."""

    cpus = 2.0


@dataclass(frozen=True, slots=True)
class Server:
    """The server that runs, by the host in the URL; an empty one is plain."""

    ports: Mapping[str, int]
    ca_pem: str

    def port(self, way: Way) -> int:
        """Find where a way ends."""
        return self.ports[way.host if way.tls else ""]

    def targets(self) -> dict[str, HttpTarget]:
        """Declare it as the operator would, once for each way through the proxy."""
        return {
            name_of(way): HttpTarget(
                name_of(way),
                "127.0.0.1",
                self.port(way),
                (f"{'https' if way.tls else 'http'}://{way.host}",),
                self.ca_pem if way.tls else "",
            )
            for way in WAYS
            if not way.straight
        }


class Caller:
    """Makes bursts, on the host and in containers."""

    def __init__(
        self, server: Server, host: subprocess.Popen[str], egress: EgressProcess, folder: Path
    ) -> None:
        self._server, self._host, self._egress = server, host, egress
        self._ca_file = folder / "ca.pem"
        self._ca_file.write_text(server.ca_pem)
        self.sandboxes: tuple[DockerDriver, str] | None = None

    async def burst(self, way: Way) -> list[dict[str, Any]]:
        """Make one burst of each number of callers."""
        plans = [self._plan(way, callers) for callers in CALLERS]
        if way.straight:
            await wait_for_stillness()
            return await asyncio.to_thread(self._ask_host, plans)
        return await self._ask_container(way, plans)

    def _plan(self, way: Way, callers: int) -> dict[str, object]:
        dropped, each = CALLERS[callers]
        headers = {"authorization": f"Bearer {TOKEN}"} if way.straight and way.tls else {}
        return {
            "client": way.client,
            "host": way.host,
            "tls": way.tls,
            "port": self._server.port(way) if way.straight else 0,
            "ca_file": str(self._ca_file) if way.straight else "",
            "path": PATH,
            "length": len(BODY),
            "headers": {"accept": "*/*", **headers},
            "callers": callers,
            "dropped": dropped,
            "each": each,
        }

    def _ask_host(self, plans: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        assert self._host.stdin is not None and self._host.stdout is not None
        self._host.stdin.write(json.dumps(plans) + "\n")
        self._host.stdin.flush()
        found: list[dict[str, Any]] = json.loads(self._host.stdout.readline())
        return found

    async def _ask_container(self, way: Way, plans: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        assert self.sandboxes is not None
        driver, image_id = self.sandboxes
        uid, wish = driver.allocate_uid(), HttpWish((name_of(way),) if way.opaque else ())
        with self._egress.nest(uid, wish) as nest:
            spec = SandboxSpec(
                image_id,
                COMMAND,
                WideLimits(),
                nest.folder,
                uid,
                idle_seconds=300,
                has_proxy=True,
                take_door=nest.keep_door,
            )
            async with driver.create(spec, "bench") as sandbox:
                await sandbox.warm_up(20)
                await wait_for_stillness()
                async with self._egress.open("bench", nest, [name_of(way)], [access(way)], 60.0) as egress:
                    request = handler_pb2.Progress(message=json.dumps(plans)).SerializeToString()
                    start = handler_pb2.Start(protocol_version=1, method=METHOD, request=request)
                    for name, target in egress.handler_targets().items():
                        start.targets[name].CopyFrom(target)
                    outcome = await sandbox.run(start, 60, refuse_to_sign)
                    await sandbox.end()
        assert outcome.response, outcome
        found: list[dict[str, Any]] = json.loads(handler_pb2.Progress.FromString(outcome.response).message)
        return found


def name_of(way: Way) -> str:
    """Name the target of a way."""
    return way.host.partition(".")[0]


def access(way: Way) -> HttpAccess:
    """Allow the one request, as a manifest would."""
    if way.opaque:
        return HttpAccess(name_of(way), (), opaque=True)
    injection = Injection("bench", Form.BEARER, {"token": TOKEN}) if way.injects else None
    return HttpAccess(name_of(way), (parse_rule(RULE),), injection=injection)


async def compare(caller: Caller, pacing: Pacing) -> tuple[Report, Report]:
    """Measure every way in each round, in an order that is shuffled; latency, and time a request."""
    ways = {way.name: way for way in WAYS}
    named = [
        Subject(f"{way.name}, {callers} caller{'s' * (callers > 1)}", _never, _floor(way, callers))
        for way in WAYS
        for callers in CALLERS
    ]
    everybody = with_pairs(named)
    latency: dict[str, Samples] = defaultdict(Samples)
    load: dict[str, Samples] = defaultdict(Samples)
    shuffle = random.Random(pacing.seed)
    turns = [(name, again) for name in ways for again in ("", " (again)" if ways[name].straight else None)]
    for _ in range(pacing.rounds):
        for name, again in shuffle.sample(turns, len(turns)):
            if again is None:
                continue
            for callers, burst in zip(CALLERS, await caller.burst(ways[name]), strict=True):
                subject = f"{name}, {callers} caller{'s' * (callers > 1)}{again}"
                _note(latency[subject], burst["took"], statistics.median(burst["took"]))
                a_request = burst["whole"] / len(burst["took"])
                _note(load[subject], [a_request], a_request)
    return (
        make_report("egress-latency", everybody, latency, pacing),
        make_report("egress-load", everybody, load, pacing),
    )


def _note(samples: Samples, seconds: Sequence[float], burst: float) -> None:
    samples.seconds += seconds
    samples.bursts.append(burst)


def _floor(way: Way, callers: int) -> str:
    return f"{way.against}, {callers} caller{'s' * (callers > 1)}"


async def _never() -> None:
    raise AssertionError("bursts are made by the client itself")


@contextmanager
def serving() -> Iterator[Server]:
    """Run the server in a process of its own."""
    hosts = sorted({way.host for way in WAYS if way.tls})
    command, root = [sys.executable, "-m", "bench.web_server", *hosts], Path(__file__).parents[1]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        try:
            yield Server(**json.loads(process.stdout.readline()))
        finally:
            process.terminate()


@contextmanager
def host_client(folder: Path, libraries: Mapping[str, bytes]) -> Iterator[subprocess.Popen[str]]:
    """Run the client on the host."""
    for name, content in libraries.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    python = PYTHON if Path(PYTHON).exists() else sys.executable
    command = [python, "-I", str(CLIENT), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def read_libraries() -> Iterator[tuple[str, bytes]]:
    """Read what the clients import, by path."""
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None, f"{name} is not installed"
        origin = Path(spec.origin)
        found = [origin] if origin.name != "__init__.py" else sorted(origin.parent.rglob("*"))
        top = origin.parent if len(found) == 1 and found[0] == origin else origin.parent.parent
        yield from (
            (str(path.relative_to(top)), path.read_bytes())
            for path in found
            if path.suffix in (".py", ".pem") and path.is_file()
        )


@asynccontextmanager
async def open_driver(
    folder: Path, runtime: str, libraries: Mapping[str, bytes]
) -> AsyncIterator[tuple[DockerDriver, str]]:
    """Hold a driver and the image of the client."""
    address = os.environ.get("DOCKER_HOST") or None
    engine = await asyncio.to_thread(find_engine, folder / "engine", address, STATE / "bench")
    try:
        base = await asyncio.to_thread(build_base, engine, STATE / "cache")
        files = {f"site-packages/{name}": content for name, content in libraries.items()}
        files |= {"handler.py": HANDLER.encode(), "web_client.py": CLIENT.read_bytes()}
        image = await asyncio.to_thread(build_bundle, engine, base, "bench", files)
        driver = DockerDriver(engine, "bench", 1, runtime=RUNTIMES[runtime])
        await driver.start()
        try:
            yield driver, image
        finally:
            await driver.close()
    finally:
        engine.stop()


async def run(options: argparse.Namespace) -> None:
    """Measure, print the tables and write the JSON."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tc-bench-")))
        libraries = dict(read_libraries())
        server = stack.enter_context(serving())
        host = stack.enter_context(host_client(folder / "libraries", libraries))
        http = server.targets()
        declared = {name: TargetAddress(name, "http", one.host, one.port) for name, one in http.items()}
        egress = EgressProcess(declared, http=http)
        await egress.start(folder)
        try:
            caller = Caller(server, host, egress, folder)
            async with open_driver(folder, options.runtime, libraries) as caller.sandboxes:
                reports = await compare(caller, Pacing(rounds=options.rounds, busy_wait_ms=0))
        finally:
            await egress.stop()
    for title, report in zip(("latency", "time a request, all callers at work"), reports, strict=True):
        written = report.write()
        print(f"{title}\n{report.table()}\nwritten: {written}, {plot.write(written).name}\n")


def main() -> int:
    """Read the arguments and run.

    Returns:
        0, or 1 when a part is missing.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="bursts of each subject (default 12)")
    parser.add_argument("--runtime", default="docker-runc", choices=sorted(RUNTIMES))
    try:
        uvloop.run(run(parser.parse_args()))
    except EngineMissing as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
