"""Fixtures of all tests: the real parts, started once and taken away again."""

pytest_plugins = ["tests.parts.engine", "tests.parts.vault", "tests.parts.postgres"]
