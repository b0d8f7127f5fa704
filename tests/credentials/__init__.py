"""Tests of credentials/, on a real OpenBao and a real PostgreSQL."""
