"""Fixtures for the real parts: Docker Engine, OpenBao, PostgreSQL."""
