"""Tests of the secrets engines."""
