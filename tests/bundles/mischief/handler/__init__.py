"""A tool that misbehaves on request. For tests only."""
