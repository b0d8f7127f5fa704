"""Rotations, against a real OpenBao and a real PostgreSQL of their own: they change what others share."""
