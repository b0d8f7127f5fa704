"""Fixtures for the real vault."""
