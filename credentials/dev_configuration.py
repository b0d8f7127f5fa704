"""The configuration of a development OpenBao: in memory, one address, an audit that can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from credentials.audit_settings import DEVICE_OPTIONS

_TEXT = """\
storage "inmem" {{}}
listener "tcp" {{
  address = "{place}"
  {tls}
}}
api_addr = "{address}"
audit "file" "toolcrib" {{
  options {{
    file_path = "{audit_log}"
    {audit_options}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Tls:
    """A server's certificate for 127.0.0.1, its key, and the CA by which it is known; PEM files."""

    certificate: Path
    private_key: Path
    ca: Path


def write_configuration(address: str, audit_log: Path, tls: Tls | None) -> str:
    """Return the text, for a server that listens at `address` and, without TLS, speaks in clear."""
    spoken = "tls_disable = true"
    if tls is not None:
        spoken = f'tls_cert_file = "{tls.certificate}"\n  tls_key_file = "{tls.private_key}"'
    options = "\n    ".join(f'{name} = "{value}"' for name, value in DEVICE_OPTIONS.items())
    place = address.partition("://")[2]
    return _TEXT.format(place=place, address=address, tls=spoken, audit_log=audit_log, audit_options=options)
