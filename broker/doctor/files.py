"""The doctor's look at keys and certificates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from broker.doctor.finding import Finding, bad, fine, warn
from broker.keys import read_key_file
from broker.settings import Settings, SettingsInvalid
from credentials.secret import Secret

# What of a login is no secret; and Kubernetes itself says who may read a service account's token.
_OPEN_KEYS = {"approle": ("role_id_file",), "cert": ("certificate",), "kubernetes": ("token_file",)}


def read_secret_file(path: Path) -> Secret:
    """Read a secret that the operator put into a file.

    Raises:
        SettingsInvalid: It cannot be read, or is empty.
    """
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise SettingsInvalid(f"{path}: cannot be read ({error.strerror})") from error
    if not text:
        raise SettingsInvalid(f"{path}: is empty")
    return Secret(text)


def check_files(settings: Settings) -> Iterator[Finding]:
    """Look at the files that hold keys."""
    state, vault = settings.state, settings.vault
    try:
        read_key_file(state.key_file)
        yield fine("key file", f"{state.key_file}")
    except SettingsInvalid as error:
        yield bad(
            "key file", str(error), "restore it from its backup; without it the audit cannot be checked"
        )
    for key, file in vault.login.files.items():
        try:
            read_secret_file(file)
        except SettingsInvalid as error:
            yield bad("Vault", str(error), f"correct vault.login.{key}, or put there what belongs there")
            continue
        if key not in _OPEN_KEYS.get(vault.login.method, ()) and is_open_to_others(file):
            yield bad("Vault", f"{file}: others may read it", f"chmod 600 {file}")


def is_open_to_others(path: Path) -> bool:
    """Tell whether anybody but its owner may do anything with a file."""
    return bool(path.stat().st_mode & 0o077)


def check_certificates(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Look at the server's certificate, its key, and the CAs of callers."""
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
    except (ValueError, TypeError, UnsupportedAlgorithm):
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
    if is_open_to_others(path):
        yield bad(subject, f"{path}: others may read it", f"chmod 600 {path}")
