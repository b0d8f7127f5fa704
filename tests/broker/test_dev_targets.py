"""The local targets of the sample bundles."""

from __future__ import annotations

import socket
import ssl
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.dev_targets import DevTarget, DevTargets
from credentials.errors import PartUnavailable

SERVER = """
import socket, ssl, sys
from pathlib import Path
folder = Path(sys.argv[1])
if folder.name == "broken":
    raise SystemExit("the reason of the test")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder / "server.pem")
listening = socket.create_server(("127.0.0.1", 0))
(folder / "port").write_text(str(listening.getsockname()[1]))
while True:
    context.wrap_socket(listening.accept()[0], server_side=True).close()
"""
TARGETS = """
[targets.{name}]
kind = "http"
server = "server.py"
origins = ["https://api.test"]

[secrets.login]
url = "http://{{{name}}}/token"
password = "?"
"""


@contextmanager
def started(folder: Path, name: str) -> Iterator[DevTargets]:
    place = folder / "bundle" / "dev"
    place.mkdir(parents=True)
    (place / "server.py").write_text(SERVER)
    (place / "targets.toml").write_text(TARGETS.format(name=name))
    targets = DevTargets(folder / "targets", [folder / "bundle"], ["shop"])
    try:
        targets.start()
        yield targets
    finally:
        targets.stop()


def knock(target: DevTarget, name: str) -> str:
    """Begin TLS; the common name that the server shows."""
    context = ssl.create_default_context(cafile=str(target.folder / "ca.pem"))
    with socket.create_connection(("127.0.0.1", target.port), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname=name) as stream:
            return str(stream.getpeercert()["subject"][0][0][1])  # type: ignore[index]


def test_gives_a_server_a_certificate_for_its_own_name_alone(tmp_path: Path):
    with started(tmp_path, "api") as targets:
        assert knock(targets.targets["api"], "api.test") == "api.test"
        with pytest.raises(ssl.SSLCertVerificationError):
            knock(targets.targets["api"], "other.test")


def test_says_to_the_broker_where_a_target_is_and_whom_to_trust(tmp_path: Path):
    with started(tmp_path, "api") as targets:
        target = targets.targets["api"]
        said = tomllib.loads(target.to_toml())["targets"]["api"]
    assert (said["port"], said["origins"]) == (target.port, ["https://api.test"])
    assert said["ca_file"] == str(target.folder / "ca.pem")


def test_writes_addresses_where_a_targets_name_stands(tmp_path: Path):
    with started(tmp_path, "api") as targets:
        address = f"127.0.0.1:{targets.targets['api'].port}"
        assert targets.secrets["login"]["url"] == f"http://{address}/token"
        assert (
            targets.resolve('token_url = "http://{api}/x {other}"')
            == f'token_url = "http://{address}/x {{other}}"'
        )
        assert len(targets.secrets["login"]["password"]) > 20


def test_says_which_server_does_not_start_and_why(tmp_path: Path):
    with pytest.raises(PartUnavailable, match="server of broken did not start: the reason of the test"):
        with started(tmp_path, "broken"):
            pass
