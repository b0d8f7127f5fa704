"""`toolcrib agents`: keep an agent out, by its name or by a certificate that was stolen."""

from __future__ import annotations

import re
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from broker.cli.connection import profile_option
from broker.cli.leases import lift_brake, read_brakes, reason_option, set_brake, show_brakes
from broker.cli.output import USAGE, CommandFailed, list_output_option, output_option
from toolcrib.v1 import operations_pb2

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TENANT = re.compile(r"spiffe://[^/]+/tenant/([^/]+)/")
_BLOCKS = (operations_pb2.BRAKE_KIND_AGENT, operations_pb2.BRAKE_KIND_CERTIFICATE)

name_argument = click.argument("name", required=False, metavar="[NAME]")
certificate_option = click.option(
    "--certificate", metavar="FILE|SHA256", help="One certificate: its PEM file, or the SHA-256 of its DER."
)


@click.group()
def agents() -> None:
    """Keep agents and stolen certificates out, at once. For operators."""


@agents.command()
@name_argument
@certificate_option
@reason_option
@profile_option
@output_option
def block(name: str | None, certificate: str | None, reason: str, profile: str | None, form: str) -> None:
    """Block the agent NAME, or one certificate; stop its calls and end their credentials.

    By name: whatever certificate it shows. By certificate: that one only, of an agent or a person; the same
    agent with a new certificate goes on. Channels that are open already are refused, too.
    """
    kind, value, tenant = _read(name, certificate)
    request = operations_pb2.SetBrakeRequest(kind=kind, value=value, reason=reason, tenant=tenant)
    set_brake(request, profile, form)


@agents.command()
@name_argument
@certificate_option
@click.option("--reason", required=True, metavar="TEXT", help="Why it may go on; for the audit.")
@profile_option
@output_option
def unblock(name: str | None, certificate: str | None, reason: str, profile: str | None, form: str) -> None:
    """Let the agent NAME, or one certificate, in again."""
    kind, value, tenant = _read(name, certificate)
    found = [
        brake
        for brake in read_brakes(profile)
        if (brake.kind, brake.value) == (kind, value) and tenant in ("", brake.tenant)
    ]
    if not found:
        raise CommandFailed(f"{name or 'the certificate'}: is not blocked; see `toolcrib agents blocked`", 1)
    if len(found) > 1:
        ids = ", ".join(f"{brake.id} ({brake.tenant})" for brake in found)
        raise CommandFailed(f"blocked in more than one tenant: lift one by its id with leases lift: {ids}", 1)
    lift_brake(found[0].id, reason, profile, form)


@agents.command()
@profile_option
@list_output_option
def blocked(profile: str | None, form: str) -> None:
    """List the agents and certificates that are blocked, oldest first."""
    found = [brake for brake in read_brakes(profile) if brake.kind in _BLOCKS]
    show_brakes(found, form, empty="nobody is blocked")


def _read(name: str | None, certificate: str | None) -> tuple[operations_pb2.BrakeKind, str, str]:
    """Read who is meant: kind, value, and the tenant where a certificate's file says it."""
    if (name is None) == (certificate is None):
        raise CommandFailed("name one: an agent, or --certificate FILE|SHA256", USAGE)
    if certificate is None:
        return operations_pb2.BRAKE_KIND_AGENT, name or "", ""
    value, tenant = _read_certificate(certificate)
    return operations_pb2.BRAKE_KIND_CERTIFICATE, value, tenant


def _read_certificate(given: str) -> tuple[str, str]:
    """Read a fingerprint as openssl, ssh or we write it, or the first certificate of a PEM file."""
    plain = given.replace(":", "").lower().removeprefix("sha256 fingerprint=")
    if _SHA256.fullmatch(plain):
        return plain, ""
    try:
        certificate = x509.load_pem_x509_certificate(Path(given).read_bytes())
    except OSError as error:
        raise CommandFailed(
            f"{given}: is no SHA-256 of 64 hex digits, and cannot be read as a file ({error.strerror})", USAGE
        ) from error
    except ValueError as error:
        raise CommandFailed(f"{given}: holds no certificate in PEM", USAGE) from error
    return certificate.fingerprint(hashes.SHA256()).hex(), _tenant(certificate)


def _tenant(certificate: x509.Certificate) -> str:
    """Name the tenant of a certificate's identity: a block holds within one tenant. "" where it has none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return ""
    found = [_TENANT.match(uri) for uri in names.get_values_for_type(x509.UniformResourceIdentifier)]
    return next((match[1] for match in found if match), "")
