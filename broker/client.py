"""A connection to a broker as the command line, `dev` and the tests use it: address and three PEM files."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import grpc

from broker.settings import SettingsInvalid


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
        return grpc.secure_channel(self.address, self.credentials())

    def connect_async(self) -> grpc.aio.Channel:
        """Open a channel for asynchronous calls."""
        return grpc.aio.secure_channel(self.address, self.credentials())


def read_profile(path: Path) -> Profile:
    """Read profile.toml, or the one in a folder.

    Raises:
        SettingsInvalid: It is missing, or lacks a key.
    """
    file = path / "profile.toml" if path.is_dir() else path
    try:
        document = tomllib.loads(file.read_text())
        return Profile(
            document["address"],
            file.parent / document["ca"],
            file.parent / document["certificate"],
            file.parent / document["private_key"],
        )
    except OSError as error:
        raise SettingsInvalid(
            f"{file}: cannot be read ({error.strerror}); `toolcrib dev` writes profiles under clients/"
        ) from error
    except (KeyError, tomllib.TOMLDecodeError) as error:
        raise SettingsInvalid(f"{file}: needs address, ca, certificate and private_key ({error})") from error
