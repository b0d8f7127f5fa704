"""A tool that does not end by itself. For tests only."""
