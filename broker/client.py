"""A connection to a broker as the command line, `dev` and the tests use it: address and three PEM files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from broker.settings import SettingsInvalid
from toolcrib import client
from toolcrib.client.requests import MAX_MESSAGE_BYTES

# gRPC takes 4 MiB; the largest result, written as JSON, is more.
_OPTIONS = (("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),)


@dataclass(frozen=True, slots=True)
class Profile:
    """Where a broker is and who we are to it: one identity's folder with profile.toml beside the PEMs."""

    address: str
    ca_path: Path
    cert_path: Path
    key_path: Path

    def write(self, path: Path) -> None:
        """Write profile.toml; the PEM files are named as they lie beside it."""
        lines = {
            "address": self.address,
            "ca": self.ca_path.name,
            "certificate": self.cert_path.name,
            "private_key": self.key_path.name,
        }
        path.write_text("".join(f'{name} = "{value}"\n' for name, value in lines.items()))

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the PEM files.

        Raises:
            SettingsInvalid: One cannot be read.
        """
        try:
            return grpc.ssl_channel_credentials(
                root_certificates=self.ca_path.read_bytes(),
                private_key=self.key_path.read_bytes(),
                certificate_chain=self.cert_path.read_bytes(),
            )
        except OSError as error:
            raise SettingsInvalid(f"{error.filename}: cannot be read ({error.strerror})") from error

    def connect(self) -> grpc.Channel:
        """Open a channel for synchronous calls."""
        return grpc.secure_channel(self.address, self.credentials(), options=_OPTIONS)

    def connect_async(self) -> grpc.aio.Channel:
        """Open a channel for asynchronous calls."""
        return grpc.aio.secure_channel(self.address, self.credentials(), options=_OPTIONS)


def read_profile(path: Path) -> Profile:
    """Read profile.toml, or the one in a folder, as the client in `toolcrib` does.

    Raises:
        SettingsInvalid: It is missing, or lacks a key, or names a token where people need a certificate.
    """
    try:
        found = client.read_profile(path)
    except client.ProfileInvalid as error:
        raise SettingsInvalid(str(error)) from error
    files = found.credentials
    if not isinstance(files, client.Certificates):
        raise SettingsInvalid(
            f"{path}: names a token_file; the command line needs certificate and private_key"
        )
    return Profile(found.address, files.ca, files.certificate, files.private_key)
