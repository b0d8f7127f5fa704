"""The documentation's site, and the protocol reference that it holds."""
