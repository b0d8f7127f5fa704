"""Fixtures for the real engine."""
