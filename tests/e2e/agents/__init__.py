"""Agents in two languages, and what the tests do with them."""
