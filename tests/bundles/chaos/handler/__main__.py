"""Serve one call of chaos.v1.Chaos."""

from handler import handler

handler.run()
