"""Asks URLs by ordinary clients: each is used as its own documentation shows, with no setting of ours."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from clients.v1 import clients_pb2 as pb

from toolcrib.handler import Failure, Handler

PROGRAMS = "/opt/clients"
handler = Handler()


def ask_urllib(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask_requests(url: str) -> tuple[int, str]:
    import requests

    answer = requests.get(url)
    return answer.status_code, answer.text


def ask_httpx(url: str) -> tuple[int, str]:
    import httpx

    answer = httpx.get(url)
    return answer.status_code, answer.text


def ask_curl(url: str) -> tuple[int, str]:
    return run([f"{PROGRAMS}/curl", "--silent", "--show-error", "--write-out", "\n%{http_code}", url])


def ask_node(url: str) -> tuple[int, str]:
    return run([f"{PROGRAMS}/node", "-e", NODE, url])


def ask_go(url: str) -> tuple[int, str]:
    return run([f"{PROGRAMS}/goget", url])


NODE = """
fetch(process.argv[1]).then(async (answer) => {
  process.stdout.write((await answer.text()) + '\\n' + answer.status);
});
"""
CLIENTS: dict[str, Callable[[str], tuple[int, str]]] = {
    "urllib": ask_urllib,
    "requests": ask_requests,
    "httpx": ask_httpx,
    "curl": ask_curl,
    "node": ask_node,
    "go": ask_go,
}


def run(command: list[str]) -> tuple[int, str]:
    """Run a program that writes the body, a line end, and the status."""
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{PROGRAMS}/lib"}
    done = subprocess.run(command, check=False, capture_output=True, env=environment, timeout=50)
    if done.returncode:
        raise Failure("CLIENT_FAILED", done.stderr.decode(errors="replace")[-900:])
    body, _, status = done.stdout.decode().rpartition("\n")
    return int(status), body


@handler.tool("clients.v1.Clients/Fetch", pb.FetchRequest)
def fetch(request, context):
    try:
        status, body = CLIENTS[request.client](request.url)
    except Failure:
        raise
    except Exception as error:
        raise Failure("CLIENT_FAILED", f"{type(error).__name__}: {error}"[:900]) from error
    time.sleep(request.hold_seconds)
    return pb.FetchResponse(status=status, body=body)


if __name__ == "__main__":
    handler.run()
