"""A tool that attacks whoever runs it. For tests only."""
