"""Attack: an argument becomes part of a path that the rule reads one way and the target another.

The target is a real nginx with two settings that are often seen: an `alias` whose location lacks a slash, and
a `proxy_pass` with a path, which undoes escapes before it passes a request on, here to whoever repeats its
request line, in place of a server that drops parameters (";…") of segments. Each path is sent without the
proxy first: that is what a rule without these refusals would reach.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from credentials.child_process import HOST
from credentials.errors import PartUnavailable
from tests.parts import REAL_PARTS, without
from tests.parts.nginx import NginxTarget
from tools.http_rules import Ask, Check, judge, parse_rule

_SETTINGS = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  default_type text/plain;
  server {{
    listen {host}:{port};
    location / {{ return 200 "outside $uri"; }}
    location /exact/ {{ return 200 "inside $uri"; }}
    location /public {{ alias {folder}/public/; }}
    location /app/ {{ proxy_pass http://unix:{folder}/echo.sock:/inner/; }}
  }}
  server {{
    listen unix:{folder}/echo.sock;
    return 200 "inside $request_uri";
  }}
}}
"""
PIECES = [
    "a", ".", "..", "...", "%2e", "%2f", "%5c", "\\", "/", "//", ";", "%3B", "%20", "%09", "%25", "%252e",
    "%25u002e", "%c0%ae", "%C2%AD", "%EF%BC%8E", "%EF%BC%8F", "%E2%80%8B", "%CD%8F", "=", "@", ":", "!",
    "(", "*", "$", "&", "+", ",", "~",
]  # fmt: skip


class CarelessNginx(NginxTarget):
    """One whose settings are as careless as many are."""

    def ask(self, path: str) -> tuple[int, str]:
        """Send a path as it is, by no library that would tidy it; give status and body."""
        with socket.create_connection((HOST, self.port), timeout=30) as connection:
            head = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        head, _, body = answer.decode("latin-1").partition("\r\n\r\n")
        return int(head.split(" ")[1]), body

    def _write_settings(self) -> None:
        (self._folder / "public").mkdir(mode=0o755, exist_ok=True)
        self._write("secret", "the secret")
        self._write("nginx.conf", _SETTINGS.format(folder=self._folder, host=HOST, port=self.port))


@pytest.fixture(scope="module")
def target() -> Iterator[CarelessNginx]:
    if without("nginx"):
        pytest.skip("without nginx, as TOOLCRIB_WITHOUT says")
    try:
        server = CarelessNginx()
        with server:
            REAL_PARTS.append(server.version)
            yield server
    except PartUnavailable as error:
        pytest.fail(f"no real nginx (name it in TOOLCRIB_WITHOUT to do without): {error}")


def check(rule: str, path: str) -> Check:
    return judge([parse_rule(rule)], Ask("GET", path)).check


@pytest.mark.parametrize(
    ("rule", "path", "reached"),
    [
        ("GET /{folder}/{name}", "/public../secret", "the secret"),
        ("GET /exact/{path:rest}", "/exact/../admin", "outside /admin"),
        ("GET /exact/{path:rest}", "/exact/%2e%2e/admin", "outside /admin"),
        ("GET /exact/{path:rest}", "/exact/..%2fadmin", "outside /admin"),
        ("GET /app/{a}/{b}", "/app/..%3B/admin", "inside /inner/..;/admin"),
        ("GET /app/{name}.json", "/app/secret%3B.json", "inside /inner/secret;.json"),
    ],
)
def test_asks_for_no_path_that_means_another_to_the_target(
    target: CarelessNginx, rule: str, path: str, reached: str
) -> None:
    assert target.ask(path) == (200, reached)  # the control
    assert check(rule, path) is Check.URL


def test_reaches_only_what_the_rule_says_whatever_is_put_in(target: CarelessNginx) -> None:
    random_, allowed = random.Random(7), 0
    for _ in range(4_000):
        place = random_.choice(["exact", "app"])
        path = f"/{place}/" + "".join(random_.choices(PIECES, k=random_.randint(1, 5)))
        if check(f"GET /{place}/{{path:rest}}", path) is not Check.ALLOWED:
            continue
        allowed += 1
        status, body = target.ask(path)
        assert (status, body.startswith(("inside /exact/", "inside /inner/"))) == (200, True)
        assert not any(hidden in body for hidden in ("/..", "../", ";"))
    assert allowed > 200
