"""What is wrong with an installation, and how to mend it: for `toolcrib doctor`.

Rules:
1. It only looks: no epoch is taken, no lock, no container or lease is ended. A broker may run meanwhile.
2. One part that is missing does not keep the others from being examined.
3. What it cannot find out is a problem, not silence.
"""

from __future__ import annotations

import asyncio
import enum
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from broker.app import read_secret_file
from broker.keys import read_key_file
from broker.settings import Settings, SettingsInvalid, Target
from broker.store.inspection import StateView, look_into
from broker.store.protocol import StoreError
from credentials.engines import ENGINES
from credentials.errors import CredentialsError
from credentials.health import VaultHealth, VaultSilent, read_health
from credentials.lease import CredentialWanted
from credentials.logins import AppRole
from credentials.vault import SessionTuning, VaultSession
from sandboxes.engine import Engine, EngineMissing
from sandboxes.engine_calls import EngineCalls
from sandboxes.hardening import LABEL_EPOCH, LABEL_INSTALLATION
from sandboxes.outcome import SandboxError
from tools.errors import BundleInvalid
from tools.manifest import read_manifest

MAX_CLOCK_SECONDS = 10
CONNECT_SECONDS = 3
RUNTIME = "runc"
STRONG_RUNTIME = "runsc"


class Level(enum.StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, what was found, and how to mend it where it needs mending."""

    subject: str
    level: Level
    text: str
    remedy: str = ""


def fine(subject: str, text: str) -> Finding:
    """Say that a part is as it should be."""
    return Finding(subject, Level.OK, text)


def warn(subject: str, text: str, remedy: str) -> Finding:
    """Say what will need attention."""
    return Finding(subject, Level.WARNING, text, remedy)


def bad(subject: str, text: str, remedy: str) -> Finding:
    """Say what is wrong."""
    return Finding(subject, Level.PROBLEM, text, remedy)


async def examine(settings: Settings) -> list[Finding]:
    """Look at every part that a broker with these settings needs."""
    view, findings = _look_at_state(settings)
    findings += [*_check_files(settings), *_check_certificates(settings, datetime.now(UTC))]
    findings += _check_run_dir(settings, view)
    parts = await asyncio.gather(
        _check_engine(settings, view),
        _check_vault(settings, view),
        *(_check_target(name, target) for name, target in settings.targets.items()),
    )
    return [*findings, *(finding for part in parts for finding in part)]


# --- state and files ---------------------------------------------------------------------------------
def _look_at_state(settings: Settings) -> tuple[StateView | None, list[Finding]]:
    path = settings.state.path
    if not path.exists():
        if path.parent.is_dir():
            return None, [warn("state", f"{path}: none yet", "the first start of the broker makes it")]
        return None, [bad("state", f"{path.parent}: no such folder", "make it, or correct state.path")]
    loose = [file for file in path.parent.glob(path.name + "*") if _is_open_to_others(file)]
    findings = [bad("state", f"{file}: others may read it", f"chmod 600 {file}") for file in loose]
    try:
        view = look_into(path)
    except StoreError as error:
        return None, [*findings, bad("state", str(error), "see docs/operating.md on backups")]
    return view, [*findings, *_describe_state(view)]


def _describe_state(view: StateView) -> Iterator[Finding]:
    runs = f"epoch {view.live_epoch} runs on it" if view.live_epoch else "no broker runs on it"
    yield fine("state", f"installation {view.installation}, schema {view.schema[0]}; {runs}")
    if view.schema[0] < view.schema[1]:
        yield warn(
            "state",
            f"its schema is {view.schema[0]}; this program knows {view.schema[1]}",
            "the next start brings it up to date; make a backup before",
        )
    mend = "see that Vault and the database answer; the running broker tries again"
    if not view.live_epoch:
        mend = "start the broker: it ends them"
    if view.owed_leases:
        yield bad("leases", f"{view.owed_leases} not confirmed dead: credentials may be alive", mend)
    if view.unfinished_calls:
        remedy = "start the broker: it ends what did not run and says what is in doubt"
        yield bad("calls", f"{view.unfinished_calls} left open by a broker that died", remedy)
    if view.in_doubt_calls:
        remedy = "toolcrib calls list --state IN_DOUBT; look at the target"
        yield warn("calls", f"{view.in_doubt_calls} in doubt: nobody knows whether they happened", remedy)


def _check_files(settings: Settings) -> Iterator[Finding]:
    state, vault = settings.state, settings.vault
    try:
        read_key_file(state.key_file)
        yield fine("key file", f"{state.key_file}")
    except SettingsInvalid as error:
        yield bad(
            "key file", str(error), "restore it from its backup; without it the audit cannot be checked"
        )
    for file in (vault.role_id_file, vault.secret_id_file):
        try:
            read_secret_file(file)
        except SettingsInvalid as error:
            yield bad("Vault", str(error), "put the AppRole's value there, mode 0600")
            continue
        if file == vault.secret_id_file and _is_open_to_others(file):
            yield bad("Vault", f"{file}: others may read it", f"chmod 600 {file}")


def _is_open_to_others(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o077)


def _check_run_dir(settings: Settings, view: StateView | None) -> Iterator[Finding]:
    if view is not None and view.live_epoch:
        return
    left = sorted(path.name for path in settings.run_dir.rglob("*") if path.is_socket())
    if left:
        remedy = "the next start empties it"
        yield warn("run folder", f"{len(left)} sockets of an earlier run in {settings.run_dir}", remedy)


# --- certificates and the clock ----------------------------------------------------------------------
def _check_certificates(settings: Settings, now: datetime) -> Iterator[Finding]:
    server = settings.server
    for name, path in (("server.certificate", server.certificate), ("server.client_ca", server.client_ca)):
        try:
            certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except OSError as error:
            yield bad(name, f"{path}: cannot be read ({error.strerror})", f"correct {name}")
        except ValueError:
            yield bad(name, f"{path}: holds no PEM certificate", f"correct {name}")
        else:
            yield from (_check_validity(name, certificate, now) for certificate in certificates)
    yield from _check_private_key(settings)


def _check_validity(name: str, certificate: x509.Certificate, now: datetime) -> Finding:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    window = f"valid from {begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC"
    if now < begins:
        return bad(name, f"{window}, and it is {now:%Y-%m-%d %H:%M}", "set this machine's clock, or wait")
    if now >= ends:
        return bad(name, f"expired: {window}", "get a new one and restart the broker")
    if now > ends - (ends - begins) / 5:
        return warn(name, f"ends soon: {window}", "get a new one and restart the broker")
    return fine(name, window)


def _check_private_key(settings: Settings) -> Iterator[Finding]:
    path = settings.server.private_key
    subject = "server.private_key"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        leaf = x509.load_pem_x509_certificate(settings.server.certificate.read_bytes())
    except OSError as error:
        yield bad(
            subject, f"{error.filename}: cannot be read ({error.strerror})", "correct the [server] section"
        )
        return
    except (ValueError, TypeError):
        yield bad(
            subject,
            f"{path}: is no PEM key without a passphrase, or has no certificate",
            f"correct {subject}",
        )
        return
    if key.public_key() != leaf.public_key():
        yield bad(
            subject, f"{path}: is not the key of server.certificate", "name the two that belong together"
        )
    if _is_open_to_others(path):
        yield bad(subject, f"{path}: others may read it", f"chmod 600 {path}")


# --- engine ------------------------------------------------------------------------------------------
async def _check_engine(settings: Settings, view: StateView | None) -> list[Finding]:
    with closing(Engine(settings.engine.url)) as engine:
        calls = EngineCalls(engine)
        try:
            info = await calls.run(engine.info)
            findings = [bad("engine", problem, "see docs/operating.md") for problem in info.problems]
            findings += _check_socket(engine.socket_path)
            findings += _check_runtimes(info.describe(), info.runtimes)
            if view is not None:
                findings += await _find_containers(calls, view)
            return findings
        except EngineMissing:
            text = f"no Docker Engine answers at {engine.base_url}"
            return [bad("engine", text, "install and start it (Debian: docker.io), or correct engine.url")]
        except SandboxError as error:
            return [bad("engine", str(error), "restart it, or correct engine.url")]
        finally:
            calls.close()


def _check_socket(path: Path) -> Iterator[Finding]:
    if stat.S_IMODE(path.stat().st_mode) & 0o007:
        text = f"{path}: everybody on this machine may use it, which is to be root"
        yield bad("engine", text, f"chmod o= {path}")


def _check_runtimes(engine: str, runtimes: tuple[str, ...]) -> Iterator[Finding]:
    if RUNTIME not in runtimes:
        yield bad("engine", f"{engine} has no runtime {RUNTIME}", f"install {RUNTIME}")
        return
    named = ", ".join(name for name in runtimes if not name.startswith("io.containerd."))
    strong = "" if STRONG_RUNTIME in runtimes else f"; no {STRONG_RUNTIME} (for strong isolation)"
    yield fine("engine", f"{engine}, runtimes {named}{strong}")


async def _find_containers(calls: EngineCalls, view: StateView) -> list[Finding]:
    """Find containers of this installation that no running broker made."""
    ours = await calls.list([f"{LABEL_INSTALLATION}={view.installation}"])
    dead = [item["Id"][:12] for item in ours if item["Labels"].get(LABEL_EPOCH) != str(view.live_epoch)]
    if not dead:
        return []
    remedy = f"docker rm -f {' '.join(dead[:5])}" if view.live_epoch else "start the broker: it removes them"
    return [bad("containers", f"{len(dead)} left by a broker that died: {', '.join(dead[:5])}", remedy)]


# --- Vault -------------------------------------------------------------------------------------------
async def _check_vault(settings: Settings, view: StateView | None) -> list[Finding]:
    vault = settings.vault
    try:
        health = await asyncio.to_thread(
            read_health, vault.address, ca_file=vault.ca_file, timeout_seconds=vault.timeout_seconds
        )
    except VaultSilent as error:
        return [bad("Vault", str(error), error.remedy)]
    if not health.initialized or health.sealed:
        what = "sealed" if health.initialized else "not initialized"
        return [bad("Vault", f"{vault.address} is {what}", "unseal it; until then no call can run")]
    findings = [fine("Vault", f"{health.version} at {vault.address}"), _check_clock(health)]
    try:
        return [*findings, *await _check_roles(settings, _roles(view.manifests if view else ()))]
    except SettingsInvalid:  # the files were examined before
        return findings


def _check_clock(health: VaultHealth) -> Finding:
    offset = health.clock_offset_seconds
    if abs(offset) > MAX_CLOCK_SECONDS:
        way = "ahead of" if offset > 0 else "behind"
        text = f"Vault's clock is {abs(offset):.0f} s {way} this machine's"
        return bad("clock", text, "let both follow the same time server")
    return fine("clock", f"within {MAX_CLOCK_SECONDS} s of Vault's")


async def _check_roles(settings: Settings, roles: list[CredentialWanted]) -> list[Finding]:
    """Log in as the broker does, with a session of our own, and see what it could mint."""
    vault = settings.vault
    session = VaultSession(
        vault.address,
        AppRole(read_secret_file(vault.role_id_file), read_secret_file(vault.secret_id_file)),
        SessionTuning(ca_file=vault.ca_file, timeout_seconds=vault.timeout_seconds),
    )
    try:
        await session.open()
        wrong = await session.check(roles)
    except CredentialsError as error:
        return [bad("Vault", str(error), "compare the AppRole with docs/credentials.md")]
    finally:
        await session.close()
    if wrong:
        return [bad("Vault", f"{found.subject}: {found.problem}", found.remedy) for found in wrong]
    return [fine("Vault", f"AppRole and {len(roles)} roles are as they should be")]


def _roles(manifests: Iterable[str]) -> list[CredentialWanted]:
    """Name the Vault roles that registered tools ask for; a manifest that today's rules refuse asks none."""
    roles = set()
    for text in manifests:
        try:
            asked = read_manifest(text).credentials.values()
        except BundleInvalid:
            continue
        roles |= {(wanted.engine, wanted.role) for wanted in asked if wanted.engine in ENGINES}
    return [CredentialWanted(role, engine, role) for engine, role in sorted(roles)]


# --- targets -----------------------------------------------------------------------------------------
async def _check_target(name: str, target: Target) -> list[Finding]:
    subject, where = f"target {name}", f"{target.host}:{target.port}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(target.host, target.port)
    except (OSError, TimeoutError):
        return [bad(subject, f"{where} takes no connection", f"start it, or correct targets.{name}")]
    writer.close()
    return [fine(subject, f"{where} takes connections")]
