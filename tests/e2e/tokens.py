"""A caller with a token instead of a certificate, as a client in the field makes one."""

from __future__ import annotations

import grpc

from tests.e2e.stack import Crib


class TokenProfile:
    """Connects to the door for tokens; stands where a `Profile` does."""

    def __init__(self, crib: Crib, token: str) -> None:
        self.address = crib.stack.broker.token_address
        self._root = (crib.stack.state_dir / "ca.pem").read_bytes()
        self._token = token

    def connect(self) -> grpc.Channel:
        """Open a channel that sends the token with each call."""
        return grpc.secure_channel(
            self.address,
            grpc.composite_channel_credentials(
                grpc.ssl_channel_credentials(self._root), grpc.access_token_call_credentials(self._token)
            ),
        )
