"""What a credential costs a call: its mint and its end, beside the same requests without our code.

    python -m bench.bench_vault [--rounds 12] [--engines database,kv] [--before 0]

Each engine is measured over both ways to Vault: aiohttp, which calls take, and hvac. Its floor are the same
requests by bare aiohttp. The database engine is measured beside a direct CREATE ROLE and DROP ROLE, too. The
authorization server of oauth2 is the tests' own, in this process.
`--before` makes and ends so many of the first engine first: the list of revoked certificates grows by it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from bench.measure import Pacing, Report, Stages, Subject, measure
from credentials.bootstrap.roles import define_role
from credentials.dev_engines import make_static_login, put_client, put_secret
from credentials.dev_postgres import VAULT_ROLE, DevPostgres
from credentials.dev_vault import DevVault
from credentials.engines.pki import make_request
from credentials.errors import PartUnavailable
from credentials.lease import CallTag, CredentialWanted, Signer
from credentials.policies import TOKEN_ROLE, tool_policy_name
from credentials.transport import AsyncTransport, HvacTransport, Peer, Transport
from credentials.vault import SessionTuning, VaultSession
from tests.parts.token_server import Client, TokenServer

TARGET, TABLE, NAME = "bench-db", "notes", "bench.tools.test"
GRANT = f"GRANT SELECT ON {TABLE} TO"
TAG = CallTag("c019b00000000bbbbbbbbbbbbb", "bench", "bench", "5e3c" * 16)
TTL_SECONDS = 300
TRANSPORTS: Mapping[str, Callable[[Peer], Transport]] = {"aiohttp": AsyncTransport, "hvac": HvacTransport}
CLIENT, CLIENT_SECRET = "bench", "correct horse battery staple"
DIRECT = "direct CREATE ROLE + DROP ROLE"


def _pki_body() -> dict[str, object]:
    request = make_request(ec.generate_private_key(ec.SECP256R1()), NAME)
    return {"csr": request, "common_name": NAME, "ttl": f"{TTL_SECONDS}s"}


def _ssh_body() -> dict[str, object]:
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    public_key = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(*form).decode()
    return {"public_key": public_key, "ttl": f"{TTL_SECONDS}s"}


@dataclass(frozen=True, slots=True)
class Kind:
    """An engine's part in the bench.

    Attributes:
        role: As a roles file says it.
        before: What the child reads first; "" where it reads nothing.
        secret: What gives out the credential.
        body: What is sent with it; None: it is a read.
        uses: Of the child.
        rotation: What ends what has no lease; "" where nothing does.
        asks_elsewhere: With what was read a token is asked for, at `token_url`.
    """

    role: Mapping[str, object]
    secret: str
    before: str = ""
    body: Mapping[str, object] | None = None
    uses: int = 2
    rotation: str = ""
    asks_elsewhere: bool = False


KINDS: Mapping[str, Kind] = {
    "database": Kind({"target": TARGET, "grants": [f'{GRANT} "{{{{name}}}}"']}, "database/creds/bench"),
    "database_static": Kind(
        {"engine": "database_static", "target": TARGET, "username": "bench-static"},
        "database/static-creds/bench-static",
        rotation="database/rotate-role/bench-static",
    ),
    "kv": Kind({"engine": "kv"}, "toolcrib-kv/data/bench"),
    "pki": Kind(
        {"engine": "pki", "name": NAME},
        "toolcrib-pki/sign/bench",
        before="toolcrib-pki/roles/bench",
        body=_pki_body(),
        uses=3,
    ),
    "ssh": Kind(
        {"engine": "ssh", "principal": "git", "force_command": "/bin/true"},
        "toolcrib-ssh/sign/bench",
        body=_ssh_body(),
    ),
    "transit": Kind(
        {"engine": "transit", "type": "ed25519"},
        "toolcrib-sign/sign/bench",
        before="toolcrib-sign/keys/bench",
        body={"input": "eA=="},
        uses=3,
    ),
    "oauth2": Kind(
        {"engine": "oauth2", "grant": "client_credentials", "client_id": CLIENT},
        f"toolcrib-kv/data/oauth2/{CLIENT}",
        uses=6,
        asks_elsewhere=True,
    ),
}


def role_of(engine: str) -> str:
    """Name an engine's role; a database's static and dynamic ones may not share a name."""
    return "bench-static" if engine == "database_static" else "bench"


@dataclass(slots=True)
class Bare:
    """The requests of a call without our code: no check of an answer but its status."""

    address: str
    http: aiohttp.ClientSession
    token: str = field(default="", repr=False)

    async def ask(
        self, method: str, path: str, token: str, body: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        """Send one request."""
        headers = {"X-Vault-Request": "true", "X-Vault-Token": token}
        url = f"{self.address}/v1/{path}"
        async with self.http.request(method, url, json=body, headers=headers) as response:
            text = await response.read()
            if response.status >= 400 and b"invalid" not in text:
                raise RuntimeError(f"{path}: {response.status}")
            return await response.json() if text else {}

    async def ask_token(self, kept: Mapping[str, str]) -> None:
        """Ask for an access token, over a new connection."""
        headers = {"Authorization": aiohttp.encode_basic_auth(CLIENT, kept["client_secret"])}
        async with (
            aiohttp.ClientSession() as http,
            http.post(
                kept["token_url"], data={"grant_type": "client_credentials"}, headers=headers
            ) as response,
        ):
            await response.json()

    async def log_in(self, vault: DevVault) -> None:
        """Log in as a broker."""
        login = {"role_id": vault.role_id.reveal(), "secret_id": vault.secret_id.reveal()}
        self.token = (await self.ask("POST", "auth/approle/login", "", login))["auth"]["client_token"]

    async def call(self, engine: str) -> None:
        """Make and end one credential."""
        kind = KINDS[engine]
        child = (await self.ask("POST", f"auth/token/create/{TOKEN_ROLE}", self.token, _child(engine)))[
            "auth"
        ]
        if kind.before:
            await self.ask("GET", kind.before, child["client_token"])
        method = "GET" if kind.body is None else "POST"
        answer = await self.ask(method, kind.secret, child["client_token"], kind.body)
        if kind.asks_elsewhere:
            await self.ask_token(answer["data"]["data"])
        lease, accessor = answer["lease_id"], {"accessor": child["accessor"]}
        if lease:
            await self.ask("PUT", "sys/leases/revoke", self.token, {"lease_id": lease, "sync": True})
        if kind.rotation:
            await self.ask("POST", kind.rotation, self.token, {})
        await self.ask("POST", "auth/token/revoke-accessor", self.token, accessor)
        proofs = [self.ask("POST", "auth/token/lookup-accessor", self.token, accessor)]
        if lease:
            proofs.append(self.ask("PUT", "sys/leases/lookup", self.token, {"lease_id": lease}))
        await asyncio.gather(*proofs)


def _child(engine: str) -> dict[str, object]:
    return {
        "policies": [tool_policy_name(engine, role_of(engine))],
        "ttl": f"{TTL_SECONDS}s",
        "num_uses": KINDS[engine].uses,
        "no_default_policy": True,
        "renewable": False,
        "display_name": f"toolcrib-{TAG.call_id}",
        "meta": {
            "call_id": TAG.call_id,
            "tenant": TAG.tenant,
            "environment": TAG.environment,
            "digest": TAG.digest,
        },
    }


async def mint_and_end(session: VaultSession, engine: str) -> Stages:
    """Make and end one credential as the broker does; with a signature where it signs."""
    began = time.perf_counter()
    [lease] = await session.mint(TAG, [CredentialWanted("bench", engine, role_of(engine))], TTL_SECONDS)
    if isinstance(lease.payload, Signer):
        await lease.payload.sign(b"x")
    minted = time.perf_counter()
    await session.end(lease)
    return {"mint": minted - began, "end": time.perf_counter() - minted}


async def create_and_drop(connection: asyncpg.Connection) -> None:
    """Make and drop a login as Vault's statements do, without Vault."""
    await connection.execute(
        f"CREATE ROLE bench LOGIN CONNECTION LIMIT 8 PASSWORD 'SY9i-Q6iTILrA7oCrQrS'; {GRANT} bench"
    )
    await connection.execute("DROP OWNED BY bench; DROP ROLE bench")


def prepare(vault: DevVault, postgres: DevPostgres, tokens: TokenServer) -> None:
    """Lay what the engines need."""
    tokens.clients[CLIENT] = Client(CLIENT_SECRET)
    put_client(vault, CLIENT, tokens.token_url, CLIENT_SECRET)
    postgres.run_script(f"CREATE TABLE {TABLE} (note text);")
    vault.connect_database(TARGET, postgres)
    make_static_login(postgres, "bench-static")
    put_secret(vault, "bench", {"password": "correct horse battery staple"})
    more = {"oauth2": {"token_url": tokens.token_url}}
    definitions = [
        define_role(role_of(engine), {**kind.role, **more.get(engine, {})}) for engine, kind in KINDS.items()
    ]
    vault.bootstrap(definitions=definitions)


@asynccontextmanager
async def open_subjects(
    vault: DevVault, postgres: DevPostgres, engines: list[str]
) -> AsyncIterator[list[Subject]]:
    """Hold sessions over both transports, a bare client and a direct connection."""
    sessions = {
        name: VaultSession(vault.address, vault.login, SessionTuning(transport=transport))
        for name, transport in TRANSPORTS.items()
    }
    direct = await asyncpg.connect(**postgres.login(VAULT_ROLE, postgres.vault_password))
    async with aiohttp.ClientSession() as http:
        bare = Bare(vault.address, http)
        await bare.log_in(vault)
        for session in sessions.values():
            await session.open()
        try:
            yield list_subjects(engines, sessions, bare, direct)
        finally:
            for session in sessions.values():
                await session.close()
            await bare.ask("POST", "auth/token/revoke-self", bare.token, {})
            await direct.close()


def list_subjects(
    engines: list[str], sessions: Mapping[str, VaultSession], bare: Bare, direct: asyncpg.Connection
) -> list[Subject]:
    """Name what is measured, each engine beside its floor."""
    subjects = []
    for engine in engines:
        floor = f"{engine}: bare requests"
        subjects.append(_subject(floor, partial(bare.call, engine), floor))
        for name, session in sessions.items():
            call = partial(mint_and_end, session, engine)
            subjects.append(_subject(f"{engine}: ours by {name}", call, floor))
    if "database" in engines:
        subjects.append(_subject(DIRECT, partial(create_and_drop, direct), DIRECT))
        call = partial(mint_and_end, sessions["aiohttp"], "database")
        subjects.append(_subject("database: ours beside the direct", call, DIRECT))
    return subjects


def _subject(name: str, call: Callable[[], Any], against: str) -> Subject:
    return Subject(name, call, against, calls=10, dropped=2)


async def run(options: argparse.Namespace) -> Report:
    """Start the parts, measure, and stop them."""
    engines = options.engines.split(",")
    with (
        tempfile.TemporaryDirectory(prefix="tc-bench-") as name,
        DevPostgres(Path(name)) as postgres,
        DevVault(Path(name), session_period_seconds=3600) as vault,  # nobody renews the bare one
        TokenServer() as tokens,
    ):
        prepare(vault, postgres, tokens)
        async with open_subjects(vault, postgres, engines) as subjects:
            for _ in range(options.before):
                await subjects[0].call()
            return await measure("vault", subjects, Pacing(rounds=options.rounds))


def main() -> int:
    """Read the arguments and run.

    Returns:
        0, or 1 when a part is missing.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="bursts of each subject (default 12)")
    parser.add_argument("--engines", default=",".join(KINDS), help="which (default all)")
    parser.add_argument("--before", type=int, default=0, help="credentials made and ended before (default 0)")
    try:
        report = asyncio.run(run(parser.parse_args()))
    except PartUnavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.table())
    print(f"written: {report.write()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
