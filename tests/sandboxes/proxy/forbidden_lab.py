"""Asks a real HTTP proxy for everything in `forbidden.py`, in a network of its own, and says what happened.

`unshare --mount --net python -P -m tests.sandboxes.proxy.forbidden_lab` writes one JSON document:

    asked, resolved, redirected     by form: the proxy's answer, connections to forbidden addresses, and these
                                    without the measure ("control")
    rebound                         a name's first and second connection, and its second without the measure
    opaque                          a blind tunnel to a private address, and without the measure
    looked_up                       what the name server was asked for, while the forms were tried
    capture, capture_control        packets on the host's loopback while the forms were tried, and until the
                                    controls were
    sandbox                         answers, and packets in the network of a client whose only way out is the
                                    proxy; "control": until it sent one that is none of its business
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sandboxes.nests import Nests
from sandboxes.proxy.access import HttpAccess, HttpTarget
from sandboxes.proxy.process import PROXY_FOLDER, PROXY_SOCKET, HttpProxy, ProxyCall
from tests.sandboxes.proxy.forbidden import (
    ALLOWED_ADDRESS,
    ALLOWED_NAME,
    ASKED,
    OWN_ADDRESSES,
    REDIRECTED,
    RESOLVED,
    name_of,
)
from tests.sandboxes.proxy.netlab import (
    Capture,
    NameServer,
    growth,
    listen_everywhere,
    raise_loopback,
    use_own_resolver,
)
from tools.http_rules import parse_rule

Found = dict[str, Any]

EVERYTHING = ("0.0.0.0/0", "::/0")
RULES = (parse_rule("GET /?*"), parse_rule("GET /{path:rest}?*"))
REBINDING, OPAQUE = "rebinding-form", "opaque-form"
NAMES = {
    ALLOWED_NAME: [[ALLOWED_ADDRESS]],
    "localhost": [["127.0.0.1"]],
    "127.0.0.1": [["127.0.0.1"]],  # with a dot at its end it is a name, and somebody may answer for it
    "private.lab": [["10.1.2.3"]],
    "xn--bcher-kva.lab": [["10.1.2.3"]],
    REBINDING: [[ALLOWED_ADDRESS], ["127.0.0.1"]],
    OPAQUE: [["10.1.2.3"]],
    **{name_of(form): [addresses] for form, addresses in RESOLVED.items()},
}
DIRECTLY = ["curl", "-s", "--globoff", "--location", "--max-time", "10", "--noproxy", "*", "-o", "/dev/null"]


class Bench:
    """The proxy with one open call, and what connects meanwhile.

    Attributes:
        door: The call's forward door.
    """

    def __init__(self, door: Path, counts: Counter[str]) -> None:
        self.door, self._counts = door, counts

    async def ask(self, url: str) -> Found:
        """Ask the proxy for a URL, byte for byte as it is, and for its host by CONNECT."""
        authority = url.removeprefix("http://").partition("/")[0]
        before = self._counts.total()
        with growth(self._counts) as grown:
            answer = await self._speak(
                f"GET {url} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"
            )
            tunnel = await self._speak(f"CONNECT {authority}:443 HTTP/1.1\r\nHost: {authority}:443\r\n\r\n")
            if "200" in (answer[9:12], tunnel[9:12]):
                await self._wait_for_more_than(before)
        return {
            "status": answer[9:12],
            "tunnel": tunnel[9:12],
            "check": find_header(answer, "toolcrib-egress"),
            "location": find_header(answer, "location"),
            "forbidden": count_forbidden(grown),
        }

    async def _wait_for_more_than(self, count: int) -> None:
        """Wait for a connection that was made; who listens may count it a little later."""
        async with asyncio.timeout(10):
            while self._counts.total() <= count:
                await asyncio.sleep(0.005)

    async def _speak(self, request: str) -> str:
        reader, writer = await asyncio.open_unix_connection(self.door)
        writer.write(request.encode())
        writer.write_eof()
        try:
            async with asyncio.timeout(60):
                return (await reader.read()).decode("latin-1")
        except ConnectionError:
            return ""
        finally:
            writer.close()


def find_header(answer: str, wanted: str) -> str:
    for line in answer.partition("\r\n\r\n")[0].split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.lower() == wanted:
            return value.strip()
    return ""


def count_forbidden(counts: Counter[str]) -> int:
    """Count connections to anything but the allowed target."""
    return sum(count for place, count in counts.items() if place != f"{ALLOWED_ADDRESS} 80")


@asynccontextmanager
async def opened(
    hosts: Sequence[str], counts: Counter[str], folder: Path, networks: tuple[str, ...] = ()
) -> AsyncIterator[Bench]:
    """Start the proxy, declare hosts and the allowed one, and open a call that may ask all of them."""
    targets = {
        f"t{number}": HttpTarget(f"t{number}", host, 80, (f"http://{host}",), networks=networks)
        for number, host in enumerate([ALLOWED_NAME, *hosts])
    }
    targets["opaque"] = HttpTarget("opaque", OPAQUE, 443, (f"https://{OPAQUE}",), networks=networks)
    accesses = [HttpAccess(name, RULES) for name in targets if name != "opaque"]
    proxy = HttpProxy(targets)
    await proxy.start(folder / "proxy.pid")
    child = proxy.child
    assert child is not None
    try:
        with Nests(folder).make(os.getuid()) as nest:
            call = ProxyCall("lab", tuple(targets), 300.0, lambda record: None)
            await proxy.open_call(child, call, nest, [*accesses, HttpAccess("opaque", (), opaque=True)])
            yield Bench(nest.folder / PROXY_FOLDER / PROXY_SOCKET, counts)
            await proxy.close_call(child, call, nest)
    finally:
        await proxy.stop()


async def try_resolved(bench: Bench) -> dict[str, Found]:
    return {form: await bench.ask(f"http://{name_of(form)}/") for form in RESOLVED}


async def try_redirected(bench: Bench) -> dict[str, Found]:
    """Follow each redirect as a client does: by a new request to the proxy."""
    found = {}
    for form in REDIRECTED:
        location = (await bench.ask(redirect_to(form)))["location"]
        found[form] = {**(await bench.ask(location)), "location": location}
    return found


async def try_all(counts: Counter[str], folder: Path) -> Found:
    """Try every form through the proxy."""
    async with opened([*map(name_of, RESOLVED), REBINDING], counts, folder) as bench:
        return {
            "asked": {form: await bench.ask(url) for form, url in ASKED.items()},
            "resolved": await try_resolved(bench),
            "redirected": await try_redirected(bench),
            "rebound": [await bench.ask(f"http://{REBINDING}/") for _ in range(2)],
            "opaque": [await bench.ask(f"http://{OPAQUE}/")],
            "sandbox": await asyncio.to_thread(ask_in_a_sandbox, bench.door),
        }


async def try_without(counts: Counter[str], folder: Path, said: Found) -> None:
    """Try every form without what stops it: no proxy, or a proxy to which every network is declared."""
    for form, url in ASKED.items():
        said["asked"][form]["control"] = ask_directly(url, counts)
    for form in REDIRECTED:
        said["redirected"][form]["control"] = ask_directly(redirect_to(form), counts)
    async with opened([*map(name_of, RESOLVED), REBINDING], counts, folder, EVERYTHING) as bench:
        for form, found in (await try_resolved(bench)).items():
            said["resolved"][form]["control"] = found["forbidden"]
        said["rebound"].append(await bench.ask(f"http://{REBINDING}/"))
        said["opaque"].append(await bench.ask(f"http://{OPAQUE}/"))


def redirect_to(form: str) -> str:
    return f"http://{ALLOWED_NAME}/?to={quote(ASKED[form], safe='')}"


def ask_directly(url: str, counts: Counter[str]) -> int:
    """Ask for a URL without a proxy, and follow; gives the connections to what is forbidden."""
    with growth(counts) as grown:
        subprocess.run([*DIRECTLY, url], env={"LC_ALL": "C.UTF-8"}, check=False)
    return count_forbidden(grown)


IN_THE_SANDBOX = """
import _socket, json, os, socket, sys, urllib.request
from sandboxes import container_relay
from tests.sandboxes.proxy.netlab import Capture, raise_loopback
raise_loopback()
capture = Capture()
capture.start()
listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
listener.bind(("127.0.0.1", 3128))
listener.listen(64)
if os.fork() == 0:
    container_relay.DOOR = sys.argv[1]
    container_relay.serve(listener.fileno())
opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": "http://127.0.0.1:3128"}))
answers = []
for url in sys.argv[2:]:
    try:
        answers.append(opener.open(url, timeout=60).status)
    except OSError as error:
        answers.append(getattr(error, "code", str(error)))
seen = capture.settle()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.sendto(b"a name?", ("127.0.0.1", 53))
print(json.dumps({"answers": answers, "seen": seen, "control": capture.settle()}))
"""


def ask_in_a_sandbox(door: Path) -> Found:
    """Ask from a network of its own that has only the relay to the proxy's door."""
    urls = [f"http://{ALLOWED_NAME}/", *(ASKED[form] for form in REDIRECTED), *map(redirect_to, REDIRECTED)]
    ran = subprocess.run(
        ["unshare", "--net", sys.executable, "-P", "-c", IN_THE_SANDBOX, str(door), *urls],
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    return dict(json.loads(ran.stdout))


def main() -> None:
    raise_loopback(OWN_ADDRESSES)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        use_own_resolver(folder)
        names = NameServer(NAMES, {"alias.lab": "private.lab"})
        names.start()
        counts, capture = listen_everywhere(80, 443, 8080), Capture()
        capture.start()
        with contextlib.redirect_stdout(sys.stderr):
            said = asyncio.run(try_all(counts, folder))
            said["capture"], said["looked_up"] = capture.settle(), dict(names.asked)
            asyncio.run(try_without(counts, folder, said))
            said["capture_control"] = capture.settle()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
