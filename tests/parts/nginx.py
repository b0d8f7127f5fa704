"""A real nginx on loopback: doors that want a client certificate, an API key, or one of four forms of login.

The first answers with the name in the certificate, and refuses certificates that its CRL file names. nginx
reads the file when it is (re)loaded and never by itself: whoever runs such a target has to fetch the CA's
list often and reload. Whom the door of forms lets in gets back what was sent, as it was sent. All doors show
a certificate for the name `nginx.test` of a CA that is made for them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from credentials import child_process
from credentials.child_process import HOST, Launch, attempts, find_free_port
from credentials.errors import PartUnavailable
from tests.parts import REAL_PARTS, without

NGINX = Path("/usr/sbin/nginx")
NAME = "nginx.test"
_UID = 65434

_SETTINGS = """\
daemon off;
worker_processes 1;
worker_shutdown_timeout 1s;
pid {folder}/nginx.pid;
error_log stderr info;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  default_type text/plain;
  ssl_certificate {folder}/server.pem;
  ssl_certificate_key {folder}/server.key;
  ssl_protocols TLSv1.2 TLSv1.3;
  # A session that is taken up again would not be asked for its certificate.
  ssl_session_cache off;
  ssl_session_tickets off;
  server {{
    listen {host}:{port} ssl;
    ssl_verify_client on;
    ssl_verify_depth 2;
    ssl_client_certificate {folder}/client_ca.pem;
    ssl_crl {folder}/client_ca.crl;
    location = /whoami {{ return 200 "$ssl_client_s_dn"; }}
  }}
  server {{
    listen {host}:{api_port} ssl;
    location = /quote {{
      if ($http_x_api_key != "{api_key}") {{ return 401; }}
      return 200 "Measure twice, cut once.";
    }}
  }}
  server {{
    listen {host}:{forms_port} ssl;
    location = /bearer {{
      if ($http_authorization != "Bearer {bearer}") {{ return 401; }}
      proxy_pass http://unix:{folder}/echo.sock:;
    }}
    location = /basic {{
      auth_basic forms;
      auth_basic_user_file {folder}/users;
      proxy_pass http://unix:{folder}/echo.sock:;
    }}
    location = /header {{
      if ($http_x_api_key != "{header}") {{ return 401; }}
      proxy_pass http://unix:{folder}/echo.sock:;
    }}
    location = /query {{
      if ($arg_api_key != "{query}") {{ return 401; }}
      proxy_pass http://unix:{folder}/echo.sock:;
    }}
  }}
  server {{
    listen unix:{folder}/echo.sock;
    add_header X-Echo "$http_authorization$http_x_api_key$arg_api_key";
    return 200 "authorization: $http_authorization, x-api-key: $http_x_api_key, query: $args";
  }}
}}
"""


class NginxTarget:
    """An nginx in a folder. Use it as a context manager.

    Attributes:
        port: Of the door that wants a client certificate.
        api_port: Of the door that wants the header X-Api-Key.
        forms_port: Of the door whose paths /bearer, /basic, /header and /query want what they are called.
        ca_pem: The CA of its own certificate.
    """

    def __init__(self) -> None:
        self.port = self.api_port = self.forms_port = 0
        self.ca_pem = ""
        # Not pytest's folder: that one is closed to the server's user.
        self._folder = Path(tempfile.mkdtemp(prefix="toolcrib-nginx-"))
        self._api_key = "none yet"
        self._forms = dict.fromkeys(("bearer", "header", "query"), "none yet")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NginxTarget:
        try:
            if not NGINX.exists():
                raise PartUnavailable("nginx is missing: run deploy/setup/targets.sh")
            self._folder.chmod(0o755)
            self._prepare()
            self._serve()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and remove its folder."""
        if self._process is not None:
            child_process.stop(self._process, signal.SIGTERM)
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def version(self) -> str:
        """Its version, for example "nginx/1.22.1"."""
        said = subprocess.run([str(NGINX), "-v"], capture_output=True, text=True, check=True)
        return said.stderr.split()[-1]

    def trust(self, ca_pem: str, crl_pem: str) -> None:
        """Accept client certificates of a CA and no other from now on, but for those on its list."""
        self._write("client_ca.pem", ca_pem)
        self._write("client_ca.crl", crl_pem)
        self.reload()

    def require_api_key(self, api_key: str) -> None:
        """Want this API key from now on."""
        self._api_key = api_key
        self._write_settings()
        self.reload()

    def require_forms(self, bearer: str, basic: tuple[str, str], header: str, query: str) -> None:
        """Want these from now on: a token, a user with a password, and two API keys."""
        self._forms = {"bearer": bearer, "header": header, "query": query}
        self._write("users", f"{basic[0]}:{{PLAIN}}{basic[1]}\n")
        self._write_settings()
        self.reload()

    def reload(self) -> None:
        """Read settings and CRL again; returns when no old worker is left."""
        assert self._process is not None
        old = self._workers()
        self._process.send_signal(signal.SIGHUP)
        for _ in attempts(10.0):
            now = self._workers()
            if now and not now & old:
                return
        raise PartUnavailable(f"nginx was not reloaded: {self._log_end()}")

    def _prepare(self) -> None:
        authority, key = make_authority("nginx's CA")
        self.ca_pem = _pem(authority)
        server, server_key = _issue(authority, key)
        self._write("server.pem", _pem(server))
        self._write("server.key", _key_pem(server_key))
        # Until a test trusts a real one: a CA that has signed nothing.
        nobody, nobodys_key = make_authority("nobody's CA")
        self._write("users", "")
        self._write("client_ca.pem", _pem(nobody))
        self._write("client_ca.crl", empty_crl(nobody, nobodys_key))
        if child_process.is_root():
            os.chown(self._folder, _UID, _UID)

    def _serve(self) -> None:
        for _ in range(3):
            self.port, self.api_port, self.forms_port = (find_free_port() for _ in range(3))
            self._write_settings()
            if self._try_to_serve():
                return
        raise PartUnavailable(f"nginx did not start: {self._log_end()}")

    def _try_to_serve(self) -> bool:
        command = [
            str(NGINX),
            "-e",
            "stderr",
            "-p",
            str(self._folder),
            "-c",
            str(self._folder / "nginx.conf"),
        ]
        uid = _UID if child_process.is_root() else None
        self._process = child_process.start(
            Launch(command, self._folder, self._folder / "nginx.log", death_signal=signal.SIGTERM, uid=uid)
        )
        for _ in attempts(10.0):
            if self._workers():
                return True
            if self._process.poll() is not None:
                break
        child_process.stop(self._process, signal.SIGKILL)
        return False

    def _workers(self) -> set[str]:
        assert self._process is not None
        pid = self._process.pid
        try:
            return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:
            return set()

    def _write_settings(self) -> None:
        ports = {"port": self.port, "api_port": self.api_port, "forms_port": self.forms_port}
        text = _SETTINGS.format(folder=self._folder, host=HOST, api_key=self._api_key, **ports, **self._forms)
        self._write("nginx.conf", text)

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)
        if child_process.is_root():
            os.chown(path, _UID, _UID)

    def _log_end(self) -> str:
        return child_process.read_end(self._folder / "nginx.log")


def make_authority(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Make a CA for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = _builder(subject, subject, key).add_extension(usage, critical=True)
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    return builder.add_extension(constraints, critical=True).sign(key, hashes.SHA256()), key


def empty_crl(authority: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> str:
    """A list of a CA that names no certificate, in PEM."""
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    crl = builder.last_update(now).next_update(now + timedelta(days=1)).sign(key, hashes.SHA256())
    return crl.public_bytes(serialization.Encoding.PEM).decode()


def _issue(
    authority: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    own = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    names = x509.SubjectAlternativeName([x509.DNSName(NAME)])
    builder = _builder(subject, authority.subject, own).add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()), own


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(minutes=1)).not_valid_after(now + timedelta(days=1))


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@pytest.fixture(scope="session")
def nginx() -> Iterator[NginxTarget]:
    """One nginx for the whole run; each test says whom it trusts."""
    if without("nginx"):
        pytest.skip("without nginx, as TOOLCRIB_WITHOUT says")
    try:
        with NginxTarget() as server:
            REAL_PARTS.append(server.version)
            yield server
    except PartUnavailable as error:
        pytest.fail(f"no real nginx (name it in TOOLCRIB_WITHOUT to do without): {error}")
