"""Access tokens of an authorization server (OAuth2): roles, assertions that Vault signs, the asking."""

from __future__ import annotations

from credentials.engines.oauth2.engine import OAuthEngine

__all__ = ["OAuthEngine"]
