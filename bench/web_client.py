"""The client of the egress benchmark: the same program on the host and, as a handler, in a container.

`run(plan)` makes the requests of a plan and times each of them itself, over connections that are kept; the
first of each connection do not count. On the host it reads a list of plans a line, and writes what came of
them; its argument is a folder of libraries.
"""

import functools
import http.client
import json
import os
import socket
import ssl
import sys
import threading
import time

PROXY = ("127.0.0.1", 3128)


class Stdlib:
    """The barest one: http.client."""

    def __init__(self, plan):
        host, self._headers = plan["host"], plan["headers"]
        self._path = plan["path"]
        context = _trust(plan) if plan["tls"] else None
        if plan["port"]:  # straight to the server, under the name that it has a certificate for
            made = http.client.HTTPSConnection(host, context=context) if plan["tls"] else None
            self._connection = made or http.client.HTTPConnection(host)
            connect = functools.partial(_connect, plan["port"])
            self._connection._create_connection = connect  # type: ignore[attr-defined]
        elif plan["tls"]:
            self._connection = http.client.HTTPSConnection(*PROXY, context=context)
            self._connection.set_tunnel(host, 443)
        else:
            self._connection = http.client.HTTPConnection(*PROXY)
            self._path = f"http://{host}{self._path}"

    def get(self):
        self._connection.request("GET", self._path, headers=self._headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()


class Httpx:
    """One that people have; it finds the proxy and what to trust by its environment."""

    def __init__(self, plan):
        import httpx  # noqa: PLC0415 - not of this program's own library folder at its start

        scheme, host, port = "https" if plan["tls"] else "http", plan["host"], plan["port"]
        self._client = httpx.Client(verify=_trust(plan) if plan["tls"] else True)
        self._url = f"{scheme}://{f'127.0.0.1:{port}' if port else host}{plan['path']}"
        self._headers = {**plan["headers"], **({"host": host} if port else {})}
        self._extensions = {"sni_hostname": host} if port else {}

    def get(self):
        answer = self._client.get(self._url, headers=self._headers, extensions=self._extensions)
        return answer.status_code, answer.content


def _trust(plan):
    return ssl.create_default_context(cafile=plan["ca_file"] or os.environ["SSL_CERT_FILE"])


def _connect(port, *_):
    return socket.create_connection(("127.0.0.1", port))


def call(client, count, length):
    took = []
    for _ in range(count):
        began = time.perf_counter()
        status, body = client.get()
        took.append(time.perf_counter() - began)
        assert (status, len(body)) == (200, length), (status, body[:200])
    return took


def run(plan):
    """Make the requests of one burst, by one caller or several at once.

    Returns:
        Seconds of each request, and of all of them together.
    """
    kind = {"stdlib": Stdlib, "httpx": Httpx}[plan["client"]]
    clients = [kind(plan) for _ in range(plan["callers"])]
    for client in clients:
        call(client, plan["dropped"], plan["length"])
    took: list[float] = []
    others = []
    for client in clients[1:]:
        work = functools.partial(_call_into, took, client, plan)
        others.append(threading.Thread(target=work))
    began = time.perf_counter()
    for thread in others:
        thread.start()
    _call_into(took, clients[0], plan)
    for thread in others:
        thread.join()
    whole = time.perf_counter() - began
    assert len(took) == plan["callers"] * plan["each"], len(took)
    return {"took": took, "whole": whole}


def _call_into(took, client, plan):
    took += call(client, plan["each"], plan["length"])


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    for line in sys.stdin:
        print(json.dumps([run(plan) for plan in json.loads(line)]), flush=True)
