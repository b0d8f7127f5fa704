"""Writes that happen once, whatever crashes: the proof. `python -m tests.chaos --help`."""
