"""Fixtures for the real postgres."""
